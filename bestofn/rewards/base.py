"""What rewards share, `load_reward`, and what can be said of a reward by its name alone."""

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, get_args

from bestofn import concurrency
from bestofn.engines.base import Engine
from bestofn.engines.identity import Described
from bestofn.errors import ConfigError
from bestofn.identity import UNKNOWN, identity_of
from bestofn.registry import construct, find, is_own, make
from bestofn.rewards.weighted import Composable
from bestofn.scoring import RewardModel
from bestofn.types import Candidate, Prompt, Score
from bestofn.verifiers import load_verifier

EMPTY = "empty response"


class Reward(Composable):
    """A reward that a name and some settings describe."""

    name: str
    settings: ClassVar[tuple[str, ...]] = ()
    """Attributes that scores depend on, besides what `identity` adds."""

    def identity(self) -> dict[str, Any]:
        """What scores depend on; see `bestofn.identity`."""
        found = {name: getattr(self, name) for name in self.settings}
        return {"kind": type(self).__name__, "name": self.name} | found

    async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score]:
        return await concurrency.gather(*(self.score_one(prompt, c) for c in candidates))

    async def score_one(self, prompt: Prompt, candidate: Candidate) -> Score:
        """The score of one candidate."""
        raise NotImplementedError


class Pointwise(Reward):
    """A reward that scores responses one by one; an empty one fails."""

    pointwise = True

    async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score]:
        async def one(candidate: Candidate) -> Score:
            empty = not candidate.text.strip()
            return Score(reason=EMPTY) if empty else await self.score_one(prompt, candidate)

        return await concurrency.gather(*map(one, candidates))


def check_choice(name: str, value: object, known: Any) -> None:
    """Refuses a value that is none of those of a `Literal`."""
    if value not in get_args(known):
        raise ConfigError(
            f"{name} must be {' or '.join(map(repr, get_args(known)))}, not {value!r}"
        )


def check_samples(samples: int, temperature: float) -> None:
    """Refuses several samples that would all be the same."""
    if samples < 1:
        raise ConfigError(f"samples must be at least 1, not {samples}")
    if samples > 1 and temperature == 0:
        raise ConfigError("several samples need a temperature above 0")


def load_reward(
    reward: str,
    *,
    engine: Engine | None = None,
    verifier: str | None = None,
    name: str | None = None,
    **options: Any,
) -> RewardModel:
    """The reward of that name.

    Args:
        reward: A built-in name, such as "flip", or "package.module:Name" for a class or object of
            your own with `name`, `pointwise` and `score`.
        engine: The model that scores, for a class whose first argument is `engine`.
        verifier: See `load_verifier`, for a class whose first argument is `verifier`.
        name: Names the scores, by default as the reward is called.
        options: Arguments of the reward's class.

    Raises:
        ConfigError: there is no such reward, or it does not take these arguments.
    """
    given: list[Any] = []
    if takes(reward, "engine"):
        given = [engine]
    elif takes(reward, "verifier"):
        if verifier is None:
            raise ConfigError(f"the reward {reward!r} needs a verifier, such as 'math' or 'tiny'")
        given = [load_verifier(verifier)]
    create = make if is_own("reward", reward) else construct
    loaded: RewardModel = create(f"the reward {reward!r}", _kind(reward), given, options)
    name = name or default_name(reward)
    if name != getattr(loaded, "name", None):
        loaded.name = name
    if not isinstance(loaded, RewardModel):
        raise ConfigError(f"{reward!r} is no reward: it needs `name`, `pointwise` and `score`")
    return loaded


def reward_identity(
    reward: str,
    *,
    engine: Engine | Described | None,
    verifier: str | None = None,
    name: str | None = None,
    **options: Any,
) -> dict[str, Any]:
    """The identity of the reward that `load_reward` would load, for which no model is needed.

    It is without the engine, which the settings of a run have beside it. A class that loads a model
    of its own says its identity in a class method `described`, which takes the same options.
    """
    if described := getattr(_kind(reward), "described", None):
        named = {"name": name or default_name(reward)}
        return dict(construct(f"the reward {reward!r}", described, [], options | named))
    auto = options.get("template", "auto") == "auto"
    unknown = auto and engine is not None and engine.default_template == UNKNOWN
    stand_in: Any = Described("tiny") if unknown else engine
    loaded = load_reward(reward, engine=stand_in, verifier=verifier, name=name, **options)
    found = {key: value for key, value in identity_of(loaded).items() if key != "engine"}
    if unknown and "template" in found:
        found["template"] = UNKNOWN
        if "max_tokens" in found and options.get("max_tokens") is None:
            found["max_tokens"] = UNKNOWN  # the template says how long an inference may be
    return found | ({"verifier": verifier} if "verifier" in found else {})


def _kind(reward: str) -> Any:
    return find("reward", reward)[0]


def _arguments(reward: str) -> Mapping[str, inspect.Parameter]:
    kind = _kind(reward)
    return inspect.signature(kind).parameters if isinstance(kind, type) else {}


def takes(reward: str, argument: str) -> bool:
    """Whether the reward's class has an argument of that name."""
    return argument in _arguments(reward)


def needs_engine(reward: str) -> bool:
    """Whether a model scores."""
    return takes(reward, "engine")


def reads_confidence(reward: str) -> bool:
    """Whether candidates have to be drawn with `SamplingParams(confidence=...)` for it."""
    return bool(getattr(_kind(reward), "reads_confidence", False))


def is_pointwise(reward: str) -> bool:
    """Whether it says of each candidate what it would say of it alone."""
    if not isinstance(pointwise := getattr(_kind(reward), "pointwise", None), bool):
        raise ConfigError(f"{reward!r} is no reward: it needs `pointwise`, true or false")
    return pointwise


def default_name(reward: str) -> str:
    """What the scores of the reward are called where no other name is given."""
    if not is_own("reward", reward):
        return reward
    own = getattr(_kind(reward), "name", None)
    return own if isinstance(own, str) else reward.rpartition(":")[2]


def share(options: Mapping[str, Any], rewards: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The options of each of some rewards, which are named by their labels.

    An option is called NAME, for each reward that takes it, or LABEL.NAME, for one, which wins.
    """
    shares: dict[str, dict[str, Any]] = {label: {} for label in rewards}
    for key in sorted(options, key=lambda key: "." in key):
        wanted, _, option = key.rpartition(".")
        known = {
            label: _arguments(reward) for label, reward in rewards.items() if wanted in ("", label)
        }
        if not rewards:
            raise ConfigError(f"{key!r} is an option of a reward; name the reward as well")
        if not known:
            raise ConfigError(f"no reward is called {wanted!r}, as {key!r} says")
        takers = [label for label, arguments in known.items() if option in arguments] or [
            label
            for label, arguments in known.items()
            if any(argument.kind is argument.VAR_KEYWORD for argument in arguments.values())
        ]
        if not takers:
            pairs = (pair for arguments in known.values() for pair in arguments.items())
            names = dict.fromkeys(n for n, a in pairs if a.kind is a.KEYWORD_ONLY and n != "name")
            near = difflib.get_close_matches(option, names, 1)
            known_names = ", ".join(names) or "none"
            hint = f"did you mean {near[0]!r}?" if near else f"known are {known_names}"
            raise ConfigError(f"no reward ({', '.join(rewards)}) has an option {key!r}; {hint}")
        for label in takers:
            shares[label][option] = options[key]
    return shares
