"""What `Regex` asks of `re`, in a process of its own: a pattern can backtrack for ever."""

import re

from bestofn.errors import ConfigError


def found(pattern: str, response: str) -> bool:
    """Whether the pattern is found anywhere in the response.

    Raises:
        ConfigError: it is no pattern.
    """
    try:
        return re.search(pattern, response) is not None
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(str(error)) from error
