"""The whole evaluation: from items to scored pools, tables, a picture and words."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from bestofn.config import (
    NO_ENGINE,
    EngineConfig,
    ModelConfig,
    RewardBenchConfig,
    RewardConfig,
    ScoreConfig,
)
from bestofn.dataset.score import score_file
from bestofn.errors import ConfigError
from bestofn.evals.rewardbench import results
from bestofn.evals.rewardbench.accuracy import Evaluation, Line
from bestofn.evals.rewardbench.items import Item, as_pool, fingerprint, read_items
from bestofn.models import Engines
from bestofn.recipe import RewardBenchRecipe
from bestofn.redaction import without_secrets
from bestofn.resuming import input_of, same_spelled
from bestofn.rewards.base import needs_engine, takes
from bestofn.store import pool
from bestofn.store.journal import check_output, open_journal, write_atomically

RECIPE = "recipe.yaml"


def run_rewardbench(
    recipe: RewardBenchRecipe, engines: Engines, *, progress: bool = False
) -> dict[str, Any]:
    """Runs an evaluation, or what is missing of it.

    The output folder gets a pool file for each seed, items-SEED.jsonl, rewardbench.json and .csv,
    a picture, and the recipe as it was run.

    Returns:
        What rewardbench.json holds.

    Raises:
        ConfigError: an item, a reward or a setting is wrong, or the folder was begun with others.
        EngineError: a model cannot be loaded.
    """
    config, folder = recipe.rewardbench, Path(recipe.output)
    check_output(folder, folder=True)
    lines = _lines(config)
    items = read_items(config)
    paths = [folder / f"items-{seed}.jsonl" for seed in range(config.seeds)]
    for seed, path in enumerate(paths):
        _write_items(path, items, seed, config)
    # A model stays loaded for all seeds.
    for model in config.scorers:
        for seed, path in enumerate(paths):
            rewards = [_for_pool(reward, model, seed) for reward in config.rewards]
            score_file(
                path, ScoreConfig(rewards=rewards), model.named(), path, engines, progress=progress
            )
    shown = without_secrets(recipe.model_dump(mode="json"))
    text = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)
    write_atomically(folder / RECIPE, text)
    evaluation = Evaluation(
        [list(pool.read(path)) for path in paths],
        lines,
        over_models=bool(config.models),
        resamples=config.resamples,
        level=config.level,
        seed=config.bootstrap_seed,
    )
    result = results.as_dict(evaluation, title=config.title, data=config.data)
    results.write(folder, result)
    results.draw(result, folder)
    return result


def _lines(config: RewardBenchConfig) -> list[Line]:
    """What is estimated: each reward with each model, or once if no model scores.

    Raises:
        ConfigError: there is no such reward, or no model for it.
    """
    lines = dict[str, Line]()
    for model in config.scorers:
        for reward in config.rewards:
            if needs_engine(reward.reward) and (reward.engine or model.engine) is None:
                raise ConfigError(NO_ENGINE)
            name = _named_model(reward, model)
            label = _label(reward, name)
            lines[label] = Line(label, reward.label, reward.reward, name)
    return list(lines.values())


def _named_model(reward: RewardConfig, model: EngineConfig) -> str | None:
    """The name of the model that scores, if one does and it is one of several."""
    return model.name if isinstance(model, ModelConfig) and needs_engine(reward.reward) else None


def _label(reward: RewardConfig, model: str | None) -> str:
    """The name of the scores."""
    return reward.label if model is None else f"{reward.label} of {model}"


def _for_pool(reward: RewardConfig, model: EngineConfig, seed: int) -> RewardConfig:
    """The reward as it scores one pool, with another seed for each if it takes one."""
    options = reward.options
    if takes(reward.reward, "seed"):
        first = options.get("seed", 0)
        if not isinstance(first, int):
            raise ConfigError(f"the seed of the reward {reward.label!r} is a number, not {first!r}")
        options = {**options, "seed": first + seed}
    return reward.model_copy(
        update={"name": _label(reward, _named_model(reward, model)), "options": options}
    )


def _differences(begun: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Where the items are the same, it does not count what they were read from."""
    same = all(begun.get(name) == wanted.get(name) for name in ("items", "seed"))
    return [] if same else same_spelled(begun, wanted)


def _write_items(path: Path, items: Sequence[Item], seed: int, config: RewardBenchConfig) -> None:
    """Writes the pool file of one seed, or what is missing of it; scores that are there stay.

    Raises:
        ConfigError: it was begun with other items.
    """
    settings = {
        "data": input_of(config.data),
        "subsets": config.subsets,
        "limit_per_subset": config.limit_per_subset,
        "seed": seed,
        "items": fingerprint(items),
    }
    with open_journal(path, settings, "write to another folder", compare=_differences) as journal:
        for item in islice(items, journal.lines, None):
            journal.append(pool.dumps(as_pool(item, seed)))
