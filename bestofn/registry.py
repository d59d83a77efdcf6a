"""Every name that a user may type, and what it loads: a built-in one, or "package.module:Name"."""

import difflib
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeVar, get_origin, get_type_hints

from bestofn.errors import ConfigError
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
        "mutual": "bestofn.rewards.mutual:MutualInformation",
        "pointwise": "bestofn.rewards.judges:PointwiseJudge",
        "pairwise": "bestofn.rewards.judges:PairwiseJudge",
        "listwise": "bestofn.rewards.judges:ListwiseJudge",
        "scalar": "bestofn.rewards.scalar:ScalarReward",
        "gold": "bestofn.rewards.gold:Gold",
        "random": "bestofn.rewards.baselines:RandomChoice",
        "first": "bestofn.rewards.baselines:First",
        "longest": "bestofn.rewards.baselines:Longest",
        "shortest": "bestofn.rewards.baselines:Shortest",
        "overlap": "bestofn.rewards.baselines:Overlap",
        "mean-logprob": "bestofn.rewards.baselines:MeanLogprob",
        "majority": "bestofn.rewards.baselines:Majority",
        "self-certainty": "bestofn.rewards.confidence:SelfCertainty",
        "confidence": "bestofn.rewards.confidence:Confidence",
        "lowest-confidence": "bestofn.rewards.confidence:LowestConfidence",
        "tail-confidence": "bestofn.rewards.confidence:TailConfidence",
        "inverse-perplexity": "bestofn.rewards.confidence:InversePerplexity",
    },
    "selector": {
        "best": "bestofn.selectors:Best",
        "soft": "bestofn.selectors:SoftBest",
        "pessimistic": "bestofn.selectors:Pessimistic",
        "majority": "bestofn.selectors:Vote",
        "weighted": "bestofn.selectors:WeightedVote",
        "mob": "bestofn.selectors:MajorityOfTheBests",
        "mbr": "bestofn.selectors:MinimumBayesRisk",
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
        "vllm": "bestofn.engines.vllm.classifier:VLLMClassifier",
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
    """The class, function or object that a spec names, and the argument of a built-in name.

    Raises:
        ConfigError: there is no such name, or it is typed in another form.
    """
    if is_own(kind, spec):
        return _imported(kind, spec), []
    name, colon, argument = spec.partition(":")
    form = _forms(kind).get(name)
    if form is None:
        forms = ", ".join(map(repr, BUILT_IN[kind]))
        hint = _near(kind, name) or f"; use {forms} or 'package.module:Name'"
        raise ConfigError(f"no {kind} {without_secrets(spec)!r}{hint}")
    takes, needs = ":" in form, ":" in form and "[" not in form
    if (colon and not (takes and argument)) or (needs and not colon):
        raise ConfigError(f"no {kind} {without_secrets(spec)!r}; its form is {form!r}")
    return _at(BUILT_IN[kind][form]), [argument] if colon else []


def make(what: str, found: Any, arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """What a user's own spec names: one of a class, made by `construct`, or the object itself."""
    if isinstance(found, type):
        return construct(what, found, arguments, options)
    if options:
        raise ConfigError(f"{what} is no class, so it takes no options ({', '.join(options)})")
    return found


def construct(
    what: str, kind: Callable[..., T], arguments: Sequence[Any], options: Mapping[str, Any]
) -> T:
    """`kind(*arguments, **options)`; an error inside it stays what it is.

    The options are the user's. `what` is the object's name in messages.

    Raises:
        ConfigError: there is no such argument, one is missing, or a plain value is of a type
            that it cannot have.
    """
    try:
        bound = inspect.signature(kind).bind(*arguments, **options)
    except TypeError as error:
        raise ConfigError(f"{what} does not take these arguments: {error}") from None
    hints = get_type_hints(getattr(kind, "__init__"))  # noqa: B009
    for name in options:
        # Which of a few words it is, the class says better itself.
        checked = name in bound.arguments and get_origin(hints.get(name, Literal[0])) is not Literal
        if checked and isinstance(options[name], PLAIN):
            _check_type(what, name, options[name], hints[name])
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
    except Exception as error:  # a user's module may fail in any way while it is imported
        why = f"the module {module!r} cannot be imported: {type(error).__name__}: {error}"
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            why = f"no {kind} {spec!r}: there is no module {module!r}{_near(kind, module)}"
        elif isinstance(error, AttributeError) and module in sys.modules:
            why = f"no {kind} {spec!r}: the module {module!r} has no {path!r}"
        raise ConfigError(why) from error


def _near(kind: str, name: str) -> str:
    """A hint at the built-in name that is spelt most like this one, if any is."""
    near = difflib.get_close_matches(name, _forms(kind), 1)
    return f"; did you mean {_forms(kind)[near[0]]!r}?" if near else ""
