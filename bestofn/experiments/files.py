"""Pool files: drawn, scored, gone on with where a run was interrupted."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Self

from bestofn import pool
from bestofn.config import EngineConfig, RewardConfig, SampleConfig, ScoreConfig
from bestofn.engines.base import Engine
from bestofn.errors import ConfigError
from bestofn.experiments.pools import add, cut_name, draw, has_scores
from bestofn.generators import EngineGenerator
from bestofn.journal import manifest, open_journal, write_atomically
from bestofn.rewards.base import RewardModel
from bestofn.rewards.registry import is_pointwise, load_reward, needs_engine
from bestofn.sources import read_prompts
from bestofn.types import Pool, Prompt

Progress = Callable[[Iterator[Pool], int | None, str], Iterator[Pool]]
"""Passes pools on and shows how far they are, of how many, and what is being done."""


def silent(pools: Iterator[Pool], *_: object) -> Iterator[Pool]:
    """Shows nothing."""
    return pools


class Engines:
    """The models of a run, each loaded when it is needed.

    A model takes its device's memory, so those that are not needed any more are closed before
    another one is loaded.
    """

    def __init__(self) -> None:
        self._loaded: list[tuple[EngineConfig, Engine]] = []

    def get(self, *configs: EngineConfig) -> list[Engine]:
        """The engines of these configurations, and no others."""
        models = [config.model() for config in configs]
        for held in [held for held in self._loaded if held[0] not in models]:
            self._loaded.remove(held)
            held[1].close()
        return [
            config.view(self._engine(model)) for model, config in zip(models, configs, strict=True)
        ]

    def _engine(self, model: EngineConfig) -> Engine:
        for known, engine in self._loaded:
            if known == model:
                return engine
        self._loaded.append((model, model.load()))
        return self._loaded[-1][1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.get()


def sample_file(
    config: SampleConfig, path: Path, engines: Engines, progress: Progress = silent
) -> int:
    """Draws a pool file, or what is missing of it.

    Args:
        config: Which prompts, and how.
        path: The file. If it is there, it must have been begun with the same settings; `limit`
            and `window` may differ.
        engines: Loads the model.
        progress: Shows how far it is.

    Returns:
        How many prompts stand in the source more than once; each is drawn once.

    Raises:
        ConfigError: a setting or a prompt is wrong, or the file has other settings.
    """
    prompts, repeated = _distinct(
        read_prompts(
            config.prompts,
            prompt_column=config.prompt_column,
            id_column=config.id_column,
            system=config.system,
            limit=config.limit,
            shuffle=config.shuffle,
        )
    )
    sampling = config.sampling()
    if config.m < 1:
        raise ConfigError(f"m must be at least 1, not {config.m}")
    if path.suffix == ".gz":
        raise ConfigError(f"pools are not written to gzipped files; name another one than {path}")
    settings = config.model_dump(mode="json", exclude={"limit", "window"})
    with open_journal(path, settings) as journal:
        done = {row.prompt.id for row in pool.read(path)} if journal.lines else set()
        missing = [prompt for prompt in prompts if prompt.id not in done]
        if missing:
            (engine,) = engines.get(config)
            generator = EngineGenerator(engine, sampling, config.seed, config.keep_tokens)
            pools = draw(missing, generator, config.m, config.window)
            for row in progress(pools, len(missing), "drawing"):
                journal.append(pool.dumps(row))
    return repeated


def _distinct(prompts: Sequence[Prompt]) -> tuple[list[Prompt], int]:
    """The prompts without repetitions, and how many there were."""
    first: dict[str, Prompt] = {}
    for prompt in prompts:
        if first.setdefault(prompt.id, prompt).messages != prompt.messages:
            raise ConfigError(f"two different prompts have the id {prompt.id!r}")
    return list(first.values()), len(prompts) - len(first)


def score_file(
    source: Path,
    config: ScoreConfig,
    drawn_by: EngineConfig,
    path: Path,
    engines: Engines,
    progress: Progress = silent,
) -> None:
    """Writes the pools of a file with further scores to `path`, which may be the same file.

    One model is loaded after another, with a pass over the file for each. A pass writes beside
    `path`, reading what the one before it wrote; the last takes the place of `path` when it is
    complete. A run that was interrupted goes on where it was.

    Args:
        source: A pool file.
        config: Which scores.
        drawn_by: The model that drew the pools; it also scores where no other is named.
        path: Where to write.
        engines: Loads the models.
        progress: Shows how far it is.

    Raises:
        ConfigError: a reward or a row is wrong.
    """
    if not config.rewards:
        raise ConfigError("name at least one reward, such as 'flip'")
    if path.suffix == ".gz":
        raise ConfigError(f"scores are not written to gzipped files; name another one than {path}")
    latest, written = source, list[Path]()
    for number, (model, rewards) in enumerate(_by_engine(config, drawn_by), 1):
        if _complete(latest, config, rewards):
            continue

        def load(
            model: EngineConfig | None = model, rewards: list[RewardConfig] = rewards
        ) -> tuple[list[RewardModel], Engine | None]:
            """Called only if there is anything to score."""
            needed = [*filter(None, [model]), *([drawn_by] if config.limits else [])]
            loaded = engines.get(*needed)
            engine = loaded[0] if model else None
            decoder = loaded[-1] if config.limits else None
            return [
                load_reward(
                    reward.reward,
                    engine=engine,
                    verifier=config.verifier,
                    name=reward.name,
                    **reward.options,
                )
                for reward in rewards
            ], decoder

        written.append(_beside(path, number))
        _pass(latest, written[-1], config, rewards, load, progress)
        latest = written[-1]
    if not written and source != path:
        written.append(_beside(path, 1))
        _pass(source, written[-1], config, [], lambda: ([], None), progress)
    if written:
        _put_in_place(written, source, path)


def _beside(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.scoring{number}")


def _put_in_place(written: Sequence[Path], source: Path, path: Path) -> None:
    """The last of the files takes the place of `path`, which says then what drew its pools."""
    written[-1].replace(path)
    for partial in written:
        partial.unlink(missing_ok=True)
        manifest(partial).unlink(missing_ok=True)
    if source != path and manifest(source).exists():
        write_atomically(manifest(path), manifest(source).read_text("utf-8"))


def _by_engine(
    config: ScoreConfig, drawn_by: EngineConfig
) -> list[tuple[EngineConfig | None, list[RewardConfig]]]:
    """The rewards by the model that scores them; None where none does."""
    shared: EngineConfig = drawn_by
    if config.reward_engine is not None:
        shared = EngineConfig(engine=config.reward_engine, engine_args=config.reward_engine_args)
    groups: list[tuple[EngineConfig | None, list[RewardConfig]]] = []
    for reward in config.rewards:
        model = shared if needs_engine(reward.reward) else None
        if model is not None and reward.engine is not None:
            model = EngineConfig(engine=reward.engine, engine_args=reward.engine_args)
        if model is not None:
            options = reward.engine_options or model.engine_options
            model = EngineConfig(
                engine=model.engine, engine_args=model.engine_args, engine_options=options
            )
        same = next((group for key, group in groups if key == model), None)
        if same is None:
            groups.append((model, [reward]))
        else:
            same.append(reward)
    return groups


def _complete(source: Path, config: ScoreConfig, rewards: Sequence[RewardConfig]) -> bool:
    """Whether nothing is left to score; every row is read in any case, so that a bad one is told
    before a model is loaded.
    """
    names = [name for reward in rewards for name in _score_names(reward, config.limits)]
    lacking = sum(not all(has_scores(row, name) for name in names) for row in pool.read(source))
    return not lacking and not config.again


def _pass(
    source: Path,
    path: Path,
    config: ScoreConfig,
    rewards: Sequence[RewardConfig],
    load: Callable[[], tuple[list[RewardModel], Engine | None]],
    progress: Progress,
) -> None:
    """Writes the pools of `source` with the scores of rewards that share a model."""
    settings = {
        "source": _fingerprint(source),
        "rewards": [reward.model_dump(mode="json") for reward in rewards],
        "verifier": config.verifier,
        "engine": [config.reward_engine, config.reward_engine_args],
        "limits": config.limits,
    }
    with open_journal(path, settings) as journal:
        left = sum(1 for _ in pool.read(source)) - journal.lines
        if left:
            loaded, decoder = load()
            pools = islice(pool.read(source), journal.lines, None)
            scored = add(pools, loaded, limits=config.limits, decoder=decoder, again=config.again)
            what = "scoring " + ", ".join(reward.label for reward in rewards)
            for row in progress(scored, left, what):
                journal.append(pool.dumps(row))


def _score_names(reward: RewardConfig, limits: Sequence[int]) -> list[str]:
    cuts = limits if is_pointwise(reward.reward) else ()
    return [reward.label, *(cut_name(reward.label, limit) for limit in cuts)]


def _fingerprint(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]
