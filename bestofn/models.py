"""The models of a run, each loaded once."""

from typing import Self

from bestofn.config import EngineConfig
from bestofn.engines.base import Engine


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
