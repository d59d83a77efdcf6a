"""Every name that a user may type, what it loads, and how that is made.

A built-in name is looked up in `BUILT_IN`; "package.module:Name" is a class or object of the user's
own, on the import path or in the working directory, and works wherever a built-in name does.
"""

import difflib
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, get_origin, get_type_hints

from bestofn.errors import BestOfNError, ConfigError
from bestofn.redaction import is_secret, without_secrets

T = TypeVar("T")

# By kind: the form in which a name is typed, and what it loads, which is imported at use. What
# follows a colon is the name's argument; brackets are around what may be left out.
BUILT_IN = {
    "engine": {
        "tiny": "bestofn.engines.hf:TransformersEngine",
        "vllm:MODEL": "bestofn.engines.vllm:VLLMEngine",
        "hf:MODEL": "bestofn.engines.hf:TransformersEngine",
        "openai:URL#MODEL": "bestofn.engines.openai:OpenAIEngine",
    },
    "reward": {
        "flip": "bestofn.rewards.flip:FLIPReward",
        "flip-likelihood": "bestofn.rewards.flip:FLIPLikelihood",
        "pointwise": "bestofn.rewards.judges:PointwiseJudge",
        "pairwise": "bestofn.rewards.judges:PairwiseJudge",
        "listwise": "bestofn.rewards.judges:ListwiseJudge",
        "scalar": "bestofn.rewards.scalar:ScalarReward",
        "gold": "bestofn.rewards.gold:Gold",
        "random": "bestofn.rewards.baselines:RandomChoice",
        "first": "bestofn.rewards.baselines:First",
        "longest": "bestofn.rewards.baselines:Longest",
        "shortest": "bestofn.rewards.baselines:Shortest",
        "mean-logprob": "bestofn.rewards.baselines:MeanLogprob",
        "majority": "bestofn.rewards.baselines:Majority",
    },
    "verifier": {
        "exact:COLUMN": "bestofn.verifiers.base:Exact",
        "iexact:COLUMN": "bestofn.verifiers.base:ExactIgnoringCase",
        "regex:COLUMN": "bestofn.verifiers.base:Regex",
        "math[:COLUMN]": "bestofn.verifiers.math:Math",
        "ifeval[:loose]": "bestofn.verifiers.ifeval:IFEval",
        "tiny": "bestofn.verifiers.base:Tiny",
    },
    "similarity": {
        "f1": "bestofn.rewards.similarity:f1",
        "rouge_l": "bestofn.rewards.similarity:rouge_l",
    },
    "backend": {
        "transformers": "bestofn.engines.hf.engine:TransformersClassifier",
        "vllm": "bestofn.engines.vllm.engine:VLLMClassifier",
    },
}
OWN = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
PLAIN = (str, int, float, bool, type(None))


def is_built_in(kind: str, spec: str) -> bool:
    """Whether a spec begins with a built-in name."""
    return spec.partition(":")[0] in _forms(kind)


def is_own(kind: str, spec: str) -> bool:
    """Whether a spec is an import path, "package.module:Name", and no built-in name."""
    return bool(OWN.fullmatch(spec)) and not is_built_in(kind, spec)


def find(kind: str, spec: str) -> tuple[Any, list[str]]:
    """What a spec names.

    Args:
        kind: "engine", "reward", "verifier", "similarity" or "backend".
        spec: A built-in name, with its argument if it takes one, or an import path.

    Returns:
        The class, function or object, and the argument of a built-in name, if there is one.

    Raises:
        ConfigError: there is no such name, or it is typed in another form.
    """
    if is_own(kind, spec):
        return _imported(kind, spec), []
    name, colon, argument = spec.partition(":")
    form = _forms(kind).get(name)
    if form is None:
        _refuse(kind, spec)
    takes, needs = ":" in form, ":" in form and "[" not in form
    if (colon and not (takes and argument)) or (needs and not colon):
        raise ConfigError(f"no {kind} {without_secrets(spec)!r}; its form is {form!r}")
    return _at(BUILT_IN[kind][form]), [argument] if colon else []


