"""The gap between validation and generation: is a model better at telling a right answer than at
giving one?

    bestofn sample tiny:320 --engine tiny -o pool.jsonl -m 32 --max-tokens 400 --seed 0
    bestofn score pool.jsonl --reward gold --verifier tiny
    python recipes/validation_gap.py pool.jsonl -o runs/gap --engine tiny \\
        --reward flip,flip-likelihood,pointwise,pairwise,listwise

Prompts are single messages. Of each prompt's candidates, which are the model's own, one right and
three wrong ones make an item, drawn with a seed; prompts that have not so many different ones are
left out and counted. On the prompts of the items the table has the accuracy of the model as
generator (pass@1: the share of right ones among all candidates), and of each reward as validator
(best-of-4, chance 0.25): judges ask the same model which answer is right, FLIP lets it infer the
instruction.

The folder gets items.jsonl, what `bestofn rewardbench` writes, gap.json and gap.png.
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bestofn.config import RewardBenchConfig, checked
from bestofn.errors import BestOfNError, ConfigError
from bestofn.estimators import Interval, bootstrap_mean
from bestofn.evals.rewardbench.run import run_rewardbench
from bestofn.models import Engines
from bestofn.prompts import random_for
from bestofn.recipe import RewardBenchRecipe
from bestofn.store import pool
from bestofn.store.journal import write_atomically
from bestofn.types import Pool

WRONG = 3  # beside a right one
GENERATOR = "generator, pass@1"


@dataclass(frozen=True, slots=True)
class Task:
    """One prompt with an item of its candidates.

    Attributes:
        item: A row of RewardBench 2's schema.
        pass_at_1: The share of right ones among all candidates.
    """

    item: dict[str, Any]
    pass_at_1: float


def as_task(row: Pool, seed: int) -> Task | None:
    """The task that a pool makes, None where it has too few right or wrong candidates.

    Raises:
        ConfigError: a candidate has no gold score, or the prompt has several messages.
    """
    verdicts = [c.scores["gold"].value if "gold" in c.scores else None for c in row.candidates]
    if None in verdicts:
        raise ConfigError(
            f"prompt {row.prompt.id!r} has candidates without gold; add it with "
            "`bestofn score POOL --reward gold --verifier ...`"
        )
    if len(row.prompt.messages) > 1:
        raise ConfigError(
            f"prompt {row.prompt.id!r} has a system prompt or earlier turns, which items of this "
            "schema cannot hold"
        )
    drawn = list(zip(row.candidates, verdicts, strict=True))
    right = sorted({c.text for c, v in drawn if v == 1 and c.text.strip()})
    wrong = sorted({c.text for c, v in drawn if v == 0 and c.text.strip()})
    if not right or len(wrong) < WRONG:
        return None
    rng = random_for("item", seed, row.prompt)
    item = {
        "id": row.prompt.id,
        "prompt": row.prompt.messages[-1].content,
        "chosen": [rng.choice(right)],
        "rejected": rng.sample(wrong, WRONG),
        "subset": str(row.prompt.columns.get("subset", "all")),
    }
    return Task(item, sum(v == 1 for v in verdicts) / len(verdicts))


def table(tasks: Sequence[Task], result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Name, accuracy with interval, tie and failure rate: the generator, then each reward."""
    generator = bootstrap_mean([task.pass_at_1 for task in tasks])
    rows: list[dict[str, Any]] = [{"name": GENERATOR, "accuracy": _interval(generator)}]
    for name, line in result["rewards"].items():
        found = line["subsets"]["mean"]
        rows.append(
            {
                "name": name,
                "accuracy": found["strict"],
                "ties broken by a draw": found["credit"],
                "tie_rate": found["tie_rate"],
                "failure_rate": found["failure_rate"],
            }
        )
    return rows


def _interval(interval: Interval) -> dict[str, float]:
    return {part: float(getattr(interval, part)) for part in ("mean", "low", "high")}


def lines(rows: Iterable[Mapping[str, Any]], tasks: int, left_out: int) -> list[str]:
    """The table in words."""
    told = [f"{tasks} prompts with a right and {WRONG} wrong answers, {left_out} left out"]
    for row in rows:
        text = f"{row['name']}: {_shown(row['accuracy'])}"
        if "tie_rate" in row:
            text += (
                f", ties broken by a draw {_shown(row['ties broken by a draw'])}; ties "
                f"{row['tie_rate']:.0%}, failed {row['failure_rate']:.0%}"
            )
        told.append(text)
    return told


def _shown(interval: Mapping[str, float]) -> str:
    return f"{interval['mean']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """One bar each, with intervals, and what chance gives a validator."""
    import matplotlib as mpl

    from bestofn.analysis.plots import STYLE, new_figure, save

    with mpl.rc_context(STYLE):
        figure, (axes,) = new_figure(1, 1, "Giving and telling right answers, one model")
        for place, row in enumerate(rows):
            found = row["accuracy"]
            axes.bar(place, found["mean"], 0.7, color="#0072B2" if place else "#888888", zorder=2)
            axes.vlines(place, found["low"], found["high"], color="#333333", zorder=3)
        drawn = [row["ties broken by a draw"]["mean"] for row in rows[1:]]
        axes.plot(range(1, len(rows)), drawn, "D", color="#D55E00", label="ties broken by a draw")
        chance = 1 / (1 + WRONG)
        axes.axhline(chance, color="#000000", ls="--", lw=1, label="chance of a validator")
        axes.set_xticks(range(len(rows)), [row["name"] for row in rows], rotation=30, ha="right")
        axes.grid(visible=False, axis="x")
        axes.set(ylim=(0, 1), ylabel="accuracy")
        axes.legend(frameon=False)
        save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pool", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--engine", required=True)
    parser.add_argument("--reward", default="flip,flip-likelihood,pointwise,pairwise,listwise")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        run(args.pool, args.output, args.engine, args.reward.split(","), args.seed)
    except BestOfNError as error:
        parser.error(str(error))


def run(path: Path, folder: Path, engine: str, rewards: Sequence[str], seed: int) -> None:
    """Makes the items, validates them and writes table and picture."""
    found = [as_task(row, seed) for row in pool.read(path)]
    tasks = [task for task in found if task is not None]
    if not tasks:
        raise ConfigError(f"no prompt of {path} has a right and {WRONG} wrong candidates")
    items = folder / "items.jsonl"
    write_atomically(items, "".join(json.dumps(task.item) + "\n" for task in tasks))
    fields = {"data": str(items), "engine": engine, "rewards": list(rewards)}
    config = checked(RewardBenchConfig, fields, "the options")
    with Engines() as engines:
        result = run_rewardbench(RewardBenchRecipe(output=str(folder), rewardbench=config), engines)
    rows = table(tasks, result)
    write_atomically(folder / "gap.json", json.dumps(rows, indent=1) + "\n")
    draw(rows, folder / "gap.png")
    print("\n".join(lines(rows, len(tasks), len(found) - len(tasks))))


if __name__ == "__main__":
    main()
