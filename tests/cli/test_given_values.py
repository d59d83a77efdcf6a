"""Values as a shell gives them: newlines, options of rewards and of the model that scores."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from bestofn.cli import app
from bestofn.cli.options import unescaped
from bestofn.engines.base import load_engine
from bestofn.store import pool
from bestofn.store.pool import read_origins

SMALL = ["--engine", "tiny", "--max-tokens", 8]


def bestofn(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def done(*arguments: object) -> Result:
    result = bestofn(*arguments)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"q": f"Name {n} fruits.", "prompt": f"Name {n} fruits."} for n in (2, 3)]
    Path("p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


# --- newlines -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (r"\n", "\n"),
        (r"\n\nQ:", "\n\nQ:"),
        (r"a\\nb", r"a\nb"),
        (r"\\nabla", r"\nabla"),
        (r"in \boxed{} and \times", r"in \boxed{} and \times"),
        (r"a \\ b\t", r"a \\ b\t"),
        ("a\nb", "a\nb"),
        ("", ""),
    ],
)
def test_a_newline_is_written_as_shells_leave_it(given: str, text: str) -> None:
    assert unescaped(given) == text


@pytest.mark.parametrize("command", [["sample", "-m"], ["select", "-n"]])
def test_newlines_in_the_texts_of_a_command(command: list[object]) -> None:
    texts = [
        "--template",
        r"Q: {q}\nA:",
        "--system",
        r"One.\nTwo.",
        "--stop",
        r"\n",
        "--stop",
        "x,",
    ]
    name, number = command
    done(name, "p.jsonl", "-o", "out.jsonl", number, 1, *SMALL, *texts)
    rows = map(json.loads, Path("out.jsonl").read_text().splitlines())
    (row,) = (row for row in rows if "2 fruits" in row["prompt"][-1]["content"])
    assert [turn["content"] for turn in row["prompt"]] == ["One.\nTwo.", "Q: Name 2 fruits.\nA:"]
    settings = json.loads(Path("out.jsonl.run/manifest.json").read_text())
    assert settings["stop"] == ["\n", "x,"]


def test_newlines_in_the_system_prompt_of_ask() -> None:
    told = done("ask", "Name 4 fruits.", "-n", 1, "--system", r"One.\nTwo.", "--json").stdout
    assert json.loads(told)["prompt"][0]["content"] == "One.\nTwo."


def test_newlines_are_for_texts_alone_and_help_says_so() -> None:
    told = done("ask", r"Say \n.", "-n", 1, "--json").stdout
    assert json.loads(told)["prompt"] == r"Say \n."
    for command in ("ask", "sample", "select", "run"):
        told = " ".join(done(command, "--help").stdout.replace("│", " ").split())
        assert told.count(r"\n in it is a newline, \\n a backslash and an n.") >= 2


# --- options of rewards ---------------------------------------------------------------------------

SAMPLES = ["--reward-option", "samples=2", "--reward-option", "temperature=1"]


def drawn(path: str = "pool.jsonl") -> str:
    done("sample", "p.jsonl", "-m", 2, "-o", path, "--seed", 0, *SMALL, "--keep-tokens")
    return path


def options_of(path: str) -> dict[str, dict[str, Any]]:
    """How the scores in a pool file were made."""
    return {name: how["options"] for name, how in read_origins(Path(path)).items()}


def test_ask_gives_options_to_the_reward() -> None:
    told = done("ask", "Name 4 fruits.", "-n", 2, "--seed", 0, *SAMPLES, "--json").stdout
    scores = [candidate.scores["flip"] for candidate in pool.loads(told).candidates]
    found = [len(score.inferred) + ("some_inferences_failed" in score.flags) for score in scores]
    assert found == [2, 2]


def test_select_takes_the_name_of_its_reward_before_an_option() -> None:
    options = ["--reward-option", "flip.samples=2", "--reward-option", "temperature=1"]
    done("select", "p.jsonl", "-n", 1, "-o", "out.jsonl", "--seed", 0, *SMALL, *options)
    for row in pool.read(Path("out.jsonl")):
        score = row.candidates[0].scores["flip"]
        assert len(score.inferred) + ("some_inferences_failed" in score.flags) == 2


def test_score_gives_options_to_each_reward_that_takes_them_or_to_one() -> None:
    path = drawn()
    rewards = ["--reward", "flip,flip-likelihood,random"]
    options = ["--reward-option", "copy_guard=strip", "--reward-option", "random.seed=3"]
    done("score", path, *rewards, *options, "--reward-option", "flip.copy_guard=off")
    assert options_of(path) == {
        "flip": {"copy_guard": "off"},
        "flip-likelihood": {"copy_guard": "strip"},
        "random": {"seed": 3},
    }


def test_options_win_over_those_of_a_recipe() -> None:
    Path("recipe.yaml").write_text(
        "output: out\n"
        "sample: {engine: tiny, prompts: p.jsonl, m: 2, max_tokens: 8}\n"
        "score:\n"
        "  reward_options: {flip.copy_guard: strip}\n"
        "  rewards:\n"
        "    - {reward: flip, options: {copy_guard: 'off', similarity: rouge_l}}\n"
        "    - {reward: flip-likelihood, options: {copy_guard: 'off'}}\n"
        "    - {reward: first, name: gold}\n"
    )
    done("run", "recipe.yaml")
    assert options_of("out/pool.jsonl")["flip"] == {"copy_guard": "strip", "similarity": "rouge_l"}
    assert options_of("out/pool.jsonl")["flip-likelihood"] == {"copy_guard": "off"}
    done("run", "out/recipe.yaml")  # the recipe as it was run is the same one
    done("run", "recipe.yaml", "-o", "more", "--reward-option", "copy_guard=flag")
    assert options_of("more/pool.jsonl")["flip"]["copy_guard"] == "flag"
    assert options_of("more/pool.jsonl")["flip-likelihood"]["copy_guard"] == "flag"


def test_rewardbench_and_audit_and_curve_take_options_of_rewards() -> None:
    bench = ["rewardbench", "--data", "tiny:1", "--engine", "tiny", "--resamples", 100]
    done(*bench, "--reward", "flip", "-o", "bench", "--reward-option", "copy_guard=off")
    assert options_of("bench/items-0.jsonl") == {"flip": {"copy_guard": "off", "seed": 0}}
    audit = ["audit", "--prompts", "tiny:1", "--engine", "tiny", "--attack", "quote", "--json"]
    result = json.loads(done(*audit, "--reward-option", "copy_guard=off").stdout)
    assert {entry["copy_guard"] for entry in result["attacks"]} == {"off"}
    path = drawn()
    cuts = ["--limits", 2, "--reward", "flip,first", "--gold", "first", "--resamples", 100]
    done("curve", path, "-o", "out", *cuts, "--reward-option", "similarity=rouge_l")
    assert options_of(path)["flip"] == {"similarity": "rouge_l"}


@pytest.mark.parametrize(
    "command",
    [
        ["ask", "x"],
        ["select", "p.jsonl", "-o", "out.jsonl", "--engine", "tiny"],
        ["score", "pool.jsonl", "--reward", "flip"],
        ["curve", "pool.jsonl", "-o", "out", "--reward", "flip", "--limits", 2],
        ["rewardbench", "--data", "tiny:1", "--reward", "flip", "--engine", "tiny", "-o", "out"],
        ["audit", "--prompts", "tiny:1", "--reward", "flip", "--engine", "tiny"],
        ["run", "recipe.yaml"],
    ],
)
@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("sample=2", "has an option 'sample'; did you mean 'samples'?"),
        ("flop.samples=2", "no reward is called 'flop'"),
        ("samples", "takes NAME=VALUE"),
    ],
)
def test_an_option_that_no_reward_takes_is_one_sentence_before_anything_is_done(
    command: list[object], option: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("recipe.yaml").write_text(
        "output: out\nsample: {engine: tiny, prompts: p.jsonl}\nscore: {rewards: [flip]}\n"
    )
    monkeypatch.setattr("bestofn.config.load_engine", lambda *_, **__: pytest.fail("loaded"))
    result = bestofn(*command, "--reward-option", option)
    assert result.exit_code == 2, result.output
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


# --- the model that scores ------------------------------------------------------------------------

THINKING = "chat_template_kwargs={enable_thinking: false}"


@pytest.fixture
def views(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The options of the views that are made of engines."""
    seen: list[dict[str, Any]] = []

    def load(spec: str, **options: Any) -> Any:
        engine = load_engine(spec, **options)
        view = engine.with_options

        def with_options(**options: Any) -> Any:
            seen.append(options)
            return view(**options)

        engine.with_options = with_options  # type: ignore[method-assign]
        return engine

    monkeypatch.setattr("bestofn.config.load_engine", load)
    return seen


