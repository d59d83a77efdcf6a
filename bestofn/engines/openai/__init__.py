"""Models behind an OpenAI-compatible server: vLLM's, SGLang's, a hosted one."""

from bestofn.errors import ConfigError

try:
    import openai  # noqa: F401
except ImportError as error:
    raise ConfigError(
        "engines of the form 'openai:URL#MODEL' need the openai package: "
        "pip install 'bestofn[openai]'"
    ) from error

from bestofn.engines.openai.engine import OpenAIEngine

__all__ = ["OpenAIEngine"]
