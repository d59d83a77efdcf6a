"""Attacks on the border: each is refused with its status, and the next request is answered."""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fakes import ScriptedEngine, wait_until
from served import ASKED, JSON, Served, served

from bestofn.config.keys import KeyConfig
from bestofn.serve import border

KEY, OTHER = "sk-the-first-key", "sk-the-second-key"
CHAT = {"model": "model", "messages": ASKED}
LET_IN = JSON | {"authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    keys = [KeyConfig(key=KEY, name="ann"), KeyConfig(key=OTHER, name="bob", max_n=2)]
    with served(keys=keys, max_body=100_000) as found:
        yield found


def raw(server: Served, data: bytes, *, wait: float = 10.0) -> bytes:
    """What the server answers to bytes, until it closes the connection or is silent."""
    with socket.create_connection(server.address, timeout=wait) as connection:
        received = b""
        try:
            connection.sendall(data)
            while piece := connection.recv(65536):
                received += piece
        except (TimeoutError, ConnectionError):
            pass
        return received


def request(body: bytes, *headers: str, path: str = "/v1/chat/completions") -> bytes:
    own = [f"content-length: {len(body)}", "content-type: application/json", "connection: close"]
    if not any(header.lower().startswith("host") for header in headers):
        own.append("host: 127.0.0.1")
    if not any(header.lower().startswith("authorization") for header in headers):
        own.append(f"authorization: Bearer {KEY}")
    head = "\r\n".join([f"POST {path} HTTP/1.1", *own, *headers])
    return head.encode("latin-1") + b"\r\n\r\n" + body


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def with_fields(**fields: Any) -> bytes:
    return json.dumps(CHAT | fields).encode()


GOOD = json.dumps(CHAT).encode()
DEEP = b'{"model": "model", "messages": ' + b"[" * 40_000 + b"]" * 40_000 + b"}"
ATTACKS: dict[str, tuple[bytes, int]] = {
    "no key": (request(GOOD, "authorization:"), 401),
    "wrong key": (request(GOOD, "authorization: Bearer sk-the-wrong-key"), 401),
    "half a key": (request(GOOD, f"authorization: Bearer {KEY[:-1]}"), 401),
    "key in another scheme": (request(GOOD, f"authorization: Basic {KEY}"), 401),
    "two keys": (
        request(GOOD, "authorization: Bearer wrong", f"authorization: Bearer {KEY}"),
        401,
    ),
    "key in the path": (
        request(GOOD, "authorization:", path=f"/v1/chat/completions?api_key={KEY}"),
        401,
    ),
    "huge body": (request(b'{"model": "' + b"x" * 200_000 + b'"}'), 413),
    "huge body in chunks": (
        request(b"").replace(b"content-length: 0", b"transfer-encoding: chunked")
        + b"8000\r\n"
        + b"x" * 0x8000
        + b"\r\n"
        + b"8000\r\n"
        + b"x" * 0x8000
        + b"\r\n"
        + b"8000\r\n"
        + b"x" * 0x8000
        + b"\r\n"
        + b"8000\r\n"
        + b"x" * 0x8000
        + b"\r\n0\r\n\r\n",
        413,
    ),
    "deep JSON": (request(DEEP), 400),
    "not JSON": (request(b"{"), 400),
    "not UTF-8": (request(b'{"model": "\xff\xfe"}'), 400),
    "a list": (request(b"[]"), 400),
    "another type": (request(GOOD).replace(b"application/json", b"text/plain"), 415),
    "n of a thousand million": (request(with_fields(bestofn={"n": 10**9})), 400),
    "a number of 5,000 digits": (request(b'{"n": ' + b"9" * 5000 + b"}"), 400),
    "negative limits": (request(with_fields(max_tokens=-1, n=-5)), 400),
    "not a number": (request(GOOD[:-1] + b', "temperature": NaN}'), 400),
    "a header of 3 MB": (request(GOOD, "x-long: " + "x" * 3_000_000), 400),
    "two lengths": (request(GOOD, "content-length: 3"), 400),
    "a line break in a header": (request(GOOD, "x-one: a\r\n b\x00c"), 400),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 100 + b"\r\n\r\n", 400),
    "up the path": (request(GOOD, path="/v1/../../etc/passwd"), 404),
    "up the path, encoded": (request(GOOD, path="/v1/%2e%2e/%2e%2e/etc/passwd%00"), 404),
    "two slashes": (request(GOOD, path="//v1/chat/completions"), 404),
    "another method": (request(GOOD).replace(b"POST", b"DELETE", 1), 405),
    "a schema from elsewhere": (
        request(
            with_fields(
                response_format={
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"$ref": "http://127.0.0.1:1/x"}},
                }
            )
        ),
        400,
    ),
    "a schema that doubles": (
        request(
            with_fields(
                response_format={
                    "type": "json_schema",
                    "json_schema": {
                        "name": "x",
                        "schema": {
                            "$ref": "#/$defs/a0",
                            "$defs": {
                                f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2}
                                for i in range(30)
                            },
                        },
                    },
                }
            )
        ),
        400,
    ),
    "many tools": (
        request(
            with_fields(
                tools=[{"type": "function", "function": {"name": f"f{i}"}} for i in range(1500)]
            )
        ),
        400,
    ),
    "a schema that is a knot": (
        request(
            with_fields(
                tools=[
                    {
                        "type": "function",
                        "function": {"name": "f", "parameters": {"allOf": [{"$ref": "#/nowhere"}]}},
                    }
                ]
            )
        ),
        400,
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_is_refused_and_the_next_request_is_answered(server: Served, name: str) -> None:
    data, expected = ATTACKS[name]
    answer = raw(server, data)
    assert status(answer) == expected, answer[:300]
    assert KEY.encode() not in answer
    assert server.chat(LET_IN).status == 200


def test_slow_loris(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers and bodies that come drop by drop end with 408."""
    monkeypatch.setattr(border, "HEADER_SECONDS", 0.3)
    monkeypatch.setattr(border, "BODY_SECONDS", 0.3)
    slow = [b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n", request(GOOD)[:-20]]
    for data in slow:
        with socket.create_connection(server.address, timeout=20) as connection:
            received = b""
            with pytest.MonkeyPatch.context():
                connection.sendall(data)
                connection.settimeout(0.05)
                deadline = time.monotonic() + 20
                while not received.startswith(b"HTTP/1.1 408"):
                    assert time.monotonic() < deadline
                    try:
                        received += connection.recv(1000)
                        connection.sendall(b"x")
                    except TimeoutError:
                        continue
                    except ConnectionError:
                        break
        assert received.startswith(b"HTTP/1.1 408")
    assert server.chat(LET_IN).status == 200


def test_a_reader_that_takes_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(border, "STALLED_SECONDS", 0.3)
    with served(ScriptedEngine("word " * 2_000_000)) as server:
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(server.address)
            connection.sendall(request(GOOD, "authorization:"))
            connected = lambda: server.metric("bestofn_requests_total") >= 0  # noqa: E731
            wait_until(connected)
            wait_until(lambda: _is_closed(connection))
        assert server.get("/health").status == 200


def _is_closed(connection: socket.socket) -> bool:
    """Whether the peer has reset the connection, without reading from it."""
    try:
        connection.send(b"x")
    except OSError:
        return True
    return False


def test_limits_of_a_key(server: Served) -> None:
    bob = JSON | {"authorization": f"Bearer {OTHER}"}
    assert server.chat(bob, bestofn={"n": 2}).status == 200
    refused = server.chat(bob, bestofn={"n": 3})
    assert (refused.status, refused.body["error"]["param"]) == (400, "bestofn.n")
    assert server.chat(LET_IN, bestofn={"n": 3}).status == 200


def test_probes_need_no_key_and_metrics_do(server: Served) -> None:
    assert server.get("/health").status == 200
    assert server.get("/ready").body == {"status": "ready", "model": "model"}
    assert server.get("/metrics").status == 401
    assert server.get("/v1/models").status == 401
    assert server.get("/metrics", authorization=f"Bearer {KEY}").status == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "[::1", ""])
def test_without_keys_only_names_of_this_machine_are_answered(host: str) -> None:
    with served() as server:
        answer = raw(server, request(GOOD, f"host: {host}", "authorization:"))
        assert status(answer) == 403
        for good in ("localhost:8000", "127.0.0.1", "[::1]:80"):
            answer = raw(server, request(GOOD, f"host: {good}", "authorization:"))
            assert status(answer) == 200


def test_a_full_queue_says_when_to_come_again() -> None:
    engine = ScriptedEngine("answer 1", delay=lambda _: 0.4)
    with served(engine, max_running=1, max_waiting=1) as server:
        answers = _at_once(lambda: server.chat(), 4)
        assert sorted(answer.status for answer in answers) == [200, 200, 429, 429]
        (busy, _) = [answer for answer in answers if answer.status == 429]
        assert int(busy.headers["retry-after"]) >= 1
        assert busy.body["error"]["code"] == "queue_full"
        assert server.chat().status == 200


def test_requests_of_a_key_are_counted() -> None:
    engine = ScriptedEngine("answer 1", delay=lambda _: 0.4)
    keys = [KeyConfig(key=KEY, max_requests=1), KeyConfig(key=OTHER)]
    with served(engine, keys=keys) as server:
        answers = _at_once(lambda: server.chat(LET_IN), 2)
        assert sorted(answer.status for answer in answers) == [200, 429]
        bob = JSON | {"authorization": f"Bearer {OTHER}"}
        assert {answer.status for answer in _at_once(lambda: server.chat(bob), 3)} == {200}


def _at_once(ask: Callable[[], Any], count: int) -> list[Any]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(count) as pool:
        return [future.result() for future in [pool.submit(ask) for _ in range(count)]]


def test_logs_have_no_prompt(caplog: pytest.LogCaptureFixture) -> None:
    secret = os.urandom(8).hex()
    asked = [{"role": "user", "content": secret}]
    with caplog.at_level("INFO"), served() as server:
        server.chat(messages=asked)
        server.chat(messages=asked, temperature=-1)
        server.chat(messages=[{"role": secret, "content": secret}])
        server.get(f"/{secret}%0aforged")
    assert "POST '/v1/chat/completions' 200" in caplog.text
    lines = caplog.text.splitlines()
    assert not [line for line in lines if secret in line and "GET" not in line]
    assert not [line for line in lines if line.startswith("forged")]
    with caplog.at_level("INFO"), served(log_prompts=True) as server:
        server.chat(messages=asked)
    assert f"{secret!r}" in caplog.text


def test_a_second_request_does_not_help_a_reader_that_takes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(border, "STALLED_SECONDS", 0.3)
    with served(ScriptedEngine("word " * 2_000_000)) as server, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(server.address)
        again = request(GOOD, "authorization:").replace(b"connection: close\r\n", b"")
        connection.sendall(again + again)
        wait_until(lambda: _is_closed(connection))


def test_a_slow_reader_that_takes_something_gets_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(border, "STALLED_SECONDS", 0.4)
    with served(ScriptedEngine("word " * 2_000_000)) as server, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.connect(server.address)
        connection.sendall(request(GOOD, "authorization:"))
        received = 0
        while piece := connection.recv(1 << 20):
            received += len(piece)
            time.sleep(0.02)
        assert received > 10_000_000


def test_a_client_that_leaves_while_it_sends_is_no_fault(
    server: Served, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection(server.address) as connection:
        connection.sendall(request(GOOD)[:-20])
    count = 'bestofn_requests_total{path="/v1/chat/completions",status="499"}'
    wait_until(lambda: server.metric(count, authorization=f"Bearer {KEY}") >= 1)
    assert "Traceback" not in caplog.text
