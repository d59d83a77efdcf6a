"""`bestofn serve` on the command line: what it refuses before it starts, and its keys."""

import socket
from pathlib import Path

import pytest
from commands import refused

from bestofn.config.keys import Clients, KeyConfig, Limits, read_keys
from bestofn.errors import ConfigError


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.com"])
def test_others_are_let_in_with_keys_alone(host: str) -> None:
    assert "--api-key-file" in refused("serve", "--engine", "tiny", "--host", host)


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = refused("serve", "--engine", "tiny", "--port", port)
    assert f"cannot listen on 127.0.0.1:{port}" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "--engine is missing"),
        (["--engine", "tiny", "-n", "0"], "'n' is wrong"),
        (["--engine", "tiny", "--reward", "nonsense"], "no reward 'nonsense'"),
        (["--engine", "tiny", "--also", "nonsense"], "no reward 'nonsense'"),
        (["--engine", "tiny", "--also", "self-certainty"], "--confidence"),
        (["--engine", "tiny", "--max-n", "0"], "'max_n' is wrong"),
        (["--engine", "tiny", "--host", "0.0.0.0", "--api-key-file", "none"], "cannot be read"),
        (["--engine", "hf:/nonsense"], "nonsense"),
    ],
)
def test_wrong_options_are_one_sentence(options: list[str], said: str) -> None:
    assert said in refused("serve", "--port", "0", *options)


def keys(folder: Path, text: str) -> list[KeyConfig]:
    path = folder / "keys"
    path.write_text(text)
    return read_keys(str(path))


def test_keys_in_lines(tmp_path: Path) -> None:
    found = keys(tmp_path, "sk-the-first\n12345678\n@strange-one\n")
    assert [key.key for key in found] == ["sk-the-first", "12345678", "@strange-one"]
    assert [key.name for key in found] == ["key 1", "key 2", "key 3"]


def test_keys_with_limits_of_their_own(tmp_path: Path) -> None:
    text = "- sk-the-first\n- key: sk-the-second\n  name: ann\n  max_n: 2\n  max_body: 10\n"
    clients = Clients(keys(tmp_path, text), Limits(max_n=8))
    first, second = (clients.with_key(key) for key in (b"sk-the-first", b"sk-the-second"))
    assert first is not None
    assert second is not None
    assert (first.limits.max_n, second.limits.max_n) == (8, 2)
    assert (second.name, second.limits.max_body) == ("ann", 10)
    assert second.limits.max_answer_tokens == first.limits.max_answer_tokens
    for wrong in (b"", b"sk-the-firs", b"sk-the-first ", b"\xff"):
        assert clients.with_key(wrong) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "needs a key"),
        ("short", "at least 8"),
        ("- key: sk-the-first\n  max_n: 0\n", "key 1"),
        ("- key: sk-the-first\n  nonsense: 0\n", "nonsense"),
        ("- sk-the-first\n- sk-the-first\n", "twice"),
        ("- key: [sk-the-first\n", "cannot be read"),
        ("{a: b}", "needs a key"),
    ],
)
def test_key_files_that_are_wrong(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        keys(tmp_path, text)
    assert "sk-the" not in str(caught.value)


def test_a_key_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_keys(str(tmp_path / "keys"))