@pytest.mark.parametrize(
    "command",
    [
        ["ask", "Name 4 fruits.", "-n", 1],
        ["select", "p.jsonl", "-o", "out.jsonl", "-n", 1, *SMALL],
        ["score", "pool.jsonl", "--reward", "flip"],
        ["audit", "--prompts", "p.jsonl", "--attack", "quote", "--reward", "flip", *SMALL],
        ["run", "recipe.yaml"],
    ],
)
def test_the_model_that_scores_has_options_of_its_own(
    command: list[object], views: list[dict[str, Any]]
) -> None:
    Path("recipe.yaml").write_text(
        "output: out\nsample: {engine: tiny, prompts: p.jsonl, m: 2, max_tokens: 8}\n"
        "score: {rewards: [flip, {reward: first, name: gold}]}\n"
    )
    drawn()
    done(*command, "--reward-engine-option", THINKING)
    assert views
    assert all(view == {"chat_template_kwargs": {"enable_thinking": False}} for view in views)


def test_an_option_of_the_generator_is_not_that_of_the_scorer(views: list[dict[str, Any]]) -> None:
    own = ["--engine-option", "chat_template_kwargs={a: 1}", "--reward-engine-option", THINKING]
    done("ask", "Name 4 fruits.", "-n", 1, *own)
    assert views == [
        {"chat_template_kwargs": {"a": 1}},
        {"chat_template_kwargs": {"enable_thinking": False}},
    ]


# --- what makes no sense --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--engine-option", "chat_template_kwargs=3"], "does not take the options"),
        (["--engine-option", "chat_template_kwargs=[1]"], "does not take the options"),
        (["--reward-engine-option", "chat_template_kwargs=3"], "does not take the options"),
        (["--engine-option", "lora=x"], "has no option lora"),
        (["--engine-arg", "dtype=zzz"], "cannot load model"),
    ],
)
def test_a_value_that_an_engine_cannot_take_is_one_sentence(
    options: list[object], sentence: str
) -> None:
    result = bestofn("ask", "x", "-n", 1, *options)
    assert result.exit_code == 2, result.output
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
