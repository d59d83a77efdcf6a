"""The embedded engine: any causal language model of transformers, nothing to start."""

from bestofn.engines.transformers.engine import TransformersEngine

__all__ = ["TransformersEngine"]
