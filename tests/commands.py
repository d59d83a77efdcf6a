"""Commands as their user gives them, in this process."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from bestofn.cli import app

TINY = ["--engine", "tiny"]
SMALL = [*TINY, "--max-tokens", 8]


def bestofn(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def done(*arguments: object) -> Result:
    result = bestofn(*arguments)
    assert result.exit_code == 0, result.output
    return result


def refused(*arguments: object, code: int = 2) -> str:
    """The one sentence of an error, after which nothing is shown."""
    result = bestofn(*arguments)
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    return last


def rows_of(path: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]


def lines(path: str | Path, rows: Iterable[object]) -> Path:
    """A file of these rows."""
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Path(path)
