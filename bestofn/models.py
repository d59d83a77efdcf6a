"""The models of a run, each loaded once."""

import sys
from typing import Self

from bestofn.config import DrawConfig, EngineConfig
from bestofn.engines.base import Engine, load_engine
from bestofn.errors import ConfigError
from bestofn.generators import Generator, as_generator, own_generator
from bestofn.progress import redraws

OF_MODELS = DrawConfig.model_fields.keys() - {"engine", "engine_args", "system"}
"""Settings that no generator of the user's own has."""


class Engines:
    """The models of a run, each loaded when it is needed.

    Two configurations that name the same model with the same arguments share it. A model takes its
    device's memory, so those that are not needed any more are closed before another one is loaded.
    """

    def __init__(self) -> None:
        self._loaded: list[tuple[EngineConfig, Engine]] = []

    def get(self, *configs: EngineConfig) -> list[Engine]:
        """The engines of these configurations, and no others.

        Raises:
            ConfigError, EngineError: one of them cannot be loaded, or has no such option.
        """
        for held in self._loaded[:]:
            if not any(config.is_same(held[0]) for config in configs):
                self._loaded.remove(held)
                held[1].close()
        return [_view(self._engine(config), config) for config in configs]

    def drawing(
        self, config: DrawConfig, *scorers: EngineConfig, keep_tokens: bool = False
    ) -> tuple[Generator, list[Engine]]:
        """What draws, with an engine or a generator of the user's own, and the engines of others.

        Raises:
            ConfigError, EngineError: one of them cannot be loaded, or settings of a model are given
                with a generator.
        """
        own = own_generator(config.spec, config.engine_args)
        if own is not None:
            if idle := config.model_fields_set & OF_MODELS:
                raise ConfigError(
                    f"{min(idle)} does nothing with the generator {config.engine!r}, which samples "
                    "as it likes; leave it out"
                )
            return as_generator(own), self.get(*scorers)
        engine, *others = self.get(config, *scorers)
        return as_generator(engine, config.sampling(), config.seed, keep_tokens), others

    def _engine(self, config: EngineConfig) -> Engine:
        for known, engine in self._loaded:
            if config.is_same(known):
                return engine
        if config.spec.startswith("vllm:") and redraws():
            print("starting vLLM, which takes half a minute or more", file=sys.stderr)
        self._loaded.append((config, load_engine(config.spec, **config.engine_args)))
        return self._loaded[-1][1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.get()


def _view(engine: Engine, config: EngineConfig) -> Engine:
    """The engine with the options of a configuration."""
    if not config.engine_options:
        return engine
    try:
        return engine.with_options(**config.engine_options)
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"engine {config.engine!r} does not take the options {config.engine_options}: {error}"
        ) from error
