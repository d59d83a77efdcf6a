"""What rewards share, `load_reward`, and what can be said of a reward by its name alone."""

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, get_args

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

    def identity(self) -> dict[str, Any]:
        """What scores depend on; see `bestofn.identity`."""
        return {"kind": type(self).__name__, "name": self.name}


class Pointwise(Reward):
    """A reward that scores responses one by one; an empty one fails."""

    pointwise = True

    async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score]:
        return await concurrency.gather(*(self._score(prompt, c) for c in candidates))

    async def _score(self, prompt: Prompt, candidate: Candidate) -> Score:
        if not candidate.text.strip():
            return Score(reason=EMPTY)
        return await self.score_one(prompt, candidate)

    async def score_one(self, prompt: Prompt, candidate: Candidate) -> Score:
        """The score of a response that is not empty."""
        raise NotImplementedError


def check_choice(name: str, value: object, known: Any) -> None:
    """Refuses a value that is none of those of a `Literal`."""
    if value not in get_args(known):
        *others, last = map(repr, get_args(known))
        raise ConfigError(f"{name} must be {', '.join(others)} or {last}, not {value!r}")


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
        reward: "flip", "flip-likelihood", a judge ("pointwise", "pairwise", "listwise"), "scalar",
            "gold", a baseline such as "longest", or "package.module:Name" for a class or object
            of your own with `name`, `pointwise` and `score`.
        engine: The model that scores, for a class whose first argument is `engine`.
        verifier: See `load_verifier`, for a class whose first argument is `verifier`.
        name: Names the scores, by default as the reward is called.
        options: Arguments of the reward's class.

    Raises:
        ConfigError: there is no such reward, or it does not take these arguments.
    """
    kind, _ = find("reward", reward)
    given: list[Any] = []
    if takes(reward, "engine"):
        given = [engine]
    elif takes(reward, "verifier"):
        if verifier is None:
            raise ConfigError(f"the reward {reward!r} needs a verifier, such as 'math' or 'tiny'")
        given = [load_verifier(verifier)]
    create = make if is_own("reward", reward) else construct
    loaded: RewardModel = create(f"the reward {reward!r}", kind, given, options)
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

    Raises:
        ConfigError: what `load_reward` raises.
    """
    kind, _ = find("reward", reward)
    if described := getattr(kind, "described", None):
        named = {"name": name or default_name(reward)}
        return dict(construct(f"the reward {reward!r}", described, [], options | named))
    auto = options.get("template", "auto") == "auto"
    unknown = auto and engine is not None and engine.default_template == UNKNOWN
    stand_in: Any = Described("tiny") if unknown else engine
    found = identity_of(
        load_reward(reward, engine=stand_in, verifier=verifier, name=name, **options)
    )
    found |= {"template": UNKNOWN} if unknown and "template" in found else {}
    found |= {"verifier": verifier} if "verifier" in found else {}
    found.pop("engine", None)
    return found


def needs_engine(reward: str) -> bool:
    """Whether a model scores.

    Raises:
        ConfigError: there is no such reward.
    """
    return takes(reward, "engine")


def takes(reward: str, argument: str) -> bool:
    """Whether the reward's class has an argument of that name.

    Raises:
        ConfigError: there is no such reward.
    """
    return argument in _parameters(reward)


def is_pointwise(reward: str) -> bool:
    """Whether it says of each candidate what it would say of it alone.

    Raises:
        ConfigError: there is no such reward.
    """
    kind, _ = find("reward", reward)
    if not isinstance(pointwise := getattr(kind, "pointwise", None), bool):
        raise ConfigError(f"{reward!r} is no reward: it needs `pointwise`, true or false")
    return pointwise


def default_name(reward: str) -> str:
    """What the scores of the reward are called where no other name is given.

    Raises:
        ConfigError: there is no such reward.
    """
    if not is_own("reward", reward):
        return reward
    own = getattr(find("reward", reward)[0], "name", None)
    return own if isinstance(own, str) else reward.rpartition(":")[2]


def _parameters(reward: str) -> Mapping[str, inspect.Parameter]:
    kind, _ = find("reward", reward)
    return inspect.signature(kind).parameters if isinstance(kind, type) else {}


def share(options: Mapping[str, Any], rewards: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Which of some options each reward gets.

    Args:
        options: By NAME, for each reward that takes it, or by LABEL.NAME, for one, which wins.
        rewards: The rewards by their labels.

    Returns:
        The options of each label.

    Raises:
        ConfigError: there is no such reward, or none takes one of the options.
    """
    shares: dict[str, dict[str, Any]] = {label: {} for label in rewards}
    for key in sorted(options, key=lambda key: "." in key):
        wanted, _, option = key.rpartition(".")
        meant = {label: reward for label, reward in rewards.items() if wanted in ("", label)}
        if not meant:
            raise ConfigError(_no_reward(wanted, option, rewards))
        takers = [label for label, reward in meant.items() if takes(reward, option)]
        takers = takers or [label for label, reward in meant.items() if _takes_any(reward)]
        if not takers:
            raise ConfigError(_no_option(option, meant))
        for label in takers:
            shares[label][option] = options[key]
    return shares


def _takes_any(reward: str) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in _parameters(reward).values())


def _no_reward(wanted: str, option: str, labels: Mapping[str, str]) -> str:
    if not labels:
        return f"{option!r} is an option of a reward; name the reward as well"
    return f"no reward is called {wanted!r}, as in {wanted}.{option}; there are {', '.join(labels)}"


def _no_option(option: str, rewards: Mapping[str, str]) -> str:
    known = dict.fromkeys(
        name
        for reward in rewards.values()
        for name, parameter in _parameters(reward).items()
        if parameter.kind is parameter.KEYWORD_ONLY and name != "name"
    )
    near = difflib.get_close_matches(option, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known) or 'none'}"
    return f"no reward ({', '.join(rewards)}) has an option {option!r}; {hint}"