def make(what: str, found: Any, arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """The object that a user named: one of a class of their own, or it itself.

    Args:
        what: The object's name in messages.
        found: What `find` returned for an import path.
        arguments: By position, for a class; the caller's own.
        options: By name; the user's.

    Raises:
        ConfigError: it takes no such options, or cannot be made.
    """
    if not isinstance(found, type):
        if options:
            raise ConfigError(f"{what} is no class, so it takes no options ({', '.join(options)})")
        return found
    try:
        return construct(what, found, arguments, options)
    except BestOfNError:
        raise
    except Exception as error:  # a user's class may fail in any way
        raise ConfigError(f"{what} cannot be made: {type(error).__name__}: {error}") from error


def construct(
    what: str, kind: Callable[..., T], arguments: Sequence[Any], options: Mapping[str, Any]
) -> T:
    """`kind(*arguments, **options)`; an error inside it stays what it is.

    Args:
        what: The object's name in messages.
        kind: Its class.
        arguments: By position; the caller's own.
        options: By name; the user's.

    Raises:
        ConfigError: there is no such argument, one is missing, or a plain value is of a type
            that it cannot have.
    """
    try:
        bound = inspect.signature(kind).bind(*arguments, **options)
    except TypeError as error:
        raise ConfigError(f"{what} does not take these arguments: {error}") from None
    hints = get_type_hints(getattr(kind, "__init__"))  # noqa: B009
    for name, value in bound.arguments.items():
        # Which of a few words it is, the class says better itself.
        checked = name in options and name in hints and get_origin(hints[name]) is not Literal
        if checked and isinstance(value, PLAIN):
            _check_type(what, name, value, hints[name])
    return kind(*arguments, **options)


def _check_type(what: str, name: str, value: Any, hint: Any) -> None:
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
        adapter.validate_python(value, strict=True)
    except ValidationError:
        wanted = inspect.formatannotation(hint)
        shown = "" if is_secret(name) else f", not {value!r}"
        raise ConfigError(f"{what}: {name} must be {wanted}{shown}") from None


def _forms(kind: str) -> dict[str, str]:
    """The built-in names with their forms."""
    return {re.split(r"\[?:", form)[0]: form for form in BUILT_IN[kind]}


def _at(place: str) -> Any:
    module, _, path = place.partition(":")
    return reduce(getattr, path.split("."), import_module(module))


def _imported(kind: str, spec: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    module, _, path = spec.partition(":")
    try:
        return _at(spec)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise _broken(module, error) from error
        near = _near(kind, module)
        hint = f"; did you mean {near!r}?" if near else ""
        raise ConfigError(f"no {kind} {spec!r}: there is no module {module!r}{hint}") from None
    except AttributeError as error:
        if module not in sys.modules:
            raise _broken(module, error) from error
        raise ConfigError(f"no {kind} {spec!r}: the module {module!r} has no {path!r}") from None
    except Exception as error:  # a user's module may fail in any way while it is imported
        raise _broken(module, error) from error


def _broken(module: str, error: Exception) -> ConfigError:
    return ConfigError(f"the module {module!r} cannot be imported: {type(error).__name__}: {error}")


def _near(kind: str, name: str) -> str | None:
    """The form of the built-in name that is spelt most like this one."""
    near = difflib.get_close_matches(name, _forms(kind), 1)
    return _forms(kind)[near[0]] if near else None


def _refuse(kind: str, spec: str) -> NoReturn:
    near = _near(kind, spec.partition(":")[0])
    forms = ", ".join(map(repr, BUILT_IN[kind]))
    hint = f"did you mean {near!r}?" if near else f"use {forms} or 'package.module:Name'"
    raise ConfigError(f"no {kind} {without_secrets(spec)!r}; {hint}")
