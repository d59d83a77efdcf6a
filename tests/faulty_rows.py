"""Rows of JSON that cannot be used, and what is said of them."""

import json
from pathlib import Path
from typing import Any

ROWS = 1000
COLUMNS = {"id_column": "id", "system_column": "system"}
USER = {"role": "user", "content": "Hi."}


def row(**changes: Any) -> bytes:
    return json.dumps({"prompt": "Count to 3.", "id": "a", "system": None} | changes).encode()


def chat(*turns: Any) -> bytes:
    return row(prompt=list(turns))


JSON_FAULTS = {
    "not JSON": (b'{"prompt": oops}', "not JSON: Expecting value: column 12 (char 11)"),
    "cut off": (row()[:-9], "not JSON: "),
    "not UTF-8": (row().replace(b"Count", b"C\xe9"), "not JSON: 'utf-8' codec can't decode"),
    "too deep": (b'{"prompt": ' + b"[" * 50_000, "not JSON: maximum recursion depth"),
    "a list": (b"[1, 2]", "a row is a JSON object, not list"),
    "no prompt": (b'{"id": 1, "text": "x"}', "no column 'prompt'; the row has 'id', 'text'"),
    "no columns": (b"{}", "no column 'prompt'; the row has none"),
    "no id": (b'{"prompt": "x", "system": ""}', "no column 'id'; the row has 'prompt', 'system'"),
    "no system": (b'{"prompt": "x", "id": 1}', "no column 'system'; the row has 'prompt', 'id'"),
    "prompt null": (row(prompt=None), "column 'prompt': a prompt is a string or a list"),
    "prompt a mapping": (row(prompt=USER), "a list of chat messages, not dict"),
    "prompt blank": (row(prompt=" \n\t"), "column 'prompt': the prompt is empty"),
    "unknown role": (chat({"role": "robot", "content": "x"}), "not 'robot'"),
    "no content": (chat({"role": "user"}), "needs a `role` and a text `content`"),
    "message deep": (chat([[[]] * 1000]), "a text `content`, not [[["),
    "answered": (chat(USER, {"role": "assistant", "content": "x"}), "--drop-last-assistant"),
    "no messages": (chat(), "the last message of a prompt must be a user message"),
    "id null": (row(id=None), "column 'id': an id is a text or an integer, not null"),
    "id a fraction": (row(id=1.5), "an id is a text or an integer, not float"),
    "id a truth": (row(id=True), "an id is a text or an integer, not bool"),
    "id empty": (row(id=""), "an id is a text or an integer, not empty"),
    "system a number": (row(system=3), "column 'system': a system prompt is text, not int"),
    "extra deep": (
        row(extra=0).replace(b": 0", b": " + b"[" * 300 + b"]" * 300),
        "a column is nested more than 100 levels deep",
    ),
}
LAST = (b'{"prompt": "Count to', "not JSON: Unterminated string")


def write_faulty(path: Path) -> dict[int, str]:
    """A file of 1,000 lines, 60 of which cannot be used: what is said of them, by line."""
    kinds = list(JSON_FAULTS.values())
    bad = {n * 16: kinds[n % len(kinds)] for n in range(1, 60)}
    bad[ROWS] = LAST
    lines = [bad[n][0] if n in bad else row(id=n) for n in range(1, ROWS + 1)]
    path.write_bytes(b"\n".join(lines))
    return {line: sentence for line, (_, sentence) in bad.items()}
