"""What can go wrong, each error one sentence that names the thing and the way out."""


class BestOfNError(Exception):
    """Base of every error that bestofn raises on purpose."""


class ConfigError(BestOfNError, ValueError):
    """An option, a file or an argument is not usable as given."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field  # which one is wrong, where what was given has fields


class EngineError(BestOfNError, RuntimeError):
    """An engine cannot be loaded, or cannot do what was asked of it."""


class OtherProcessError(EngineError):
    """Something works only in the process that made it, and this is one that was forked from it."""


class RunFailedError(EngineError):
    """A command ran, but so much of it failed that there is no result; what it wrote is kept."""


class ContextLengthError(EngineError):
    """One request does not fit into the model's context; other requests are not affected."""

    SAYS = "but the model's context holds"

    def __init__(self, length: int, limit: int, prompt_tokens: int) -> None:
        super().__init__(
            f"the prompt needs {length} tokens {self.SAYS} {limit}; "
            "shorten it or load a model with a longer context"
        )
        self.length = length  # tokens that the request needs at least
        self.limit = limit  # tokens that the context holds
        self.prompt_tokens = prompt_tokens  # without a continuation to be scored
