"""Engines: one protocol over everything that generates text and scores it."""

from bestofn.engines.base import (
    Completion,
    Engine,
    SamplingParams,
    TokenScores,
    load_engine,
)

__all__ = ["Completion", "Engine", "SamplingParams", "TokenScores", "load_engine"]
