"""Scores of a pool file: added beside it, each name in a file of its own; a rerun resumes."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

from bestofn.concurrency import Window
from bestofn.config import NO_ENGINE, EngineConfig, RewardConfig, ScoreConfig, ScorerConfig, checked
from bestofn.dataset.pools import add, cut_name, has_scores
from bestofn.dataset.summary import Summary, bar_of
from bestofn.engines.base import Engine
from bestofn.errors import ConfigError, RunFailedError
from bestofn.identity import UNKNOWN, by_identity, completed, content_fingerprint
from bestofn.models import Engines
from bestofn.redaction import without_secrets
from bestofn.resuming import engine_files, with_one_spelling
from bestofn.rewards.base import is_pointwise, load_reward, needs_engine, reward_identity
from bestofn.scoring import RewardModel
from bestofn.store import pool
from bestofn.store.journal import (
    begun_with,
    check_output,
    locked,
    manifest,
    open_lines,
    write_settings,
)
from bestofn.store.scores import ScoreFile, ScoreOrigin, read_origins, write_origins_of_rows
from bestofn.types import Pool


def score_file(
    source: Path,
    config: ScoreConfig,
    drawn_by: EngineConfig | None,
    path: Path,
    engines: Engines,
    *,
    progress: bool = False,
) -> list[Summary]:
    """Adds scores to a pool file, or to a copy of it.

    One model is loaded after another. Each score is written as soon as its row is finished.

    Args:
        source: A pool file.
        config: Which scores.
        drawn_by: The model that drew the pools, if it is known; it also scores where no other is
            named.
        path: The pool file that gets the scores: `source`, or where to copy it.
        engines: Loads the models.
        progress: Show a bar.

    Returns:
        What was scored, for each model; empty where no score was missing.

    Raises:
        ConfigError: a reward or a row is wrong, `path` was made from another pool, or the model
            that drew the pools is needed and not known.
    """
    if not config.rewards:
        raise ConfigError("name at least one reward, such as 'flip'")
    if path.suffix == ".gz":
        raise ConfigError(f"scores are not written to gzipped files; name another one than {path}")
    check_output(path)
    with locked(path):
        if next(pool.read(source), None) is None:
            raise ConfigError(f"the pool {source} has no rows")
        if path.resolve() != source.resolve():
            _copy(source, path)
        if drawn_by is None and _needs_the_one_that_drew(config):
            raise ConfigError(
                f"name the model (--engine): {manifest(source).name}, which says what drew "
                f"{source}, is not there"
            )
        groups = _by_model(config, drawn_by)
        if not config.again:
            _check_origins(path, groups, config)
        return [
            _score(path, config, group, drawn_by, engines, progress)
            for group in groups
            if config.again or group.lacks(path, config.limits)
        ]


def _needs_the_one_that_drew(config: ScoreConfig) -> bool:
    shared = (
        needs_engine(reward.reward) and not (reward.engine or config.reward_engine)
        for reward in config.rewards
    )
    return any(shared) or bool(config.limits)


def check_scores(path: Path, rewards: Sequence[RewardConfig]) -> None:
    """Looks for a score that did not fail; gold counts where it is the only reward.

    Raises:
        RunFailedError: there is none.
    """
    names = [reward.label for reward in rewards if reward.reward != "gold"]
    names = names or [reward.label for reward in rewards]
    reason = None
    for row in pool.read(path):
        for score in (c.scores[name] for c in row.candidates for name in names if name in c.scores):
            if not isnan(score.value):
                return
            reason = reason or score.reason
    if reason is not None:
        raise RunFailedError(
            f"every score of {', '.join(names)} failed, the first because: {reason}; {path} keeps "
            "the reasons, and --again scores again"
        )


@dataclass(frozen=True, slots=True)
class _Group:
    """Rewards that share a model; None where no model scores."""

    model: EngineConfig | None
    rewards: list[RewardConfig]

    def names(self, limits: Sequence[int]) -> list[str]:
        """Of all scores that the rewards give."""
        return [name for reward in self.rewards for name in _names(reward, limits)]

    def lacks(self, path: Path, limits: Sequence[int]) -> bool:
        """Whether a row of the file is without one of the scores."""
        names = self.names(limits)
        return any(not has_scores(row, name) for row in pool.read(path) for name in names)

    def origins(self, config: ScoreConfig, loaded: Engine | None = None) -> dict[str, ScoreOrigin]:
        """How the scores are made, by the names of the rewards."""
        return {
            reward.label: origin_of(reward, self.model, config.verifier, loaded)
            for reward in self.rewards
        }

    def load(
        self, config: ScoreConfig, drawn_by: EngineConfig | None, engines: Engines
    ) -> tuple[list[RewardModel], list[Engine]]:
        """The rewards, and their engine and with limits that which reads the candidates' tokens."""
        decoder = drawn_by if config.limits else None
        loaded = engines.get(*filter(None, [self.model, decoder]))
        rewards = [
            load_reward(
                reward.reward,
                engine=loaded[0] if self.model else None,
                verifier=config.verifier,
                name=reward.name,
                **reward.options,
            )
            for reward in self.rewards
        ]
        return rewards, loaded


def _names(reward: RewardConfig, limits: Sequence[int]) -> list[str]:
    cuts = limits if is_pointwise(reward.reward) else []
    return [reward.label, *(cut_name(reward.label, limit) for limit in cuts)]


def _by_model(config: ScoreConfig, drawn_by: EngineConfig | None) -> list[_Group]:
    """The rewards by the model that scores them, those without one last."""
    groups: list[_Group] = []
    for reward in sorted(config.rewards, key=lambda reward: not needs_engine(reward.reward)):
        model = scoring_model(reward, config, drawn_by)
        same = next((group for group in groups if group.model == model), None)
        if same is None:
            groups.append(_Group(model, [reward]))
        else:
            same.rewards.append(reward)
    return groups


