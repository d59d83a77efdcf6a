"""Commands for a first look: ask, demo."""

from collections.abc import Sequence
from math import isnan
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import Field
from rich.table import Table
from rich.text import Text

from bestofn.cli.app import Json, app, console, options, section, show, show_table
from bestofn.config import AskConfig, EngineConfig, Section
from bestofn.dataset.pools import add, draw
from bestofn.dataset.select import check, loaded
from bestofn.dataset.sources import read_prompts
from bestofn.dataset.summary import Summary, bar_of
from bestofn.engines.base import SamplingParams
from bestofn.errors import RunFailedError
from bestofn.generators import EngineGenerator
from bestofn.models import Engines
from bestofn.progress import redraws
from bestofn.prompts import as_prompt
from bestofn.rewards.base import load_reward
from bestofn.rewards.similarity import words
from bestofn.sampler import by_rank
from bestofn.section import Flag
from bestofn.store import pool
from bestofn.types import Pool, Score, Selection

if TYPE_CHECKING:
    from bestofn.analysis.curves import ScalingCurve

REWARDS = ("flip", "flip-likelihood", "gold")
PROXIES = ("random", "longest", "majority", "mean-logprob", *REWARDS[:2], "oracle")


@app.command()
@options(AskConfig, defaults={"engine": "Default: tiny."})
def ask(
    prompt: Annotated[str, typer.Argument(help="What to answer.")],
    as_json: Json = False,
    **given: Any,
) -> None:
    """Draw N candidates for a prompt, score them, show them by rank and the best one.

    Exit code 1 says that none was selected, as no candidate was drawn or none has a score.
    """
    config = section(AskConfig, {"engine": "tiny"} | given)
    turns = [] if config.system is None else [{"role": "system", "content": config.system}]
    question = as_prompt([*turns, {"role": "user", "content": prompt}])
    check(config)
    with loaded(config) as best:
        (selection,) = best.select_many([question], progress=redraws())
    result = pool.to_row(selection) | {"text": selection.text}
    show(result, as_json, lambda _: _show_selection(selection, prompt))
    # A first candidate that nothing chose must not pass for the best of N.
    first = selection.candidates[0]
    if selection.error is not None:
        raise RunFailedError(f"no candidate could be drawn: {first.error}")
    if selection.fallback:
        raise RunFailedError(
            "every score failed, so no candidate was chosen; the first is returned: "
            f"{first.scores[selection.reward].reason}"
        )


class DemoConfig(Section):
    """What the demo draws."""

    prompts: int = Field(default=50, ge=1)
    """Held-out instructions of the tiny world."""
    n: Annotated[int, Flag(("-n",))] = Field(default=8, ge=1)
    """Candidates for each."""
    seed: int = 0
    """Of the run."""


@app.command()
@options(DemoConfig)
def demo(as_json: Json = False, **given: Any) -> None:
    """Best-of-N on the model that ships with the package, and what each selector is worth."""
    from bestofn.analysis.curves import ScalingCurve

    config = section(DemoConfig, given)
    with Engines() as engines:
        (engine,) = engines.get(EngineConfig(engine="tiny"))
        rewards = [load_reward(name, engine=engine, verifier="tiny") for name in REWARDS]
        sampling = SamplingParams(max_tokens=400)
        generator = EngineGenerator(engine, sampling, config.seed, keep_tokens=False)
        drawn = draw(read_prompts(f"tiny:{config.prompts}"), generator, config.n)
        pools, summary = [], Summary()
        with bar_of(summary, config.prompts) as bar:
            for row in add(drawn, rewards):
                summary.add_scores(row, REWARDS)
                bar.update()
                pools.append(row)
    errors = [candidate.error for row in pools for candidate in row.candidates]
    if all(errors):
        raise RunFailedError(f"no candidate could be drawn: {errors[0]}")
    curve = ScalingCurve(pools, proxies=PROXIES, ns=[config.n])
    result = _as_json(curve) | {"n": config.n, "seed": config.seed}
    if not as_json:
        _show_examples(pools[:4])
    show(result, as_json, lambda _: _show_curves(curve, config.n))


