"""The extensions of docs/extending.md, and what is said of arguments that a class does not take."""

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import ScriptedEngine
from typer.testing import CliRunner

from bestofn import BestOfN
from bestofn.cli import app
from bestofn.engines.base import load_engine
from bestofn.engines.model_files import load_classifier
from bestofn.errors import ConfigError
from bestofn.prompts import as_prompt
from bestofn.rewards import load_reward
from bestofn.store import pool

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
*PIECES, USE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"^bestofn (.*)$", PAGE, re.MULTILINE)
(RECIPE,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
PROMPTS = [{"prompt": "Heads or tails?", "side": "tails"}, {"prompt": "Again?", "side": "heads"}]


@pytest.fixture(autouse=True)
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "mine.py").write_text("\n\n".join(PIECES))
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PROMPTS))
    (tmp_path / "mine.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("mine", None)


def run(command: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, shlex.split(command))
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.output


def test_on_the_command_line(mine: Path) -> None:
    for command in COMMANDS:
        run(command)
    rows = [json.loads(line) for line in (mine / "selected.jsonl").read_text().splitlines()]
    assert [row["response"] for row in rows] == ["tails, of course"] * 2
    for row, side in zip(pool.read(mine / "pool.jsonl"), ("tails", "heads"), strict=True):
        for candidate in row.candidates:
            assert candidate.scores["gold"].value == candidate.text.startswith(side)
            assert candidate.scores["brevity"].value == (0 if candidate.text == "heads" else -2)
    assert "all these scores are there already" in run(COMMANDS[-1])


def test_in_a_recipe(mine: Path) -> None:
    run("run mine.yaml")
    (file,) = (mine / "runs" / "mine").glob("pool*.jsonl")
    texts = {candidate.text for row in pool.read(file) for candidate in row.candidates}
    assert texts == {"heads", "tails, of course"}
    for row in pool.read(file):
        assert all(candidate.scores.keys() == {"short", "gold"} for candidate in row.candidates)


def test_in_python(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(mine)
    names: dict[str, Any] = {}
    exec(USE, names)
    prompt = as_prompt("Heads or tails?", columns={"side": "tails"})
    selected = {k: v.select(prompt) for k, v in names.items() if isinstance(v, BestOfN)}
    assert {k: (chosen.text, chosen.reward) for k, chosen in selected.items()} == {
        "from_coin": ("heads", "brevity"),
        "from_sides": ("tails, of course", "gold"),
        "by_name": ("tails, of course", "brevity"),
        "also_by_name": ("heads", "brevity"),
    }


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("ask x --engine mime:Coin", "no engine 'mime:Coin': there is no module 'mime'"),
        ("ask x --engine mine:Dice", "no engine 'mine:Dice': the module 'mine' has no 'Dice'"),
        ("ask x --engine mine:Coin --engine-arg x=1", "engine 'mine:Coin' does not take these"),
        ("ask x --engine mine:sides --engine-arg x=1", "'mine:sides' is no class, so it takes no"),
        ("ask x --engine mine:sides", "'mine:sides' is no bestofn.engines.Engine; a generator"),
        ("ask x --engine mine:sides --reward first --seed 1", "seed does nothing with the generat"),
        ("ask x --engine mine:PROMPTS", "the module 'mine' has no 'PROMPTS'"),
        ("ask x --engine tiny --reward mine:is_side", "'mine:is_side' is no reward: it needs"),
        ("ask x --reward mine:Brevity --reward-option wrds=3", "did you mean 'words'?"),
    ],
)
def test_what_is_wrong_is_one_sentence(command: str, sentence: str) -> None:
    assert sentence in run(command, code=2)


def test_a_reward_may_be_an_object(mine: Path) -> None:
    (mine / "mine.py").write_text("\n\n".join([*PIECES, "short = Brevity(words=3)"]))
    assert load_reward("mine:short", name="three").name == "three"
    with pytest.raises(ValueError, match="is no class, so it takes no options"):
        load_reward("mine:short", words=2)


# --- arguments ------------------------------------------------------------------------------------


class Broken:
    """Its bug has nothing to do with its arguments."""

    pointwise = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        raise TypeError("a bug inside")


@pytest.mark.parametrize(
    ("place", "load"),
    [
        ("engines.hf.TransformersEngine", lambda: load_engine("hf:model", dtype="auto")),
        ("rewards.baselines.Longest", lambda: load_reward("longest")),
    ],
)
def test_an_error_inside_stays_what_it_is(
    place: str, load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"bestofn.{place}", Broken)
    with pytest.raises(TypeError, match=r"^a bug inside$"):
        load()


@pytest.mark.parametrize(
    ("load", "sentence"),
    [
        (
            lambda: load_engine("openai:http://localhost/v1#model", patience=3),
            "engine 'openai:http://localhost/v1#model' does not take these arguments: "
            "got an unexpected keyword argument 'patience'",
        ),
        (
            lambda: load_engine("tiny", max_rows="many"),
            "engine 'tiny': max_rows must be int, not 'many'",
        ),
        (
            lambda: load_reward("flip", engine=ScriptedEngine(), samples="two"),
            "the reward 'flip': samples must be int, not 'two'",
        ),
        (
            lambda: load_reward("flip", engine=ScriptedEngine(), target="x"),
            "target must be 'user' or 'system', not 'x'",
        ),
        (
            lambda: load_classifier("model", "transformers", batch_size="x"),
            "the backend 'transformers': batch_size must be int, not 'x'",
        ),
    ],
)
def test_what_a_class_does_not_take_is_one_sentence(load: Any, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load()
    assert str(caught.value) == sentence


def test_a_value_that_may_be_a_secret_is_not_repeated() -> None:
    with pytest.raises(ConfigError, match=r"api_key must be str") as raised:
        load_engine("openai:http://localhost/v1#model", api_key=123456789)
    assert "123456789" not in str(raised.value)
    with pytest.raises(ConfigError) as raised:
        load_engine("openai:http://me:secretpw@host:80a/v1#model")
    assert "secretpw" not in str(raised.value)
