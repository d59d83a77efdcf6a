"""The models of a run, and how its progress is shown."""

from collections.abc import Callable, Iterator
from typing import Self

from bestofn.config import EngineConfig
from bestofn.engines.base import Engine
from bestofn.types import Pool

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