def scoring_model(
    reward: RewardConfig, config: ScorerConfig, drawn_by: EngineConfig | None
) -> EngineConfig | None:
    """The model that a reward scores with: its own, the one of all rewards, or the one that drew.

    None where no model scores.

    Raises:
        ConfigError: no model is named.
    """
    if not needs_engine(reward.reward):
        return None
    shared, own = config.scorer(drawn_by), reward.named()
    if own is not None:
        return own.sharing(shared).sharing(drawn_by)
    if shared is None:
        raise ConfigError(NO_ENGINE)
    return EngineConfig(
        engine=shared.engine,
        engine_args=shared.engine_args,
        engine_options=reward.engine_options or shared.engine_options,
    )


def _score(
    path: Path,
    config: ScoreConfig,
    group: _Group,
    drawn_by: EngineConfig | None,
    engines: Engines,
    progress: bool,
) -> Summary:
    """Adds the scores of rewards that share a model to the rows that lack one."""
    sizes = [len(row.candidates) for row in pool.read(path)]
    rewards, loaded = group.load(config, drawn_by, engines)
    origins = group.origins(config, loaded[0] if group.model else None)
    files = {name: ScoreFile(path, name) for name in group.names(config.limits)}
    if config.again:
        for file in files.values():
            file.replace()
    else:
        check_origins(path, read_origins(path), origins)
    summary, what = Summary(), f"scoring {', '.join(origins)}"
    lacking: dict[str, list[str]] = {}

    def rows() -> Iterator[Pool]:
        for row in pool.read(path):
            if missing := [name for name in files if not has_scores(row, name)]:
                lacking[row.prompt.id] = missing
                yield row
            else:
                summary.rows += 1

    with ExitStack() as stack:
        journals = {}
        for name, file in files.items():
            file.begin(origins[name.partition("@")[0]])
            journals[name] = stack.enter_context(open_lines(file.path))
        bar = stack.enter_context(bar_of(summary, len(sizes), what, shown=progress))
        scored = add(
            rows(),
            rewards,
            limits=config.limits,
            decoder=loaded[-1] if config.limits else None,
            window=Window(max(sizes)),
        )
        for row in scored:
            for name in lacking.pop(row.prompt.id):
                if has_scores(row, name):  # a reward that compares has none of cuts
                    journals[name].append(files[name].line(row))
            summary.add_scores(row, list(origins))
            bar.update()
    return summary


# --- how scores are made --------------------------------------------------------------------------


def origin_of(
    reward: RewardConfig,
    model: EngineConfig | None,
    verifier: str | None,
    loaded: Engine | None = None,
) -> ScoreOrigin:
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
    return dict(json.loads(json.dumps(without_secrets(how))))


def reward_of(name: str, how: ScoreOrigin) -> RewardConfig:
    """The reward that made these scores."""
    model = how["model"] or {}
    return RewardConfig(reward=how["reward"], name=name, options=how["options"], **model)


def check_origins(
    path: Path, known: Mapping[str, ScoreOrigin], wanted: Mapping[str, ScoreOrigin]
) -> None:
    """Refuses scores under a name that others have already.

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


def differing(before: ScoreOrigin, now: ScoreOrigin) -> list[str]:
    """What differs between two ways in which scores are made, if anything that counts."""
    rewards = [how.get("identity", {}).get("reward", {}) for how in (before, now)]
    whole = all(rewards) and all(UNKNOWN not in reward.values() for reward in rewards)
    left_out = {"options", "verifier"} if whole else set()
    old, new = (
        {name: value for name, value in how.items() if name not in left_out}
        for how in map(with_one_spelling, (without_secrets(before), now))
    )
    return by_identity(old, new)


def _check_origins(path: Path, groups: Iterable[_Group], config: ScoreConfig) -> None:
    """Checks what is known before a model is loaded, and completes what version 0.1 kept."""
    known = read_origins(path)
    wanted = {k: v for group in groups for k, v in group.origins(config).items()}
    check_origins(path, known, wanted)
    in_rows = {name: how for name, how in known.items() if not ScoreFile(path, name).origin}
    whole = {name: completed(how, wanted.get(name, how)) for name, how in in_rows.items()}
    if whole != in_rows:
        write_origins_of_rows(path, whole)


# --- copies ---------------------------------------------------------------------------------------


def _copy(source: Path, path: Path) -> None:
    """Copies the rows of a pool, with their scores, to a file that scores are added to.

    Raises:
        ConfigError: the file is there and is no copy of the pool.
    """
    origin = content_fingerprint(source)
    settings = _settings(source) | {"scored_from": origin}
    if path.exists() and _settings(path).get("scored_from") != origin:
        raise ConfigError(f"{path} exists and was not made from {source}; write to another file")
    write_settings(path, settings)
    write_origins_of_rows(path, read_origins(source) | read_origins(path))
    with open_lines(path) as journal:
        for number, row in enumerate(pool.read(source)):
            if number >= journal.lines:
                journal.append(pool.dumps(row))


def _settings(path: Path) -> dict[str, Any]:
    """What a pool file was begun with, as far as it is known."""
    try:
        return begun_with(path)
    except (OSError, ValueError, TypeError):
        return {}


def drawn_with(path: Path) -> EngineConfig | None:
    """The model that drew a pool file, None where that is not known."""
    settings = _settings(path)
    if "engine" not in settings:
        return None
    fields = {name: settings[name] for name in EngineConfig.model_fields if name in settings}
    return checked(EngineConfig, fields, f"{manifest(path)}")
