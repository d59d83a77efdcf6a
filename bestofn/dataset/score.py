"""Scores of a pool file: added beside it, each name in a file of its own; a rerun resumes."""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from math import isnan
from pathlib import Path

from bestofn.concurrency import Window
from bestofn.config import NO_ENGINE, EngineConfig, RewardConfig, ScoreConfig, ScorerConfig, checked
from bestofn.dataset.pools import add, cut_name, has_scores
from bestofn.dataset.summary import Summary, bar_of
from bestofn.engines.base import Engine
from bestofn.errors import ConfigError, RunFailedError
from bestofn.identity import UNKNOWN, by_identity, content_fingerprint
from bestofn.models import Engines
from bestofn.redaction import without_secrets
from bestofn.resuming import engine_files, with_one_spelling
from bestofn.rewards.base import is_pointwise, load_reward, needs_engine, reward_identity
from bestofn.store import pool
from bestofn.store.journal import MANIFEST, SCORES, begun_with, locked, open_lines, write_beside
from bestofn.store.pool import ScoreFile, ScoreOrigin, read_origins

_Group = tuple[EngineConfig | None, list[RewardConfig]]  # rewards and the model that they share

BEGIN = 16  # candidates in flight at the beginning, so that the first rows are there soon


def score_file(
    source: Path,
    config: ScoreConfig,
    drawn_by: EngineConfig | None,
    path: Path,
    engines: Engines,
    *,
    progress: bool = False,
) -> bool:
    """Adds scores to the pool file `source`, or to a copy of it at `path`; whether any was missing.

    One model is loaded after another; that which drew the pools scores where no other is named.
    Each score is written as soon as its row is finished.

    Raises:
        ConfigError: a reward or a row is wrong, `path` was made from another pool, or the model
            that drew the pools is needed and not known.
    """
    if not config.rewards:
        raise ConfigError("name at least one reward, such as 'flip'")
    if config.limits and drawn_by is None:
        raise ConfigError(NO_ENGINE)
    with locked(path):
        if next(pool.read(source), None) is None:
            raise ConfigError(f"the pool {source} has no rows")
        if path.resolve() != source.resolve():
            _copy(source, path)
        groups = _by_model(config, drawn_by)
        wanted = {k: how for group in groups for k, how in _origins(config, group).items()}
        if not config.again:
            _check_origins(path, wanted)
        scored = [_score(path, config, group, drawn_by, engines, progress) for group in groups]
    return any(scored)


def check_scores(path: Path, rewards: Sequence[RewardConfig]) -> None:
    """Raises RunFailedError if all scores failed; gold counts where it is the only reward."""
    names = [reward.label for reward in rewards if reward.reward != "gold"]
    names = names or [reward.label for reward in rewards]
    reason = None
    for candidate in (candidate for row in pool.read(path) for candidate in row.candidates):
        for score in (candidate.scores[name] for name in names if name in candidate.scores):
            if not isnan(score.value):
                return
            reason = reason or score.reason
    if reason is not None:
        raise RunFailedError(
            f"every score of {', '.join(names)} failed, the first because: {reason}; {path} keeps "
            "the reasons, and --again scores again"
        )


