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


AnyRecipe = Recipe | RewardBenchRecipe


def load_recipe(path: Path, overrides: Mapping[str, Any] | None = None) -> AnyRecipe:
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
    content = read_mapping(path)
    kind = RewardBenchRecipe if "rewardbench" in content else Recipe
    fields, where = _overridden(kind, content, overrides or {}), f"the recipe {path}"
    if kind is RewardBenchRecipe:
        return checked(RewardBenchRecipe, fields, where)
    return checked(Recipe, fields, where)


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
        raise ConfigError(
            f"the recipe {path} is not YAML: {' '.join(str(error).split())}"
        ) from None
    if content is None:
        raise ConfigError(f"the recipe {path} is empty")
    if not isinstance(content, dict):
        raise ConfigError(f"the recipe {path} must be a mapping, not {type(content).__name__}")
    return content


def _overridden(
    kind: type[AnyRecipe], content: dict[str, Any], overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """The recipe with other values; a model that is replaced takes its arguments with it."""
    if "engine" in overrides:
        _drop_model(content.get("sample"))
    if overrides.keys() & {"engine", "reward_engine"}:
        for scoring in (content.get("score"), content.get("rewardbench")):
            rewards = scoring.get("rewards") if isinstance(scoring, dict) else None
            for holder in (scoring, *(rewards if isinstance(rewards, list) else [])):
                _drop_model(holder)
    for name, value in overrides.items():
        section = _section_of(kind, name)
        target = content if section is None else content.setdefault(section, {})
        if isinstance(target, dict):
            target[name] = value
    return content


def _drop_model(holder: object) -> None:
    if isinstance(holder, dict):
        for prefix in ("", "reward_"):
            for name in ("engine", "engine_args", "engine_options"):
                holder.pop(prefix + name, None)
        holder.pop("models", None)


def _section_of(kind: type[AnyRecipe], name: str) -> str | None:
    for section, field in kind.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section) and name in inner.model_fields:
            return section
    return None
