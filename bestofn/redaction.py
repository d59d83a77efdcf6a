"""What must neither be stored nor shown: keys, tokens, passwords and headers."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

# Names of options that hold one. "max_tokens" and "pad_token" do not.
_SECRET = re.compile(
    r"(^|_)((api|access|secret|private|auth|account|subscription|signing|encryption|ssh|x)_?key"
    r"|passwords?|passwd|passphrase|pwd|secrets?|credentials?|authorization|authentication|auth"
    r"|bearer|cookies?|headers?|proxies"
    r"|(hf|hub|auth|access|api|bearer|session|refresh|id|ad|github|gitlab|openai|security)_?token)$"
    r"|^(key|token|hf_tokens|api_?keys)$"
)
_IN_URL = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^/\s@\"'<>]+@")
_IN_QUERY = re.compile(r"(?i)([?&](?:[a-z_-]*key|[a-z_-]*token|password|secret|sig|auth)=)[^&#\s]+")
LONG = 16  # characters of a secret that is no part of a word by chance


def is_secret(name: object) -> bool:
    """Whether an option of this name holds a secret."""
    return bool(_SECRET.search(re.sub(r"[^a-z0-9]+", "_", str(name).lower())))


def without_secrets(value: Any) -> Any:
    """Settings without options that hold a secret, at any depth, and without those in URLs."""
    if isinstance(value, Mapping):
        kept = ((name, item) for name, item in value.items() if not is_secret(name))
        return {name: without_secrets(item) for name, item in kept}
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    return _without_url_secrets(value) if isinstance(value, str) else value


def _without_url_secrets(text: str) -> str:
    return _IN_QUERY.sub(r"\1(key)", _IN_URL.sub(r"\1", text))


def redacted(text: str, secrets: Iterable[str]) -> str:
    """The text with "(key)" for each secret, which a server may repeat.

    A short one counts as a whole word only: "ken" is a part of "max_tokens".
    """
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        pattern = re.escape(secret)
        if len(secret) < LONG:
            pattern = rf"(?<!\w){pattern}(?!\w)"
        text = re.sub(pattern, "(key)", text)
    return _without_url_secrets(text)
