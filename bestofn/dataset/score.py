"""Scores in pool files: added, and gone on with where a run was interrupted."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from math import isnan
from pathlib import Path
from typing import Any

from bestofn.config import (
    NO_ENGINE,
    EngineConfig,
    RewardConfig,
    ScoreConfig,
    ScorerConfig,
    checked,
)
from bestofn.dataset.pools import add, cut_name, has_scores
from bestofn.engines.base import Engine
from bestofn.errors import ConfigError, RunFailedError
from bestofn.identity import completed
from bestofn.models import Engines
from bestofn.progress import Progress, silent
from bestofn.redaction import without_secrets
from bestofn.resuming import same_spelled, with_one_spelling
from bestofn.rewards.base import is_pointwise, load_reward, needs_engine
from bestofn.sampler import CANDIDATES_IN_FLIGHT
from bestofn.scoring import RewardModel
from bestofn.store import pool
from bestofn.store.journal import (
    cannot_write,
    check_output,
    locked,
    manifest,
    open_journal,
    write_settings,
)
from bestofn.store.scores import Made, check_made, made_by, read_made, write_made


def score_file(
    source: Path,
    config: ScoreConfig,
    drawn_by: EngineConfig | None,
    path: Path,
    engines: Engines,
    progress: Progress = silent,
) -> bool:
    """Writes the pools of a file with further scores to `path`, which may be the same file.

    One model is loaded after another, with a pass over the file for each. A pass writes beside
    `path` and takes its place when it is complete; one that was interrupted goes on where it was.

    Args:
        source: A pool file.
        config: Which scores.
        drawn_by: The model that drew the pools, if it is known; it also scores where no other is
            named.
        path: Where to write.
        engines: Loads the models.
        progress: Shows how far it is.

    Returns:
        Whether any score was missing.

    Raises:
        ConfigError: a reward or a row is wrong, `path` was made from another pool, or the model
            that drew the pools is needed and not known.
    """
    _check(config, path)
    if path.is_symlink():
        path = path.resolve()  # the file is replaced, not the link
    with locked(path):
        if path.resolve() != source.resolve():
            source = _begun(source, path)
        if next(pool.read(source), None) is None:
            raise ConfigError(f"the pool {source} has no rows")
        scored_by_it = any(_is_shared(reward, config) for reward in config.rewards)
        if drawn_by is None and (config.limits or scored_by_it):
            raise ConfigError(
                f"name the model (--engine): {manifest(source).name}, which says what drew "
                f"{source}, is not there"
            )
        groups = _by_model(config, drawn_by)
        known = read_made(source)
        wanted = {k: v for group in groups for k, v in group.made(config).items()}
        if not config.again:
            check_made(source, known, wanted)
            known = {name: completed(how, wanted.get(name, how)) for name, how in known.items()}
            if source == path and known != read_made(source):
                write_made(path, known)
        changed = False
        passes = [group.settings() for group in groups]
        for group in _left(groups, path):
            if source != path or config.again or group.lacks(source, config.limits):
                known |= _pass(source, path, config, group, passes, drawn_by, engines, progress)
                write_made(path, known)
                changed = True
            source = path
    return changed


def _check(config: ScoreConfig, path: Path) -> None:
    if not config.rewards:
        raise ConfigError("name at least one reward, such as 'flip'")
    if path.suffix == ".gz":
        raise ConfigError(f"scores are not written to gzipped files; name another one than {path}")
    check_output(path)


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

    def lacks(self, path: Path, limits: Sequence[int]) -> bool:
        """Whether a row of the file is without one of the scores."""
        names = [
            name
            for reward in self.rewards
            for name in (
                reward.label,
                *(cut_name(reward.label, n) for n in limits if is_pointwise(reward.reward)),
            )
        ]
        return not all(has_scores(row, name) for row in pool.read(path) for name in names)

    def made(self, config: ScoreConfig, loaded: Engine | None = None) -> Made:
        """How its scores are made, more exactly once the model is loaded."""
        made: Made = {}
        for reward in self.rewards:
            made |= made_by(reward, self.model, config.verifier, loaded)
        return made

    def settings(self) -> list[dict[str, Any]]:
        return [without_secrets(reward.model_dump(mode="json")) for reward in self.rewards]

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


def _left(groups: list[_Group], path: Path) -> list[_Group]:
    """The groups from the one on whose pass was interrupted; those before it are done."""
    begun = _settings(_partial(path)) if _partial(path).exists() else {}
    begun = with_one_spelling(without_secrets(begun))
    passes = with_one_spelling([group.settings() for group in groups])
    if begun.get("passes") != passes:
        return groups
    return groups[passes.index(begun["rewards"]) :]


def _is_shared(reward: RewardConfig, config: ScoreConfig) -> bool:
    """Whether the model that drew the candidates also scores them."""
    return needs_engine(reward.reward) and not (reward.engine or config.reward_engine)


def _begun(source: Path, path: Path) -> Path:
    """What to score so that `path` becomes the scored copy of `source`: it, if it was begun."""
    origin = fingerprint(source)
    settings = _settings(source) | {"scored_from": origin}
    if not path.exists():
        write_settings(path, settings)
        return source
    if _settings(path).get("scored_from") != origin:
        raise ConfigError(f"{path} exists and was not made from {source}; write to another file")
    return path


def _settings(path: Path) -> dict[str, Any]:
    """What a pool file was begun with, as far as it is known."""
    try:
        settings = json.loads(manifest(path).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}


def drawn_with(path: Path) -> EngineConfig | None:
    """The model that drew a pool file, None where that is not known."""
    settings = _settings(path)
    if "engine" not in settings:
        return None
    fields = {name: settings[name] for name in EngineConfig.model_fields if name in settings}
    return checked(EngineConfig, fields, f"{manifest(path)}")


def _pass(
    source: Path,
    path: Path,
    config: ScoreConfig,
    group: _Group,
    passes: list[list[dict[str, Any]]],
    drawn_by: EngineConfig | None,
    engines: Engines,
    progress: Progress,
) -> Made:
    """Adds the scores of one group of rewards and puts the result in the place of `path`.

    Returns:
        How they were made.
    """
    made = group.made(config)
    sizes = [len(row.candidates) for row in pool.read(source)]
    settings = {
        "source": fingerprint(source),
        "rewards": group.settings(),
        "passes": passes,
        "model": group.model and group.model.model_dump(mode="json"),
        "verifier": config.verifier,
        "limits": config.limits,
        "again": config.again,
        "identity": {"made": made},
    }
    partial = _partial(path)
    otherwise = f"remove {partial} to start over"
    with open_journal(partial, settings, otherwise, compare=same_spelled) as journal:
        left = len(sizes) - journal.lines
        if left:
            rewards, loaded = group.load(config, drawn_by, engines)
            made = group.made(config, loaded[0] if group.model else None)
            journal.confirm(settings | {"identity": {"made": made}})
            if not config.again:
                check_made(source, read_made(source), made)
            pools = islice(pool.read(source), journal.lines, None)
            scored = add(
                pools,
                rewards,
                limits=config.limits,
                decoder=loaded[-1] if config.limits else None,
                again=config.again,
                window=max(1, CANDIDATES_IN_FLIGHT // max(sizes)),
            )
            what = "scoring " + ", ".join(reward.label for reward in group.rewards)
            for row in progress(scored, left, what):
                journal.append(pool.dumps(row))
    try:
        partial.replace(path)
        manifest(partial).unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    return made


def _partial(path: Path) -> Path:
    """Where a pass writes until it is complete."""
    return path.with_name(path.name + ".scoring")


def fingerprint(path: Path) -> str:
    """A hash of a pool file's content."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()[:32]
    except OSError as error:
        raise ConfigError(f"the pool {path} cannot be read: {error.strerror}") from None
