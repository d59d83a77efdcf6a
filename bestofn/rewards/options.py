"""Options of several rewards, given at once: samples=4 for all, flip.samples=4 for one."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from bestofn.errors import ConfigError
from bestofn.registry import parameters_of, takes


def share(options: Mapping[str, Any], rewards: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Which options each reward gets.

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
    return any(p.kind is p.VAR_KEYWORD for p in parameters_of(reward).values())


def _no_reward(wanted: str, option: str, labels: Iterable[str]) -> str:
    known = ", ".join(labels)
    if not known:
        return f"{option!r} is an option of a reward; name the reward as well"
    return f"no reward is called {wanted!r}, as in {wanted}.{option}; there are {known}"


def _no_option(option: str, rewards: Mapping[str, str]) -> str:
    known = dict.fromkeys(
        name
        for reward in rewards.values()
        for name, parameter in parameters_of(reward).items()
        if parameter.kind is parameter.KEYWORD_ONLY and name != "name"
    )
    near = difflib.get_close_matches(option, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known) or 'none'}"
    return f"no reward ({', '.join(rewards)}) has an option {option!r}; {hint}"
