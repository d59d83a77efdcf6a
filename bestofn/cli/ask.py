"""Commands for a first look: ask, demo, doctor."""

import json
from collections.abc import Sequence
from math import isnan
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from bestofn.cli.app import Debug, Json, app, console, load, one_sentence, with_bar
from bestofn.cli.options import options
from bestofn.config import (
    DrawConfig,
    EngineConfig,
    RewardConfig,
    ScoreConfig,
    checked,
    reward_fields,
)
from bestofn.errors import ConfigError
from bestofn.types import Pool, Score, Selection

if TYPE_CHECKING:
    from bestofn.experiments.curves import ScalingCurve

DEMO_REWARDS = ("flip", "flip-likelihood", "gold")
DEMO_PROXIES = ("random", "longest", "majority", "mean-logprob", *DEMO_REWARDS[:2], "oracle")


@app.command()
@options(
    DrawConfig, ScoreConfig, only=[*DrawConfig.model_fields, "reward_engine", "reward_engine_args"]
)
def ask(
    prompt: Annotated[str, typer.Argument(help="What to answer.")],
    n: Annotated[int, typer.Option("-n", help="Candidates to draw.")] = 8,
    reward: Annotated[
        str, typer.Option(help="What scores them: flip, flip-likelihood, pointwise, pairwise ...")
    ] = "flip",
    as_json: Json = False,
    **given: Any,
) -> None:
    """Draw N candidates for a prompt, score them, show them by rank and the best one."""
    from bestofn import pool
    from bestofn.progress import redraws
    from bestofn.prompts import as_prompt
    from bestofn.rewards.registry import load_reward, needs_engine
    from bestofn.sampler import BestOfN

    scorer = given.pop("reward_engine", None)
    scorer_args = given.pop("reward_engine_args", {})
    config = checked(DrawConfig, given, "the options")
    turns = [] if config.system is None else [{"role": "system", "content": config.system}]
    question = as_prompt([*turns, {"role": "user", "content": prompt}])
    sampling = config.sampling()
    _check_n(n)
    named = checked(RewardConfig, reward_fields(reward), "--reward")
    needs_engine(named.reward)  # which knows the rewards
    engine = load(config)
    judge = load(EngineConfig(engine=scorer, engine_args=scorer_args)) if scorer else engine
    scoring = load_reward(named.reward, engine=judge, **named.options)
    sampler = BestOfN(engine, scoring, n=n, sampling=sampling, seed=config.seed)
    (selection,) = sampler.select_many([question], progress=redraws())
    if as_json:
        print(json.dumps(pool.to_row(selection) | {"text": selection.text}))
    else:
        _show_selection(selection, prompt)


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
    from bestofn.engines.base import SamplingParams
    from bestofn.experiments.curves import ScalingCurve
    from bestofn.experiments.pools import add, draw
    from bestofn.generators import EngineGenerator
    from bestofn.rewards.registry import load_reward
    from bestofn.sources import read_prompts

    with one_sentence(debug):
        _check_n(n)
        if prompts < 1:
            raise ConfigError(f"prompts must be at least 1, not {prompts}")
        engine = load(EngineConfig())
        rewards = [load_reward(name, engine=engine, verifier="tiny") for name in DEMO_REWARDS]
        generator = EngineGenerator(engine, SamplingParams(max_tokens=400), seed, keep_tokens=False)
        drawn = draw(read_prompts(f"tiny:{prompts}"), generator, n)
        pools = list(with_bar(add(drawn, rewards), prompts))
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
    if selection.fallback:
        console.print("[yellow]every score failed: this is the first candidate[/]")
    elif selection.tie:
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
