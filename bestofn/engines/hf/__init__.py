"""The embedded engine: any causal language model of transformers, nothing to start."""

from bestofn.engines.hf.engine import TransformersEngine

__all__ = ["TransformersEngine"]
