"""The tiny world's own rules as a verifier."""

from bestofn.prompts import user_message
from bestofn.tiny import verify
from bestofn.types import Prompt
from bestofn.verifiers.base import Verifier


class Tiny(Verifier):
    """Whether the response is right by the exact rules of the tiny world; it reads no column."""

    def __call__(self, prompt: Prompt, response: str) -> bool:
        """The verdict.

        Raises:
            ConfigError: the last user message is no instruction of the tiny world.
        """
        return verify(user_message(prompt), response)
