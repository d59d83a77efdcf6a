"""How the scores in a pool file were made, kept in a file beside it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bestofn.config import EngineConfig, RewardConfig
from bestofn.errors import ConfigError
from bestofn.journal import write_atomically

Made = dict[str, dict[str, Any]]
"""By the name of the scores: reward, options, model and verifier."""


def made_by(reward: RewardConfig, model: EngineConfig | None, verifier: str | None) -> Made:
    """What has to be the same for scores to be the same."""
    how = {
        "reward": reward.reward,
        "options": reward.options,
        "model": None if model is None else model.model_dump(mode="json"),
        "verifier": verifier if reward.reward == "gold" else None,
    }
    return {reward.label: json.loads(json.dumps(how))}


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
    write_atomically(_place(path), json.dumps(made, indent=1, ensure_ascii=False) + "\n")


def check_made(path: Path, known: Made, wanted: Made) -> None:
    """Refuses scores under a name that stands for others already.

    Raises:
        ConfigError: one was made otherwise; the message says what differs.
    """
    for name, how in wanted.items():
        before = known.get(name, how)
        changes = [
            f"{part} was {json.dumps(before.get(part))} and is {json.dumps(value)}"
            for part, value in how.items()
            if before.get(part) != value
        ]
        if changes:
            raise ConfigError(
                f"the scores {name!r} in {path} were made otherwise ({', '.join(changes)}); give "
                "the new ones another name or another file, or replace the old ones with "
                "`bestofn score --again`"
            )


def reward_of(name: str, how: Mapping[str, Any]) -> RewardConfig:
    """The reward that made these scores."""
    model = how["model"] or {}
    return RewardConfig(reward=how["reward"], name=name, options=how["options"], **model)


def _place(path: Path) -> Path:
    return path.with_name(path.name + ".scores.json")
