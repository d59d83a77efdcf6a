"""The command line: parse, call, print."""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from math import isnan
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

import bestofn
from bestofn.errors import BestOfNError, ConfigError
from bestofn.types import Candidate, Score, Selection

if TYPE_CHECKING:
    from bestofn.engines.base import Engine

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Best-of-N sampling: draw N candidates, score each, return the best.",
)
# Only results go to stdout, so that --json can be piped.
console = Console()
notes = Console(stderr=True)

RewardName = Literal["flip", "flip-likelihood"]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
EngineSpec = Annotated[
    str, typer.Option(help="'tiny', 'vllm:MODEL', 'hf:MODEL' or 'openai:URL#MODEL'.")
]
EngineArgs = Annotated[
    list[str] | None,
    typer.Option("--engine-arg", help="NAME=VALUE for the engine, such as max_model_len=4096."),
]


@contextmanager
def _one_sentence(debug: bool) -> Iterator[None]:
    """Turns the package's errors into one sentence and exit code 2, an interrupt into 130."""
    try:
        yield
    except BestOfNError as error:
        if debug:
            raise
        notes.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        notes.print("interrupted")
        raise typer.Exit(130) from None


def _version(wanted: bool) -> None:
    if wanted:
        print(f"bestofn {bestofn.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def ask(
    prompt: Annotated[str, typer.Argument(help="What to answer.")],
    engine: EngineSpec = "tiny",
    engine_arg: EngineArgs = None,
    reward_engine: Annotated[
        str | None, typer.Option(help="What scores, if not the engine that draws.")
    ] = None,
    reward_engine_arg: Annotated[
        list[str] | None, typer.Option("--reward-engine-arg", help="NAME=VALUE for that one.")
    ] = None,
    n: Annotated[int, typer.Option("-n", help="Candidates to draw.")] = 8,
    reward: Annotated[RewardName, typer.Option(help="What scores them.")] = "flip",
    system: Annotated[str | None, typer.Option(help="A system prompt.")] = None,
    temperature: Annotated[float, typer.Option(help="Of the candidates.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Nucleus sampling.")] = 1.0,
    max_tokens: Annotated[int, typer.Option(help="Of a candidate.")] = 512,
    seed: Annotated[int | None, typer.Option(help="Makes the run reproducible.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw N candidates for a prompt, score them, show them by rank and the best one."""
    from bestofn import pool
    from bestofn.engines.base import SamplingParams
    from bestofn.prompts import as_prompt
    from bestofn.rewards.flip import FLIPLikelihood, FLIPReward
    from bestofn.sampler import BestOfN

    with _one_sentence(debug):
        turns = [{"role": "system", "content": system}] if system is not None else []
        question = as_prompt([*turns, {"role": "user", "content": prompt}])
        sampling = SamplingParams(temperature=temperature, top_p=top_p, max_tokens=max_tokens)
        _check_n(n)
        loaded = _load(engine, engine_arg)
        judge = _load(reward_engine, reward_engine_arg) if reward_engine else loaded
        scorer = (FLIPReward if reward == "flip" else FLIPLikelihood)(judge)
        sampler = BestOfN(loaded, scorer, n=n, sampling=sampling, seed=seed)
        (selection,) = sampler.select_many([question], progress=notes.is_terminal)
        if as_json:
            print(pool.dumps(selection))
        else:
            _show_selection(selection, prompt)


def _load(spec: str, arguments: list[str] | None = None) -> "Engine":
    """The engine; large models say how far they are, the embedded one loads too fast for that."""
    from transformers.utils import logging

    from bestofn.engines.base import load_engine

    options = dict(_named(argument) for argument in arguments or [])
    if spec == "tiny":
        logging.disable_progress_bar()
    if spec.startswith("vllm:") and notes.is_terminal:
        notes.print("starting vLLM, which takes half a minute or more", style="dim")
    return load_engine(spec, **options)


def _named(argument: str) -> tuple[str, Any]:
    """NAME=VALUE, the value as YAML reads it: a number, true or false, a list, or text."""
    import yaml

    name, equals, value = argument.partition("=")
    if not equals or not name.isidentifier():
        raise ConfigError(f"an engine argument is NAME=VALUE, not {argument!r}")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError:
        return name, value


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
    from bestofn.experiments.selectors import default_selectors, draw_pools, selector_curves
    from bestofn.tiny import heldout_tasks

    with _one_sentence(debug):
        _check_n(n)
        if prompts < 1:
            raise ConfigError(f"prompts must be at least 1, not {prompts}")
        engine = _load("tiny")
        selectors = default_selectors(engine)
        names = [selector.name for selector in selectors]
        pools = draw_pools(engine, heldout_tasks(prompts), n, seed, selectors)
        drawn = list(_with_bar(pools, prompts))
        curves = selector_curves(drawn, names, [n])
        if as_json:
            print(json.dumps(_demo_json(curves, prompts, n, seed)))
        else:
            _show_examples(drawn[:4])
            _show_curves(curves, prompts, n)


def _demo_json(curves: list[Any], prompts: int, n: int, seed: int) -> dict[str, Any]:
    return {
        "prompts": prompts,
        "n": n,
        "seed": seed,
        "accuracy": {c.name: float(c.accuracy.mean[0]) for c in curves},
        "interval": {c.name: [float(c.accuracy.low[0]), float(c.accuracy.high[0])] for c in curves},
        "tie_rate": {c.name: float(c.ties[0]) for c in curves},
        "failed_scores": {c.name: c.failed_scores for c in curves},
    }


def _with_bar(items: Iterator[Any], total: int) -> Iterator[Any]:
    from tqdm import tqdm

    return iter(tqdm(items, total=total, unit="prompt", disable=not notes.is_terminal))


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
        table = Table("", "status", "detail", "what to do", box=None)
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


def _show_examples(pools: list[Any]) -> None:
    for pool in pools:
        console.print(Text(pool.prompt.messages[-1].content, "bold"))
        for selector in ("flip", "random"):
            chosen = _best(pool.candidates, selector)
            right = chosen.scores["oracle"].value > 0
            verdict = Text(" right ", "green") if right else Text(" wrong ", "red")
            line = _shortened(chosen.text.replace("\n", " | "), 100)
            console.print(f"  {selector:8}", verdict, Text(line), sep="")


def _best(candidates: list[Candidate], name: str) -> Candidate:
    return min(candidates, key=lambda c: _rank(c.scores[name], c.index))


def _show_curves(curves: list[Any], prompts: int, n: int) -> None:
    table = Table(
        title=f"Right answers chosen from {n} candidates, {prompts} held-out instructions",
        title_justify="left",
    )
    table.add_column("selector", no_wrap=True)
    for heading in ("accuracy, 95 %", "over one candidate", "ties", "failed"):
        table.add_column(heading, justify="right", no_wrap=True)
    for curve in curves:
        accuracy, gain = curve.accuracy, curve.gain
        table.add_row(
            curve.name,
            f"{accuracy.mean[0]:.2f} [{accuracy.low[0]:.2f}, {accuracy.high[0]:.2f}]",
            f"{gain.mean[0]:+.2f} [{gain.low[0]:+.2f}, {gain.high[0]:+.2f}]",
            f"{curve.ties[0]:.0%}",
            f"{curve.failed_scores:.1%}",
        )
    console.print(table)


def run() -> None:
    """The console script."""
    # A scheduler's request to end is an exit like any other: engines' processes end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(app())