def _as_json(curve: "ScalingCurve") -> dict[str, Any]:
    curves = curve.curves
    return {
        "prompts": curve.prompts,
        "accuracy": {c.name: float(c.gold.mean[0]) for c in curves},
        "interval": {c.name: [float(c.gold.low[0]), float(c.gold.high[0])] for c in curves},
        "tie_rate": {c.name: float(c.ties[0]) for c in curves},
        "failed_scores": {c.name: c.failed_scores for c in curves},
    }


def _show_selection(selection: Selection, instruction: str) -> None:
    order = by_rank(selection, selection.reward)
    table = Table(title=f"{len(order)} candidates by {selection.reward}", title_justify="left")
    infers = any(candidate.scores[selection.reward].inferred for candidate in order)
    inferred = ["inferred instruction"] if infers else []
    for heading in ("#", "score", *inferred, "tokens", "finish"):
        table.add_column(heading, overflow="fold", max_width=30)
    table.add_column("response", overflow="fold")
    for candidate in order:
        score = candidate.scores[selection.reward]
        table.add_row(
            Text(str(candidate.index), "bold green" if candidate is selection.best else ""),
            _score_text(score),
            *([_marked(score, instruction)] if infers else []),
            Text(str(candidate.token_count or "")),
            Text(candidate.finish_reason),
            Text(_shortened(candidate.text, 160)),
        )
    console.print(table)
    if selection.error is None and not selection.fallback and selection.tie:
        console.print("[dim]several candidates are as good: the lowest index wins[/]")
    if selection.error is None:
        label = "first: " if selection.fallback else "best: "
        console.print(Text(label, "bold"), Text(selection.text), sep="")


def _marked(score: Score, instruction: str) -> Text:
    """The inferred instruction, with the words that it shares with the true one in bold."""
    true, marked = set(words(instruction)), Text()
    for word in " / ".join(score.inferred).split(" "):
        marked.append(word + " ", "bold cyan" if true & set(words(word)) else "dim")
    return marked


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _score_text(score: Score) -> Text:
    if isnan(score.value):
        return Text(score.reason or "failed", "yellow")
    return Text("\n".join([f"{score.value:.3f}", *score.flags]))


def _show_examples(pools: Sequence[Pool]) -> None:
    """What FLIP chose, and the first candidate."""
    for row in pools:
        console.print(Text(row.prompt.messages[-1].content, "bold"))
        chosen = {"flip": by_rank(row, "flip")[0], "first": row.candidates[0]}
        for selector, candidate in chosen.items():
            right = candidate.scores["gold"].value > 0
            verdict = Text(" right ", "green") if right else Text(" wrong ", "red")
            line = Text(_shortened(candidate.text.replace("\n", " | "), 100))
            console.print(f"  {selector:8}", verdict, line, sep="")


def _show_curves(curve: "ScalingCurve", n: int) -> None:
    columns = [
        (
            heading,
            [f"{e.mean[0]:{sign}.2f} [{e.low[0]:{sign}.2f}, {e.high[0]:{sign}.2f}]" for e in of],
        )
        for heading, sign, of in (
            ("accuracy, 95 %", "", [proxy.gold for proxy in curve.curves]),
            ("over one candidate", "+", [proxy.gain for proxy in curve.curves]),
        )
    ]
    columns.append(("ties", [f"{proxy.ties[0]:.0%}" for proxy in curve.curves]))
    columns.append(("failed", [f"{proxy.failed_scores:.1%}" for proxy in curve.curves]))
    title = f"Right answers chosen from {n} candidates, {curve.prompts} held-out instructions"
    show_table(title, "selector", [proxy.name for proxy in curve.curves], columns)
