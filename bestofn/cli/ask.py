"""Commands for a first look: ask, demo, doctor."""

import json
from collections.abc import Sequence
from math import isnan
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from bestofn.cli.app import (
    Debug,
    Json,
    announce,
    app,
    console,
    most_often,
    one_sentence,
)
from bestofn.cli.options import options
from bestofn.config import OPTIONS, EngineConfig, checked
from bestofn.dataset.config import AskConfig
from bestofn.errors import ConfigError, RunFailedError
from bestofn.types import Pool, Score, Selection

if TYPE_CHECKING:
    from bestofn.analysis.curves import ScalingCurve

DEMO_REWARDS = ("flip", "flip-likelihood", "gold")
DEMO_PROXIES = ("random", "longest", "majority", "mean-logprob", *DEMO_REWARDS[:2], "oracle")


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
    from bestofn.progress import redraws
    from bestofn.prompts import as_prompt
    from bestofn.store import pool

    config = checked(AskConfig, {"engine": "tiny"} | given, OPTIONS)
    turns = [] if config.system is None else [{"role": "system", "content": config.system}]
    question = as_prompt([*turns, {"role": "user", "content": prompt}])
    config.check()
    announce(config, config.scorer(config))
    with config.loaded() as best:
        (selection,) = best.select_many([question], progress=redraws())
    if as_json:
        print(json.dumps(pool.to_row(selection) | {"text": selection.text}))
    else:
        _show_selection(selection, prompt)
    _check_selected(selection)


def _check_selected(selection: Selection) -> None:
    """A first candidate that nothing chose must not pass for the best of N.

    Raises:
        RunFailedError: there is no response, or no score.
    """
    if selection.error is not None:
        errors = [candidate.error for candidate in selection.candidates]
        raise RunFailedError(f"no candidate could be drawn: {most_often(errors)}")
    if selection.fallback:
        reasons = most_often(score.reason for score in selection.scores)
        raise RunFailedError(
            f"every score failed, so no candidate was chosen; the first is returned: {reasons}"
        )


def _check_n(n: int) -> None:
    """Before a model is loaded for nothing."""
    if n < 1:
        raise ConfigError(f"n must be at least 1, not {n}")


