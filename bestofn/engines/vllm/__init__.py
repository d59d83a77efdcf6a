"""The production engine: generation and backward scoring on one vLLM engine."""

from bestofn.engines.vllm import environment as environment  # first: vLLM reads it at import
from bestofn.engines.vllm.engine import VLLMEngine

__all__ = ["VLLMEngine"]
