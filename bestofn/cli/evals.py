"""Commands that measure rewards: rewardbench, audit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.text import Text

from bestofn.cli.app import (
    Column,
    Json,
    Output,
    app,
    console,
    notes,
    options,
    section,
    show,
    show_summary,
    show_table,
)
from bestofn.config import AuditConfig, RewardBenchConfig
from bestofn.errors import RunFailedError
from bestofn.models import Engines
from bestofn.recipe import RewardBenchRecipe

REWARDS = ",".join(reward.label for reward in AuditConfig.model_fields["rewards"].default)


@app.command()
@options(RewardBenchConfig, without=["models"])
def rewardbench(output: Output, as_json: Json = False, **given: Any) -> None:
    """Measure how often a reward finds the right one of four responses; a rerun resumes.

    Without --data on RewardBench 2.
    """
    config = section(RewardBenchConfig, given)
    run_bench(RewardBenchRecipe(output=str(output), rewardbench=config), as_json)


def run_bench(recipe: RewardBenchRecipe, as_json: bool) -> None:
    """Runs an evaluation and shows what came of it.

    Raises:
        RunFailedError: every score failed.
    """
    from bestofn.evals.rewardbench.run import run_rewardbench

    with Engines() as engines:
        result = run_rewardbench(recipe, engines, progress=True)
    show(result, as_json, _show_bench)
    rates = [
        rate
        for line in result["rewards"].values()
        for rate in (
            *(subset["failure_rate"] for subset in line["subsets"].values()),
            *([line["ties_failure_rate"]] if line["ties"] is not None else []),
        )
    ]
    _finish(recipe.output, rates)


def _finish(folder: str | Path, failure_rates: list[float]) -> None:
    notes.print(f"wrote {folder}", style="dim")
    if all(rate == 1 for rate in failure_rates):
        raise RunFailedError(f"every score failed; {folder} keeps the reasons")


def _show_bench(result: Mapping[str, Any]) -> None:
    if result["subsets"]:
        _show_accuracies(result, "strict", "Accuracy, ties and failed items wrong")
        _show_accuracies(result, "credit", "Accuracy, ties broken by a draw")
    lines = [line for line in result["rewards"].values() if line["model"] and line["subsets"]]
    if lines:
        known = {(line["model"], line["reward"]): line["subsets"]["mean"] for line in lines}
        columns: list[Column] = [
            (
                reward,
                [f"{known[model, reward]['strict']['mean']:.3f}" for model in result["models"]],
            )
            for reward in dict.fromkeys(line["reward"] for line in lines)
        ]
        title = "Mean over subsets by model, ties and failed items wrong"
        show_table(title, "model", result["models"], columns)
    show_summary(result["summary"])


def _show_accuracies(result: Mapping[str, Any], convention: str, title: str) -> None:
    """A row for each subset, and for their mean what else is known of it."""
    whose = f", mean of {len(result['models'])} models" if result["models"] else ""
    names = [*result["subsets"], "mean", f"mean, {result['level']:.0%}", "ties", "failed"]
    chances = [*(subset["chance"] for subset in result["subsets"].values()), result["chance"]]
    columns: list[Column] = [("chance", [*(f"{chance:.3f}" for chance in chances), "", "", ""])]
    for label, line in result["overall"].items():
        mean = line["subsets"]["mean"]
        interval = f"[{mean[convention]['low']:.2f}, {mean[convention]['high']:.2f}]"
        rates = [f"{mean[rate]:.0%}" for rate in ("tie_rate", "failure_rate")]
        means = [f"{found[convention]['mean']:.3f}" for found in line["subsets"].values()]
        columns.append((label, [*means, interval, *rates]))
    show_table(title + whose, "subset", names, columns)


@app.command()
@options(AuditConfig, defaults={"rewards": f"Default: {REWARDS}."})
def audit(output: Output = Path("audit"), as_json: Json = False, **given: Any) -> None:
    """Try to game rewards: how often do attacks beat honest responses? A rerun resumes."""
    from bestofn.evals.audit import run_audit

    config = section(AuditConfig, given)
    with Engines() as engines:
        result = run_audit(config, output, engines, progress=True)
    show(result, as_json, _show_audit)
    _finish(output, [entry["both_failed_rate"] for entry in result["attacks"]])


def _show_audit(result: dict[str, Any]) -> None:
    """A column for each reward, with a row for each attack."""
    from bestofn.evals.audit.results import CARRIES, by_reward, percent

    found = by_reward(result)
    attacks = next(iter(found.values()))
    names = [Text(entry["name"]).append(CARRIES[entry["answer"]], "dim") for entry in attacks]
    columns: list[Column] = [
        (name.replace(", ", "\n"), [percent(entry["win_rate"]) for entry in entries])
        for name, entries in found.items()
    ]
    above = f"% of {result['prompts']} prompts on which an attack beats the honest response"
    show_table(above, "attack", names, columns)
    if any(entry["answer"] != "none" for entry in attacks):
        console.print("* with a piece of the honest response, ** with all of it", style="dim")
    show_summary(result["summary"])