@app.command()
def demo(
    prompts: Annotated[int, typer.Option(help="Held-out instructions of the tiny world.")] = 50,
    n: Annotated[int, typer.Option("-n", help="Candidates for each.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the run.")] = 0,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Best-of-N on the model that ships with the package, and what each selector is worth."""
    from bestofn.analysis.curves import ScalingCurve
    from bestofn.dataset.pools import add, draw
    from bestofn.dataset.sources import read_prompts
    from bestofn.dataset.summary import Summary, bar_of
    from bestofn.engines.base import SamplingParams
    from bestofn.generators import EngineGenerator
    from bestofn.rewards.base import load_reward

    with one_sentence(debug):
        _check_n(n)
        if prompts < 1:
            raise ConfigError(f"prompts must be at least 1, not {prompts}")
        announce(EngineConfig(engine="tiny"))
        engine = EngineConfig(engine="tiny").load()
        rewards = [load_reward(name, engine=engine, verifier="tiny") for name in DEMO_REWARDS]
        generator = EngineGenerator(engine, SamplingParams(max_tokens=400), seed, keep_tokens=False)
        drawn = draw(read_prompts(f"tiny:{prompts}"), generator, n)
        pools, summary = [], Summary()
        with bar_of(summary, prompts) as bar:
            for row in add(drawn, rewards):
                summary.add_scores(row, DEMO_REWARDS)
                bar.update()
                pools.append(row)
        errors = [candidate.error for row in pools for candidate in row.candidates]
        if all(errors):
            raise RunFailedError(f"no candidate could be drawn: {most_often(errors)}")
        curve = ScalingCurve(pools, proxies=DEMO_PROXIES, ns=[n])
        if as_json:
            print(json.dumps(_demo_json(curve, n, seed)))
        else:
            _show_examples(pools[:4])
            _show_curves(curve, n)


def _demo_json(curve: "ScalingCurve", n: int, seed: int) -> dict[str, Any]:
    curves = curve.curves
    return {
        "prompts": curve.prompts,
        "n": n,
        "seed": seed,
        "accuracy": {c.name: float(c.gold.mean[0]) for c in curves},
        "interval": {c.name: [float(c.gold.low[0]), float(c.gold.high[0])] for c in curves},
        "tie_rate": {c.name: float(c.ties[0]) for c in curves},
        "failed_scores": {c.name: c.failed_scores for c in curves},
    }


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what is installed, which devices and engines work, and how to mend what is broken."""
    from dataclasses import asdict

    from bestofn.doctor import examine

    findings = examine()
    if as_json:
        print(json.dumps({"findings": [asdict(finding) for finding in findings]}))
    else:
        colours = {"ok": "green", "missing": "yellow", "broken": "red"}
        table = Table("", "status", box=None)
        for heading in ("detail", "what to do"):
            table.add_column(heading, overflow="fold")
        for finding in findings:
            status = Text(finding.status, colours[finding.status])
            table.add_row(finding.what, status, Text(finding.detail), Text(finding.remedy))
        console.print(table)
    if any(finding.status == "broken" for finding in findings):
        raise typer.Exit(1)


# --- how results look -----------------------------------------------------------------------------


def _show_selection(selection: Selection, instruction: str) -> None:
    order = sorted(selection.candidates, key=lambda c: _rank(c.scores[selection.reward], c.index))
    table = Table(title=f"{len(order)} candidates by {selection.reward}", title_justify="left")
    for heading in ("#", "score", "inferred instruction", "tokens", "finish"):
        table.add_column(heading, overflow="fold", max_width=30)
    table.add_column("response", overflow="fold")
    for candidate in order:
        score = candidate.scores[selection.reward]
        table.add_row(
            Text(str(candidate.index), "bold green" if candidate is selection.best else ""),
            _score_text(score),
            _marked(score, instruction),
            Text(str(candidate.token_count or "")),
            Text(candidate.finish_reason),
            Text(_shortened(candidate.text)),
        )
    console.print(table)
    if selection.error is not None:
        return
    if selection.fallback:
        console.print(Text("first: ", "bold yellow"), Text(selection.text), sep="")
        return
    if selection.tie:
        console.print("[dim]several candidates share the best score: the lowest index wins[/]")
    console.print(Text("best: ", "bold green"), Text(selection.text), sep="")


def _rank(score: Score, index: int) -> tuple[bool, float, int]:
    return isnan(score.value), -score.value, index


def _score_text(score: Score) -> Text:
    if isnan(score.value):
        return Text(score.reason or "failed", "yellow")
    return Text(f"{score.value:.3f}" + "".join(f"\n{flag}" for flag in score.flags))


def _marked(score: Score, instruction: str) -> Text:
    """The inferred instruction, with the words that it shares with the true one in bold."""
    from bestofn.rewards.similarity import words

    true = set(words(instruction))
    marked = Text()
    for word in " / ".join(score.inferred).split(" "):
        shared = bool(set(words(word)) & true)
        marked.append(word + " ", "bold cyan" if shared else "dim")
    return marked


def _shortened(text: str, limit: int = 160) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _show_examples(pools: Sequence[Pool]) -> None:
    for pool in pools:
        console.print(Text(pool.prompt.messages[-1].content, "bold"))
        chosen = {
            "flip": min(pool.candidates, key=lambda c: _rank(c.scores["flip"], c.index)),
            "first": pool.candidates[0],
        }
        for selector, candidate in chosen.items():
            right = candidate.scores["gold"].value > 0
            verdict = Text(" right ", "green") if right else Text(" wrong ", "red")
            line = _shortened(candidate.text.replace("\n", " | "), 100)
            console.print(f"  {selector:8}", verdict, Text(line), sep="")


def _show_curves(curve: "ScalingCurve", n: int) -> None:
    table = Table(
        title=f"Right answers chosen from {n} candidates, {curve.prompts} held-out instructions",
        title_justify="left",
    )
    table.add_column("selector", no_wrap=True)
    for heading in ("accuracy, 95 %", "over one candidate", "ties", "failed"):
        table.add_column(heading, justify="right", no_wrap=True)
    for proxy in curve.curves:
        gold, gain = proxy.gold, proxy.gain
        table.add_row(
            proxy.name,
            f"{gold.mean[0]:.2f} [{gold.low[0]:.2f}, {gold.high[0]:.2f}]",
            f"{gain.mean[0]:+.2f} [{gain.low[0]:+.2f}, {gain.high[0]:+.2f}]",
            f"{proxy.ties[0]:.0%}",
            f"{proxy.failed_scores:.1%}",
        )
    console.print(table)
