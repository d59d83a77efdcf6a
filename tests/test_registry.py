"""What is said of arguments that a class does not take, and of an error inside one that it does."""

from typing import Any

import pytest
from fakes import ScriptedEngine
from typer.testing import CliRunner

from bestofn.cli import app
from bestofn.engines.base import load_engine
from bestofn.engines.model_files import load_classifier
from bestofn.errors import ConfigError
from bestofn.rewards.base import load_reward


class Broken:
    """Its bug has nothing to do with its arguments."""

    pointwise = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        raise TypeError("a bug inside")


@pytest.mark.parametrize(
    ("place", "load"),
    [
        ("engines.hf.TransformersEngine", lambda: load_engine("hf:model", dtype="auto")),
        ("engines.openai.OpenAIEngine", lambda: load_engine("openai:http://localhost/v1#model")),
        ("rewards.baselines.Longest", lambda: load_reward("longest")),
        (
            "engines.hf.engine.TransformersClassifier",
            lambda: load_classifier("model", "transformers"),
        ),
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


def test_the_command_line_says_so_too() -> None:
    result = CliRunner().invoke(app, ["ask", "x", "--engine-arg", "max_rows=many"])
    assert result.exit_code == 2
    assert "error: engine 'tiny': max_rows must be int, not 'many'" in result.stderr
    assert "Traceback" not in result.output


def test_an_engine_may_be_given_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Named:
        def __init__(self, model: str, *, name: str) -> None:
            self.name = name

    monkeypatch.setattr("bestofn.engines.hf.TransformersEngine", Named)
    assert load_engine("hf:model", name="mine").name == "mine"
    assert load_engine("hf:model").name == "hf:model"


def test_a_value_that_may_be_a_secret_is_not_repeated() -> None:
    with pytest.raises(ConfigError, match=r"api_key must be str") as raised:
        load_engine("openai:http://localhost/v1#model", api_key=123456789)
    assert "123456789" not in str(raised.value)
    with pytest.raises(ConfigError) as raised:
        load_engine("openai:http://me:secretpw@host:80a/v1#model")
    assert "secretpw" not in str(raised.value)
