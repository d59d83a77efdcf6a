"""The whole evaluation: from items to scored pools, tables, a picture and findings."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from bestofn.analysis.results import write_recipe, write_results
from bestofn.config import (
    NO_ENGINE,
    ModelConfig,
    OptionalEngineConfig,
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
from bestofn.resuming import input_of, same_spelled
from bestofn.rewards.base import needs_engine, takes
from bestofn.store import pool
from bestofn.store.journal import check_output, open_journal


def run_rewardbench(
    recipe: RewardBenchRecipe, engines: Engines, *, progress: bool = False
) -> dict[str, Any]:
    """Runs an evaluation, or what is missing of it, and returns what rewardbench.json holds.

    The output folder gets a pool file for each seed, items-SEED.jsonl, rewardbench.json and .csv,
    a picture, and the recipe as it was run.
    """
    config, folder = recipe.rewardbench, Path(recipe.output)
    check_output(folder, folder=True)
    # What is estimated: each reward with each model, or once if no model scores.
    lines = {_line(r, m).label: _line(r, m) for m in config.scorers for r in config.rewards}
    items = read_items(config)
    paths = [folder / f"items-{seed}.jsonl" for seed in range(config.seeds)]
    for seed, path in enumerate(paths):
        _write_items(path, items, seed, config)
    # A model stays loaded for all seeds.
    for model in config.scorers:
        for seed, path in enumerate(paths):
            score = ScoreConfig(rewards=[_for_pool(r, model, seed) for r in config.rewards])
            score_file(path, score, model.named(), path, engines, progress=progress)
    write_recipe(folder, recipe)
    evaluation = Evaluation(
        [list(pool.read(path)) for path in paths],
        list(lines.values()),
        over_models=bool(config.models),
        resamples=config.resamples,
        level=config.level,
        seed=config.bootstrap_seed,
    )
    result = results.as_dict(evaluation, title=config.title, data=config.data)
    write_results(folder, results.NAME, result, results.table(result))
    results.draw(result, folder)
    return result


def _line(reward: RewardConfig, model: OptionalEngineConfig) -> Line:
    """A reward with a model, which is named if it is one of several and scores."""
    scores = needs_engine(reward.reward)
    if scores and (reward.engine or model.engine) is None:
        raise ConfigError(NO_ENGINE)
    name = model.name if scores and isinstance(model, ModelConfig) else None
    label = reward.label if name is None else f"{reward.label} of {name}"
    return Line(label, reward.label, reward.reward, name)


def _for_pool(reward: RewardConfig, model: OptionalEngineConfig, seed: int) -> RewardConfig:
    """The reward as it scores one pool, with another seed for each if it takes one."""
    options = reward.options
    if takes(reward.reward, "seed"):
        first = options.get("seed", 0)
        if not isinstance(first, int):
            raise ConfigError(f"the seed of the reward {reward.label!r} is a number, not {first!r}")
        options = {**options, "seed": first + seed}
    return reward.model_copy(update={"name": _line(reward, model).label, "options": options})


def _write_items(path: Path, items: Sequence[Item], seed: int, config: RewardBenchConfig) -> None:
    """Writes the pool file of one seed, or what is missing of it; scores that are there stay."""
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


def _differences(begun: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Where the items are the same, it does not count what they were read from."""
    same = all(begun.get(name) == wanted.get(name) for name in ("items", "seed"))
    return [] if same else same_spelled(begun, wanted)
