"""Rewards by name, as the command line and recipes call them."""

import difflib
import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from bestofn.arguments import construct
from bestofn.engines.base import Engine
from bestofn.engines.identity import Described
from bestofn.errors import ConfigError
from bestofn.identity import UNKNOWN, identity_of
from bestofn.scoring import RewardModel

# Imported at use. Which ones a model scores with, and which one asks a verifier, is told by the
# name of their first argument.
_REWARDS = {
    "flip": ("bestofn.rewards.flip", "FLIPReward"),
    "flip-likelihood": ("bestofn.rewards.flip", "FLIPLikelihood"),
    "pointwise": ("bestofn.rewards.judges", "PointwiseJudge"),
    "pairwise": ("bestofn.rewards.judges", "PairwiseJudge"),
    "listwise": ("bestofn.rewards.judges", "ListwiseJudge"),
    "scalar": ("bestofn.rewards.scalar", "ScalarReward"),
    "gold": ("bestofn.rewards.gold", "Gold"),
    "random": ("bestofn.rewards.baselines", "RandomChoice"),
    "first": ("bestofn.rewards.baselines", "First"),
    "longest": ("bestofn.rewards.baselines", "Longest"),
    "shortest": ("bestofn.rewards.baselines", "Shortest"),
    "mean-logprob": ("bestofn.rewards.baselines", "MeanLogprob"),
    "majority": ("bestofn.rewards.baselines", "Majority"),
}


def is_known(reward: str) -> bool:
    """Whether there is a reward of that name."""
    return reward in _REWARDS


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
    return argument in parameters_of(reward)


def parameters_of(reward: str) -> Mapping[str, inspect.Parameter]:
    """The arguments of the reward's class.

    Raises:
        ConfigError: there is no such reward.
    """
    return inspect.signature(_class_of(reward)).parameters


def is_pointwise(reward: str) -> bool:
    """Whether it says of each candidate what it would say of it alone.

    Raises:
        ConfigError: there is no such reward.
    """
    return bool(_class_of(reward).pointwise)


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
            "gold", or a baseline such as "longest".
        engine: The model that scores, where one does.
        verifier: What "gold" asks; see `load_verifier`.
        name: Names the scores, by default as the reward is called.
        options: Arguments of the reward's class.

    Raises:
        ConfigError: there is no such reward, or it does not take these arguments.
    """
    kind = _class_of(reward)
    first: list[Any] = []
    if needs_engine(reward):
        first = [engine]
    elif reward == "gold":
        from bestofn.verifiers.base import load_verifier

        if verifier is None:
            raise ConfigError("the reward 'gold' needs a verifier, such as 'math' or 'tiny'")
        first = [load_verifier(verifier)]
    loaded: RewardModel = construct(f"the reward {reward!r}", kind, first, options)
    if name is not None:
        loaded.name = name
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

    It is without the engine, which the settings of a run have beside it.

    Raises:
        ConfigError: what `load_reward` raises.
    """
    if reward == "gold":
        load_reward(reward, verifier=verifier, **options)  # which knows what verifiers there are
        found = {"kind": "Gold", "name": name or "gold", "verifier": verifier}
    elif reward == "scalar":
        from bestofn.rewards.scalar import described

        try:
            found = described(**options) | {"name": name or "scalar"}
        except TypeError as error:
            raise ConfigError(
                f"the reward {reward!r} does not take these options: {error}"
            ) from None
        return found
    else:
        auto = options.get("template", "auto") == "auto"
        unknown = auto and engine is not None and engine.default_template == UNKNOWN
        stand_in: Any = Described("tiny") if unknown else engine
        found = identity_of(load_reward(reward, engine=stand_in, name=name, **options))
        found |= {"template": UNKNOWN} if unknown and "template" in found else {}
    found.pop("engine", None)
    return found


def _class_of(reward: str) -> Any:
    if reward not in _REWARDS:
        near = difflib.get_close_matches(reward, _REWARDS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(_REWARDS)}"
        raise ConfigError(f"no reward {reward!r}; {hint}")
    module, name = _REWARDS[reward]
    return getattr(import_module(module), name)
