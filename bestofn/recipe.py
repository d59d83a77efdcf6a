"""Recipes: whole experiments as YAML, in the sections of `bestofn.config`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from bestofn.config import (
    CurveConfig,
    ReportConfig,
    RewardBenchConfig,
    SampleConfig,
    ScoreConfig,
    Section,
    checked,
)
from bestofn.errors import ConfigError

MODELS = {f"{who}engine{what}" for who in ("", "reward_") for what in ("", "_args", "_options")}
"""What names models in a recipe, beside `models`."""


class Recipe(Section):
    """A whole experiment: draw, score, estimate, show."""

    output: str
    """The folder for everything that the run writes."""
    sample: SampleConfig
    """How the pool is drawn."""
    score: ScoreConfig
    """What scores it."""
    curve: CurveConfig = CurveConfig()
    """What is estimated."""
    report: ReportConfig = ReportConfig()
    """How it is shown."""


class RewardBenchRecipe(Section):
    """The evaluation of rewards, from items to table and picture."""

    output: str
    """The folder for everything that the run writes."""
    rewardbench: RewardBenchConfig
    """Items, models and rewards."""


def load_recipe(
    path: Path, overrides: Mapping[str, Any] | None = None
) -> Recipe | RewardBenchRecipe:
    """The recipe in a YAML file; one with the key `rewardbench` is a `RewardBenchRecipe`.

    Args:
        path: The file.
        overrides: Values by field name that replace the file's, in whichever section has them.
            Another `engine` takes the place of every model of the recipe, another
            `reward_engine` that of every model that scores.

    Raises:
        ConfigError: the file cannot be read, or a key or value in it is wrong; the message names
            the file and the key, and for an unknown key the nearest known one.
    """
    content, given = read_mapping(path), overrides or {}
    kind = RewardBenchRecipe if "rewardbench" in content else Recipe
    replaced = {"engine": ("sample", "score", "rewardbench"), "reward_engine": ("score",)}
    for section in {name for key in replaced.keys() & given for name in replaced[key]} & {*content}:
        content[section] = _without_models(content[section])
    home = {
        name: section
        for section, field in kind.model_fields.items()
        for name in getattr(field.annotation, "model_fields", ())
    }
    for name, value in given.items():
        target = content.setdefault(home[name], {}) if name in home else content
        if isinstance(target, dict):
            target[name] = value
    where = f"the recipe {path}"
    if kind is RewardBenchRecipe:
        return checked(RewardBenchRecipe, content, where)
    return checked(Recipe, content, where)


def _without_models(value: Any) -> Any:
    """A part of a recipe that names no model."""
    if isinstance(value, list):
        return [_without_models(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = value.keys() - MODELS - {"models"}
    return {name: _without_models(item) for name, item in value.items() if name in kept}


def read_mapping(path: Path) -> dict[str, Any]:
    """What a recipe's YAML file holds.

    Raises:
        ConfigError: the file cannot be read, or is no mapping in YAML.
    """
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"the recipe {path} cannot be read: {reason}") from None
    except yaml.YAMLError as error:
        said = " ".join(str(error).split())
        raise ConfigError(f"the recipe {path} is not YAML: {said}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"the recipe {path} must be a mapping, not {type(content).__name__}")
    return content
