"""How the scores in a pool file were made, kept in a file beside it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bestofn.config import EngineConfig, RewardConfig
from bestofn.engines.base import Engine
from bestofn.errors import ConfigError
from bestofn.identity import UNKNOWN, by_identity
from bestofn.redaction import without_secrets
from bestofn.resuming import engine_files, with_one_spelling
from bestofn.rewards.base import reward_identity
from bestofn.store.journal import beside, write_atomically

Made = dict[str, dict[str, Any]]
"""By the name of the scores: reward, options, model, verifier and what these do not show."""


def made_by(
    reward: RewardConfig,
    model: EngineConfig | None,
    verifier: str | None,
    loaded: Engine | None = None,
) -> Made:
    """What has to be the same for scores to be the same, more exactly once the model is loaded."""
    engine = loaded or (model.described() if model else None)
    verifier = verifier if reward.reward == "gold" else None
    how = {
        "reward": reward.reward,
        "options": reward.options,
        "model": None if model is None else model.model_dump(mode="json"),
        "verifier": verifier,
        "identity": {
            **({} if model is None else engine_files(model, loaded)),
            "reward": reward_identity(
                reward.reward,
                engine=engine,
                verifier=verifier,
                name=reward.label,
                **reward.options,
            ),
        },
    }
    return {reward.label: json.loads(json.dumps(without_secrets(how)))}


def read_made(path: Path) -> Made:
    """How the scores in a pool file were made, as far as it is known."""
    try:
        made = json.loads(_place(path).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return made if isinstance(made, dict) else {}


def write_made(path: Path, made: Made) -> None:
    """Keeps how the scores in a pool file were made.

    Raises:
        BestOfNError: it cannot be written.
    """
    kept = {name: without_secrets(how) for name, how in made.items()}
    write_atomically(_place(path), json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


def check_made(path: Path, known: Made, wanted: Made) -> None:
    """Refuses scores under a name that stands for others already.

    Raises:
        ConfigError: one was made otherwise; the message says what differs.
    """
    for name, how in wanted.items():
        if changes := differing(known.get(name, how), how):
            raise ConfigError(
                f"the scores {name!r} in {path} were made otherwise ({', '.join(changes)}); give "
                "the new ones another name or another file, or replace the old ones with "
                "`bestofn score --again`"
            )


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two ways in which scores are made, if anything that counts."""
    rewards = [how.get("identity", {}).get("reward", {}) for how in (before, now)]
    whole = all(rewards) and all(UNKNOWN not in reward.values() for reward in rewards)
    left_out = {"options", "verifier"} if whole else set()
    old, new = (
        {name: value for name, value in how.items() if name not in left_out}
        for how in map(with_one_spelling, (without_secrets(before), now))
    )
    return by_identity(old, new)


def reward_of(name: str, how: Mapping[str, Any]) -> RewardConfig:
    """The reward that made these scores."""
    model = how["model"] or {}
    return RewardConfig(reward=how["reward"], name=name, options=how["options"], **model)


def _place(path: Path) -> Path:
    return beside(path, ".scores.json")
