"""The Python in docs/ runs, with the embedded model in the place of those that it names."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import bestofn
from bestofn.engines.transformers import TransformersEngine

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
EXAMPLES = [
    (page.name, code)
    for page in sorted(DOCS.glob("*.md"))
    for code in BLOCK.findall(page.read_text())
]


@pytest.mark.parametrize(("page", "code"), EXAMPLES)
def test_examples_run(
    page: str,
    code: str,
    tiny: TransformersEngine,
    vllm_tiny: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stand_in(spec: str, **options: Any) -> Any:
        from vllm import AsyncEngineArgs

        from bestofn.engines.openai import OpenAIEngine

        kind = spec.partition(":")[0]
        named = {"vllm": AsyncEngineArgs, "openai": OpenAIEngine}[kind]
        assert set(options) <= set(inspect.signature(named).parameters)
        return {"vllm": vllm_tiny, "openai": tiny}[kind]

    monkeypatch.setattr(bestofn, "load_engine", stand_in, raising=False)
    names: dict[str, Any] = {}
    exec(code, names)
    selection = names["best"].select("Name 4 fruits.")
    assert selection.usage.generated_tokens > 0


def test_no_page_is_left_with_a_gap() -> None:
    pages = [*DOCS.glob("*.md"), *DOCS.parent.glob("*.md"), *DOCS.parent.glob("benchmarks/*.md")]
    assert len(pages) >= 4
    for page in pages:
        assert not re.findall(r"[A-Z]+_(?:TABLE|ROW|NOTE|MAX|TIME)\b", page.read_text()), page
