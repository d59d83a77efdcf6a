"""Secrets are neither stored nor shown, and nothing else is taken for one."""

import pytest

from bestofn.redaction import is_secret, redacted, without_secrets

KEPT = ("max_tokens", "keep_tokens", "stop_token_ids", "pad_token", "id_column", "prompt_column")
MORE = (
    *("aws_session_token", "openai_token", "ANTHROPIC_AUTH_TOKEN", "azure_ad_token", "passphrase"),
    *("subscription_key", "signing_key", "ssh_key", "X-Key", "pwd"),
)
SECRET = ("api_key", "API-Key", "hf_token", "token", "use_auth_token", "headers", "extra_headers")


@pytest.mark.parametrize("name", [*SECRET, *MORE, "password", "default_headers", "Authorization"])
def test_options_that_hold_a_secret(name: str) -> None:
    assert is_secret(name)
    assert without_secrets({"a": [{name: "x", "n": 1}]}) == {"a": [{"n": 1}]}


@pytest.mark.parametrize("name", [*KEPT, "tokenizer", "lora", "author", "n"])
def test_options_that_do_not(name: str) -> None:
    assert without_secrets({name: 1}) == {name: 1}


def test_urls_lose_their_passwords() -> None:
    assert without_secrets("openai:https://me:pass@host/v1#m") == "openai:https://host/v1#m"
    assert without_secrets("socks5://me:pass@host") == "socks5://host"
    assert without_secrets("https://host/v1?api_key=abc&n=1") == "https://host/v1?api_key=(key)&n=1"


def test_a_short_key_is_not_found_inside_words() -> None:
    said = "max_tokens must be positive, said token of kennel; key sk-abcdef is wrong"
    assert redacted(said, ["ken", "sk-abcdef", ""]) == said.replace("sk-abcdef", "(key)")
    assert redacted("max_tokens is not token", ["token"]) == "max_tokens is not (key)"
