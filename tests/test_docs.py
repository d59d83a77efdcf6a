"""The Python and the commands in docs/ run, the embedded model in the place of those named."""

import inspect
import json
import re
import runpy
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import bestofn
from bestofn.cli import app
from bestofn.engines.hf import TransformersEngine
from bestofn.evals.audit import attacks

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
EXAMPLES = [
    (page.name, code)
    for page in sorted(DOCS.glob("*.md"))
    if page.name != "extending.md"  # see test_extending.py
    for code in BLOCK.findall(page.read_text())
]


VIEWS = [example for example in EXAMPLES if "guided=" in example[1]]
"""What only vLLM can do; these examples run beside its other tests."""


@pytest.mark.parametrize(("page", "code"), [e for e in EXAMPLES if e not in VIEWS])
def test_examples_run(
    page: str,
    code: str,
    tiny: TransformersEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_example(code, tiny, tmp_path, monkeypatch)


def run_example(code: str, engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a page's code, with this engine for whatever it loads."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(attacks, "ATTACKS", {**attacks.ATTACKS})

    def stand_in(spec: str, **options: Any) -> Any:
        from vllm import AsyncEngineArgs

        from bestofn.engines.openai import OpenAIEngine

        kind = spec.partition(":")[0]
        named = {"vllm": AsyncEngineArgs, "openai": OpenAIEngine}.get(kind, TransformersEngine)
        assert set(options) <= set(inspect.signature(named).parameters)
        return engine

    monkeypatch.setattr(bestofn, "load_engine", stand_in, raising=False)
    names: dict[str, Any] = {}
    exec(code, names)
    if "best" in names:
        selection = names["best"].select("Name 4 fruits.")
        assert selection.usage.generated_tokens > 0


def commands(page: str) -> list[list[str]]:
    """The `bestofn` commands of a page, without what is a comment."""
    blocks = re.findall(r"```bash\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("bestofn ")]


def test_commands_of_the_experiments_run_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(DOCS.parent / "recipes")
    (pool,) = re.findall(r"```json\n(.*?)```", (DOCS / "experiments.md").read_text(), re.DOTALL)
    (tmp_path / "mine.jsonl").write_text(pool)
    found = commands("experiments.md")
    assert {command[0] for command in found} == {"sample", "score", "curve", "report", "run"}
    for command in found:
        # Recipes are experiments of minutes; here only their way through is of interest.
        short = ["--limit", "4", "-m", "4", "-o", "runs"] if command[0] == "run" else []
        result = CliRunner().invoke(app, [*command, *short])
        assert result.exit_code == 0, (command, result.output)
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert (tmp_path / "out" / "scaling.svg").exists()


def test_commands_of_adaptive_n_run_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```bash\n(.*?)```", (DOCS / "adaptive.md").read_text(), re.DOTALL)
    # The page's own sizes take minutes.
    for long, short in (("tiny:640", "tiny:12"), ("-m 32", "-m 10"), ("-n 320", "-n 6")):
        assert long in block
        block = block.replace(long, short)
    for line in block.splitlines():
        program, *arguments = shlex.split(line)
        if program == "bestofn":
            result = CliRunner().invoke(app, arguments)
            assert result.exit_code == 0, (line, result.output)
        elif program == "python":
            script, *others = arguments
            monkeypatch.setattr("sys.argv", [script, *others, "--orders", "5"])
            runpy.run_path(str(DOCS.parent / script), run_name="__main__")
            assert capsys.readouterr().out.count("\n| flip-likelihood |") == 6
        else:
            subprocess.run(line, shell=True, check=True)
    assert (tmp_path / "out" / "adaptive.svg").exists()


def test_no_page_is_left_with_a_gap() -> None:
    pages = [*DOCS.glob("*.md"), *DOCS.parent.glob("*.md"), *DOCS.parent.glob("benchmarks/*.md")]
    assert len(pages) >= 4
    for page in pages:
        assert not re.findall(r"[A-Z]+_(?:TABLE|ROW|NOTE|MAX|TIME)\b", page.read_text()), page


def test_commands_of_datasets_run_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)
    found = commands("datasets.md")
    assert {command[0] for command in found} == {"select", "export"}
    for command in found:
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, (command, result.output)
    rows = [json.loads(line) for line in (tmp_path / "answers.jsonl").open()]
    assert len(rows) == 60
    names = ("answers.csv", "best.parquet", "candidates.parquet", "pairs.jsonl", "sft")
    assert all((tmp_path / name).exists() for name in names)


def test_commands_of_rewardbench_run_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(DOCS.parent / "recipes")
    found = commands("rewardbench.md")
    assert [command[0] for command in found] == ["rewardbench", "run"]
    for command in found:
        short = ["--limit-per-subset", "1"]
        result = CliRunner().invoke(app, [*command, *short])
        assert result.exit_code == 0, (command, result.output)
    assert (tmp_path / "out" / "rewardbench.png").exists()
    assert (tmp_path / "runs" / "rewardbench2_tiny" / "rewardbench.csv").exists()


def test_commands_and_python_of_the_audit_run_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(attacks, "ATTACKS", {**attacks.ATTACKS})
    row = {"prompt": "Name a fruit that is red.", "answer": "An apple."}
    (tmp_path / "prompts.jsonl").write_text(json.dumps(row) + "\n")
    found = commands("audit.md")
    assert [command[0] for command in found] == ["audit"] * 4
    for command in found:
        # The page's own sizes take a minute each.
        short = ["tiny:2" if argument == "tiny:20" else argument for argument in command]
        result = CliRunner().invoke(app, short)
        assert result.exit_code == 0, (command, result.output)
    folders = ("audit", "judged", "cheap", "mine")
    assert all((tmp_path / name / "audit.html").exists() for name in folders)
    (code,) = BLOCK.findall((DOCS / "audit.md").read_text())
    names: dict[str, Any] = {}
    exec(code, names)
    assert [entry["name"] for entry in names["result"]["attacks"]] == ["in-reverse"]


# --- which models, and commands that need one -----------------------------------------------------

TEXTS = [
    path
    for pattern in ("*.md", "docs/*.md", "recipes/**/*.yaml", "recipes/**/*.py", "bestofn/**/*.py")
    for path in sorted(DOCS.parent.glob(pattern))
    if path.name != "CHANGELOG.md"
]
SPEC = re.compile(r"(?:vllm:|hf:|#)Qwen/Qwen3-[\d.]+B(?!-Instruct)")  # models that think by default


def test_a_model_that_thinks_is_told_not_to_where_it_is_named() -> None:
    assert len(TEXTS) > 100
    for path in TEXTS:
        text = path.read_text("utf-8")
        for found in SPEC.finditer(text):
            behind = text[found.end() : found.end() + 200]
            assert "enable_thinking" in behind, (path.name, found.group())


def test_thinking_is_switched_off_as_the_page_of_engines_says(
    tiny: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    off = {"chat_template_kwargs": {"enable_thinking": False}}
    seen: list[Any] = []

    def load(spec: str, **options: Any) -> Any:
        seen.append(spec)
        return tiny

    def view(**options: Any) -> Any:
        seen.append(options)
        return tiny

    monkeypatch.setattr("bestofn.models.load_engine", load)
    monkeypatch.setattr(tiny, "close", lambda: None)
    monkeypatch.setattr(tiny, "with_options", view)
    found = [shlex.split(line)[1:] for line in shell("docs/engines.md") if "Qwen" in line]
    assert len(found) == 2
    for command in found:
        result = CliRunner().invoke(app, [*command, "-n", "1"])
        assert result.exit_code == 0, (command, result.output)
    # Both roles of the first command, the scorer of the second one; each loads the model once.
    assert seen == ["vllm:Qwen/Qwen3-4B", off, off, "vllm:Qwen/Qwen3-4B", off]


def shell(page: str) -> list[str]:
    """The `bestofn` commands of a page, each as one line."""
    text = (DOCS.parent / page).read_text().replace("\\\n", " ")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for kind, block in blocks if kind in ("", "bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith("bestofn ")]


@pytest.mark.parametrize(
    "page", ["README.md", *(f"docs/{path.name}" for path in DOCS.glob("*.md"))]
)
def test_every_command_is_one_and_names_its_model(page: str) -> None:
    group: Any = typer.main.get_command(app)
    for line in shell(page):
        name, *arguments = shlex.split(line, comments=True)[1:]
        given = group.commands[name].make_context(name, [*arguments]).params
        if name in ("select", "sample", "audit", "rewardbench") and not given.get("status"):
            assert given["engine"], line
