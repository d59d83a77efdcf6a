"""The whole evaluation: from rows of RewardBench 2's schema to scored pools, table and picture."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from bestofn.analysis.results import write_recipe, write_results
from bestofn.config import (
    NO_ENGINE,
    EngineConfig,
    ModelConfig,
    RewardBenchConfig,
    RewardConfig,
    ScoreConfig,
)
from bestofn.dataset.score import score_file
from bestofn.dataset.sources import Row, read_rows
from bestofn.errors import ConfigError
from bestofn.evals.rewardbench import results
from bestofn.evals.rewardbench.accuracy import GOLD, MEAN, TIES, Evaluation, Line
from bestofn.models import Engines
from bestofn.prompts import answer_text, as_prompt, as_turns, plain, random_for
from bestofn.recipe import RewardBenchRecipe
from bestofn.resuming import input_of, same_spelled
from bestofn.rewards.base import needs_engine, takes
from bestofn.store import pool
from bestofn.store.journal import check_output, open_journal
from bestofn.types import Candidate, Pool, Score

ON_REQUEST = (TIES, "Safety")


# --- items ----------------------------------------------------------------------------------------


class Item(BaseModel):
    """A prompt with right and wrong responses, as in a row of the data set.

    Attributes:
        id: Names it within its subset.
        prompt: A text, or turns.
        models: Who wrote `chosen` and `rejected`, in that order; empty where that is not known.
    """

    model_config = ConfigDict(strict=True)

    id: str = Field(min_length=1)
    subset: str = Field(min_length=1)
    prompt: Any
    chosen: list[str] = Field(min_length=1)
    rejected: list[str] = Field(min_length=1)
    models: list[str] = []

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, row: Mapping[str, Any]) -> Any:
        own = {name: value for name, value in row.items() if name in cls.model_fields}
        return {name: plain(v) if isinstance(v, str | list) else v for name, v in own.items()}

    @field_validator("prompt")
    @classmethod
    def _asked(cls, value: Any) -> Any:
        prompt = as_prompt(value)
        return value if isinstance(value, str) else as_turns(prompt.messages)

    @field_validator("chosen", "rejected", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        """Responses that are chat messages, or lists of text parts, as texts."""
        if not isinstance(value, list):
            return value
        return [answer_text(item) if isinstance(item, list | Mapping) else item for item in value]

    @field_validator("models", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        return [] if value is None else value

    @model_validator(mode="after")
    def _consistent(self) -> "Item":
        if self.subset == MEAN:
            raise ValueError(f"the subset {MEAN!r} would be taken for the mean over subsets")
        kind, colon, _ = self.id.partition(":")
        if self.subset == TIES and (kind not in ("ref", "tied") or not colon):
            raise ValueError(f"an 'id' of {TIES} is 'ref:K' or 'tied:K', not {self.id!r}")
        return self


def read_items(config: RewardBenchConfig) -> list[Item]:
    """The items that a run is about, in the order of the data."""
    by_subset: dict[str, list[Item]] = {}
    seen: dict[tuple[str, str], str] = {}
    for row in _rows(config.data):
        item = row.read_as(Item)
        before = seen.setdefault((item.subset, item.id), row.where)
        if before != row.where:
            raise ConfigError(
                f"{row.where}: the subset {item.subset!r} has the 'id' {item.id!r} already, in "
                f"{before}"
            )
        by_subset.setdefault(item.subset, []).append(item)
    wanted = config.subsets or [name for name in by_subset if name not in ON_REQUEST]
    for name in wanted:
        if name not in by_subset:
            raise ConfigError(
                f"{config.data} has no items of the subset {name!r}; it has "
                f"{', '.join(by_subset) or 'none at all'}"
            )
    if not wanted:
        named = " ".join(f"--subset {name}" for name in by_subset)
        there = f" but those on request: {named}" if named else ""
        raise ConfigError(f"{config.data} holds no items{there}")
    return [item for name in wanted for item in by_subset[name][: config.limit_per_subset]]


def _rows(data: str) -> Iterator[Row]:
    from bestofn.tiny.items import tiny_items

    kind, colon, count = data.partition(":")
    if kind != "tiny" or not colon:
        yield from read_rows(data)
        return
    if not count.isdecimal() or int(count) < 1:
        raise ConfigError(f"items of the tiny world are 'tiny:COUNT', not {data!r}")
    for number, row in enumerate(tiny_items(int(count))):
        yield Row(f"{data}, row {number}", row)


def as_pool(item: Item, seed: int) -> Pool:
    """The item as a pool, its candidates in an order by seed and item that favours no place.

    Its columns say subset and id, and who wrote what.
    """
    prompt = as_prompt(item.prompt, f"{item.subset}/{item.id}")
    responses = [*item.chosen, *item.rejected]
    order = list(range(len(responses)))
    random_for("order of an item", seed, prompt).shuffle(order)
    columns: dict[str, Any] = {"subset": item.subset, "item": item.id}
    if len(item.models) == len(responses):
        columns["models"] = [item.models[place] for place in order]
    candidates = [
        Candidate(index, responses[place], scores={GOLD: Score(float(place < len(item.chosen)))})
        for index, place in enumerate(order)
    ]
    return Pool(as_prompt(prompt, columns=columns), candidates)


def fingerprint(items: Sequence[Item]) -> str:
    """A hash of all that the items hold, to tell whether data have changed."""
    digest = hashlib.blake2b(digest_size=8)
    for item in items:
        digest.update(json.dumps(item.model_dump()).encode())
    return digest.hexdigest()


# --- the evaluation -------------------------------------------------------------------------------


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


def _line(reward: RewardConfig, model: EngineConfig) -> Line:
    """A reward with a model, which is named if it is one of several and scores."""
    scores = needs_engine(reward.reward)
    if scores and (reward.engine or model.engine) is None:
        raise ConfigError(NO_ENGINE)
    name = model.name if scores and isinstance(model, ModelConfig) else None
    label = reward.label if name is None else f"{reward.label} of {name}"
    return Line(label, reward.label, reward.reward, name)


def _for_pool(reward: RewardConfig, model: EngineConfig, seed: int) -> RewardConfig:
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
