"""The models of a run, each loaded once."""

from typing import Self

from bestofn.config import DrawConfig, EngineConfig
from bestofn.engines.base import Engine
from bestofn.generators import Generator, as_generator


class Engines:
    """The models of a run, each loaded when it is needed.

    Two configurations that name the same model with the same arguments share it. A model takes its
    device's memory, so those that are not needed any more are closed before another one is loaded.
    """

    def __init__(self) -> None:
        self._loaded: list[tuple[EngineConfig, Engine]] = []

    def get(self, *configs: EngineConfig) -> list[Engine]:
        """The engines of these configurations, and no others."""
        for held in self._loaded[:]:
            if not any(config.is_same(held[0]) for config in configs):
                self._loaded.remove(held)
                held[1].close()
        return [config.view(self._engine(config)) for config in configs]

    def drawing(
        self, config: DrawConfig, *scorers: EngineConfig, keep_tokens: bool = False
    ) -> tuple[Generator, list[Engine]]:
        """What draws, with an engine or a generator of the user's own, and the engines of others.

        Raises:
            ConfigError, EngineError: one of them cannot be loaded.
        """
        own = config.own_generator()
        if own is not None:
            return as_generator(own), self.get(*scorers)
        engine, *others = self.get(config, *scorers)
        return as_generator(engine, config.sampling(), config.seed, keep_tokens), others

    def _engine(self, config: EngineConfig) -> Engine:
        for known, engine in self._loaded:
            if config.is_same(known):
                return engine
        self._loaded.append((config, config.model().load()))
        return self._loaded[-1][1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.get()
