"""A file of lines that survives whatever ends its writer."""

import json
import resource
import subprocess
import sys
from io import FileIO
from pathlib import Path
from socket import AF_UNIX, socket

import pytest

from bestofn.errors import BestOfNError, ConfigError
from bestofn.store import journal
from bestofn.store.journal import open_journal, write_atomically

SETTINGS = {"m": 4, "seed": None, "stop": ["x"]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "pool.jsonl"


def write(path: Path, *lines: str) -> int:
    """Appends the lines and returns how many were there."""
    with open_journal(path, SETTINGS) as file:
        for line in lines:
            file.append(line)
        return file.lines


def test_lines_are_appended_at_once_and_counted(path: Path) -> None:
    with open_journal(path, SETTINGS) as file:
        file.append("one")
        assert path.read_bytes() == b"one\n"
    assert write(path, "zwei ü") == 1
    assert path.read_text("utf-8") == "one\nzwei ü\n"


@pytest.mark.parametrize("torn", [b"tw", b"two", b'{"id": "\xc3'])
@pytest.mark.parametrize("before", ["", "one\n"])
def test_a_torn_last_line_is_removed(path: Path, torn: bytes, before: str) -> None:
    write(path, *before.split())
    with path.open("ab") as file:
        file.write(torn)
    assert write(path, "two") == len(before.split())
    assert path.read_text() == before + "two\n"


def test_an_interrupt_leaves_what_was_written_and_says_so(path: Path) -> None:
    with pytest.raises(KeyboardInterrupt) as caught, open_journal(path, SETTINGS) as file:
        file.append("one")
        raise KeyboardInterrupt
    assert caught.value.__notes__ == [f"{path} keeps what is in it; rerun the command to resume"]
    assert write(path) == 1


def test_lines_are_taken_out_only_for_the_same_settings(path: Path) -> None:
    write(path, "one", "two", "three")
    with pytest.raises(ConfigError), open_journal(path, {"m": 5}, keep=lambda _: False):
        pass
    with open_journal(path, SETTINGS, keep=lambda line: line != b"two\n") as file:
        assert file.lines == 2
        file.append("two")
    assert path.read_text() == "one\nthree\ntwo\n"


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({**SETTINGS, "m": 8}, "(m was 4 and is 8)"),
        ({**SETTINGS, "stop": []}, '(stop was ["x"] and is [])'),
        ({**SETTINGS, "m": 8, "seed": 1}, "(m was 4 and is 8, seed was null and is 1)"),
        ({**SETTINGS, "top_k": 5}, "(top_k was null and is 5)"),
        ({"seed": None, "stop": ("x",)}, "(m was 4 and is null)"),
    ],
)
def test_other_settings_are_refused_and_named(
    path: Path, settings: dict[str, object], sentence: str
) -> None:
    write(path, "one")
    with pytest.raises(ConfigError, match="write to another file") as caught:
        open_journal(path, settings).__enter__()
    assert sentence in str(caught.value)
    assert write(path) == 1


def test_an_empty_file_takes_other_settings(path: Path) -> None:
    write(path)
    with open_journal(path, {"m": 8}) as file:
        file.append("one")
    assert json.loads(journal.manifest(path).read_text()) == {"m": 8}


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_file_without_its_settings_is_refused(path: Path, content: str | None) -> None:
    write(path, "one")
    journal.manifest(path).unlink()
    if content is not None:
        journal.manifest(path).write_text(content)
    with pytest.raises(ConfigError, match=r"does not say how .*pool\.jsonl was made"):
        write(path)
    assert path.read_text() == "one\n"


# --- one writer, and disks that are full ----------------------------------------------------------

OTHER = """
import resource, sys
from pathlib import Path
from bestofn.errors import BestOfNError
from bestofn.store.journal import open_journal
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with open_journal(Path(sys.argv[1]), {}) as file:
        while True:
            file.append("x" * 299)
except BestOfNError as error:
    print(error)
"""


def other_writer(path: Path) -> str:
    """What a process says that may write 1,000 bytes."""
    command = [sys.executable, "-c", OTHER, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_second_writer_is_refused_while_the_first_writes(path: Path) -> None:
    with open_journal(path, SETTINGS) as first:
        first.append("one")
        assert "another run is writing" in other_writer(path)
        with pytest.raises(ConfigError, match="another run is writing"):
            write(path)
        first.append("two")
    assert write(path) == 2


class FullDisk(FileIO):
    """Takes 20 bytes in all."""

    def write(self, data: bytes) -> int:  # type: ignore[override]
        return super().write(data[: max(0, 20 - self.tell())])


def test_a_full_disk_leaves_whole_lines(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "FileIO", FullDisk)
    sentence = "cannot write .*: No space left on device; what was written before is whole"
    with pytest.raises(BestOfNError, match=sentence):
        write(path, "x" * 9, "y" * 9, "z" * 9)
    assert path.read_text() == "x" * 9 + "\n" + "y" * 9 + "\n"
    monkeypatch.undo()
    assert write(path, "z" * 9) == 2


def test_a_limit_of_the_system_leaves_whole_lines(path: Path) -> None:
    said = other_writer(path)
    assert said.startswith(f"cannot write {path}")
    assert said.count("\n") == 1
    assert path.read_bytes() == (b"x" * 299 + b"\n") * 3


def test_what_is_no_place_for_a_file_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with socket(AF_UNIX) as place:
        place.bind(str(tmp_path / "socket"))
        for name in (".", "socket", "file/pool.jsonl"):
            with pytest.raises(BestOfNError, match="cannot write"):
                write(tmp_path / name, "one")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "socket"]


# --- files that are there whole or not at all -----------------------------------------------------


def test_a_file_is_replaced_whole_or_stays(tmp_path: Path) -> None:
    place = tmp_path / "new" / "curve.json"
    write_atomically(place, "one")
    write_atomically(place, "x\ud83d")
    assert [file.name for file in place.parent.iterdir()] == ["curve.json"]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(BestOfNError, match="cannot write"):
            write_atomically(place, "n" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert place.read_text() == "x?"
