"""What the configuration of a selection loads, and what its rows depend on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from bestofn.config import AskConfig, SelectConfig
from bestofn.dataset.sources import SourceOptions
from bestofn.errors import ConfigError
from bestofn.models import Engines
from bestofn.resuming import comparing, engine_files, input_of
from bestofn.rewards.base import load_reward, needs_engine, reward_identity
from bestofn.sampler import BestOfN
from bestofn.stopping import ExpectedGain
from bestofn.store import pool

same_selection = comparing(
    SelectConfig,
    described=(
        *("reward", "reward_options", "verifier"),
        *("adaptive", "adaptive_prior", "adaptive_weight"),
    ),
)
"""What differs between the settings of two selections."""
FREE = {"limit", "window", "ordered", "on_bad_row", "max_error_rate", "retry_errors"}


def check(config: AskConfig) -> None:
    """Finds what is wrong before anything is read or loaded.

    Raises:
        ConfigError: a setting makes no sense, or does nothing beside the others.
    """
    chooses = config.chooses  # whose name and options are looked at
    if config.reward == "gold":
        load_reward("gold", verifier=config.verifier, **chooses.options)
    unscored = not needs_engine(config.reward)
    idle = {"reward_engine": unscored, "reward_engine_options": unscored}
    idle["verifier"] = config.reward != "gold"
    if isinstance(config, SelectConfig):
        fixed = config.adaptive is None
        idle |= dict.fromkeys(("adaptive_prior", "adaptive_weight", "round_size"), fixed)
    for name in sorted(config.model_fields_set):
        if idle.get(name):
            raise ConfigError(f"{name} does nothing beside the other options; leave it out")
    config.sampling()
    stopping(config)


@contextmanager
def loaded(config: AskConfig) -> Iterator[BestOfN]:
    """What draws and selects, with its models in memory.

    Raises:
        ConfigError: a setting makes no sense.
        EngineError: a model cannot be loaded.
    """
    chooses = config.chooses
    scorer = config.scorer(config) if needs_engine(config.reward) else None
    with Engines() as engines:
        generator, judges = engines.drawing(config, *filter(None, [scorer]))
        reward = load_reward(
            chooses.reward,
            engine=judges[0] if judges else None,
            verifier=config.verifier,
            **chooses.options,
        )
        how: dict[str, Any] = {}
        if isinstance(config, SelectConfig):
            how = {"window": config.window, "round_size": config.round_size}
        yield BestOfN(generator, reward, n=config.n, stop=stopping(config), **how)


def stopping(config: AskConfig) -> ExpectedGain | None:
    """When a prompt has enough candidates, None where all get the same number.

    Raises:
        ConfigError: the scores to expect are missing, or cannot be read.
    """
    if not isinstance(config, SelectConfig) or config.adaptive is None:
        return None
    prior = None
    if config.adaptive_prior is not None:
        prior = _scores(Path(config.adaptive_prior), config.chooses.label)
    elif config.reward != "flip":
        raise ConfigError(
            f"--adaptive with {config.reward!r} needs --adaptive-prior: a pool file that "
            "`bestofn score` has given its scores"
        )
    return ExpectedGain(config.adaptive, prior=prior, weight=config.adaptive_weight)


def _scores(path: Path, reward: str) -> list[float]:
    scores = [c.scores.get(reward) for row in pool.read(path) for c in row.candidates]
    if not any(scores):
        raise ConfigError(f"the pool {path} has no scores of {reward!r}; add them first")
    return [score.value for score in scores if score is not None]


def source_options(config: SelectConfig) -> SourceOptions:
    """How the input is read."""
    names = SourceOptions.__annotations__
    return cast(SourceOptions, {name: getattr(config, name) for name in names})


def settings_of(config: SelectConfig, best: BestOfN | None = None) -> dict[str, Any]:
    """What the rows depend on, more exactly once the engines are loaded."""
    chooses, scoring = config.chooses, getattr(best and best.reward, "engine", None)
    found = engine_files(config, getattr(best and best.generator, "engine", None))
    scorer = config.scorer(config) if needs_engine(config.reward) else None
    if scorer is not None and config.reward_engine is not None:
        found |= engine_files(scorer, scoring, "reward_")
    found["reward"] = reward_identity(
        chooses.reward,
        engine=scoring or (scorer or config).described(),
        verifier=config.verifier,
        **chooses.options,
    )
    if stop := stopping(config):
        found["stop_rule"] = stop.identity()
    given = config.model_dump(mode="json", exclude=FREE)
    return given | {"prompts": input_of(config.prompts), "identity": found}
