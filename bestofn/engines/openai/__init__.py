"""Models behind an OpenAI-compatible server: vLLM's, SGLang's, a hosted one."""

from bestofn.engines.openai.engine import OpenAIEngine

__all__ = ["OpenAIEngine"]