def scoring_model(
    reward: RewardConfig, config: ScorerConfig, drawn_by: EngineConfig | None
) -> EngineConfig | None:
    """The model that a reward scores with: its own, the one of all rewards, or the one that drew.

    None where no model scores; ConfigError where one has to and none is named.
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


def _by_model(config: ScoreConfig, drawn_by: EngineConfig | None) -> list[_Group]:
    """The rewards by the model that scores them, those without one last."""
    groups: dict[str, _Group] = {}
    for reward in sorted(config.rewards, key=lambda reward: not needs_engine(reward.reward)):
        model = scoring_model(reward, config, drawn_by)
        key = "" if model is None else model.model_dump_json()
        groups.setdefault(key, (model, []))[1].append(reward)
    return list(groups.values())


def _score(
    path: Path,
    config: ScoreConfig,
    group: _Group,
    drawn_by: EngineConfig | None,
    engines: Engines,
    progress: bool,
) -> bool:
    """Adds the scores of rewards that share a model to the rows that lack one, if any does."""
    model, wanted = group
    names = [name for reward in wanted for name in _names(reward, config.limits)]
    missing, most = dict[str, list[str]](), 0
    for row in pool.read(path):
        if lacking := [name for name in names if config.again or not has_scores(row, name)]:
            missing[row.prompt.id] = lacking
            most = max(most, len(row.candidates))
    if not missing:
        return False
    decoder = drawn_by if config.limits else None
    loaded = engines.get(*filter(None, [model, decoder]))
    engine = loaded[0] if model else None
    rewards = [
        load_reward(r.reward, engine=engine, verifier=config.verifier, name=r.name, **r.options)
        for r in wanted
    ]
    origins = _origins(config, group, engine)
    files = {name: ScoreFile(path, name) for name in names}
    if config.again:
        for file in files.values():
            file.replace()
    else:
        _check_origins(path, origins)
    summary, what = Summary(), f"scoring {', '.join(origins)}"
    with ExitStack() as stack:
        journals = {}
        for name, file in files.items():
            file.begin(origins[name.partition("@")[0]])
            journals[name] = stack.enter_context(open_lines(file.path))
        bar = stack.enter_context(bar_of(summary, len(missing), what, shown=progress))
        for row in add(
            (row for row in pool.read(path) if row.prompt.id in missing),
            rewards,
            limits=config.limits,
            decoder=loaded[-1] if decoder else None,
            window=Window(most, begin=BEGIN),
        ):
            for name in missing[row.prompt.id]:
                if has_scores(row, name):  # a reward that compares has none of cuts
                    journals[name].append(files[name].line(row))
            summary.add_scores(row, list(origins))
            bar.update()
    return True


def _names(reward: RewardConfig, limits: Sequence[int]) -> list[str]:
    """Of all scores that a reward gives."""
    cuts = [cut_name(reward.label, limit) for limit in limits if is_pointwise(reward.reward)]
    return [reward.label, *cuts]


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
    identity = reward_identity(
        reward.reward, engine=engine, verifier=verifier, name=reward.label, **reward.options
    )
    how = {
        "reward": reward.reward,
        "options": reward.options,
        "model": None if model is None else model.model_dump(mode="json"),
        "verifier": verifier,
        "identity": ({} if model is None else engine_files(model, loaded)) | {"reward": identity},
    }
    return dict(json.loads(json.dumps(without_secrets(how))))


def _origins(
    config: ScoreConfig, group: _Group, loaded: Engine | None = None
) -> dict[str, ScoreOrigin]:
    """How the scores of some rewards are made, by the rewards' names."""
    model, rewards = group
    return {r.label: origin_of(r, model, config.verifier, loaded) for r in rewards}


def reward_of(name: str, how: ScoreOrigin) -> RewardConfig:
    """The reward that made these scores."""
    model = how["model"] or {}
    return RewardConfig(reward=how["reward"], name=name, options=how["options"], **model)


def _check_origins(path: Path, wanted: Mapping[str, ScoreOrigin]) -> None:
    """Refuses scores under a name that others have already, and says what differs."""
    known = read_origins(path)
    for name, how in wanted.items():
        made = [with_one_spelling(without_secrets(how)) for how in (known.get(name, how), how)]
        rewards = [origin.get("identity", {}).get("reward", {}) for origin in made]
        if all(reward and UNKNOWN not in reward.values() for reward in rewards):
            made = [origin | {"options": None, "verifier": None} for origin in made]
        if changes := by_identity(*made):
            raise ConfigError(
                f"the scores {name!r} in {path} were made otherwise ({', '.join(changes)}); give "
                "the new ones another name or another file, or replace the old ones with "
                "`bestofn score --again`"
            )


# --- copies ---------------------------------------------------------------------------------------


def _copy(source: Path, path: Path) -> None:
    """Copies the rows of a pool, with their scores, to a file that scores are added to."""
    origin = content_fingerprint(source)
    if path.exists() and (begun_with(path) or {}).get("scored_from") != origin:
        raise ConfigError(f"{path} exists and was not made from {source}; write to another file")
    write_beside(path, MANIFEST, (begun_with(source) or {}) | {"scored_from": origin})
    write_beside(path, SCORES, read_origins(source) | read_origins(path))
    with open_lines(path) as journal:
        for number, row in enumerate(pool.read(source)):
            if number >= journal.lines:
                journal.append(pool.dumps(row))


def drawn_with(path: Path) -> EngineConfig | None:
    """The model that drew a pool file, None where that is not known."""
    settings = begun_with(path) or {}
    fields = {name: settings[name] for name in EngineConfig.model_fields if name in settings}
    return checked(EngineConfig, fields, f"{path}.run/{MANIFEST}") if "engine" in fields else None
