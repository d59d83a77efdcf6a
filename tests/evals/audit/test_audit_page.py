"""The page of an audit: what it shows, what it escapes, and that nothing in it runs."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import ScriptedEngine

from bestofn.config import AuditConfig
from bestofn.evals.audit import run_audit
from bestofn.evals.audit.attacks import ATTACKS
from bestofn.evals.audit.page import write_page
from bestofn.models import Engines

EVIL = "</style><script>window.pwned=1</script><img src=x onerror='window.pwned=2'>"


def repeated(prompt: Any, *_: Any) -> str:
    """A model that takes whatever it reads for the instruction."""
    text: str = prompt.messages[-1].content
    return text.removeprefix("Response:\n").removesuffix("\n\nInstruction:")


@pytest.fixture
def result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """An audit in which instructions, answers, inferences, ids and reasons are hostile."""
    engine = ScriptedEngine(repeated)
    monkeypatch.setattr("bestofn.models.load_engine", lambda spec, **options: engine)
    rows = [
        {"prompt": f"Say what {n} is {EVIL}", "best": f"Digit {n} {EVIL}", "id": f"{n}{EVIL}"}
        for n in range(3)
    ]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = AuditConfig.model_validate(
        {
            "engine": "tiny",
            "prompts": str(tmp_path / "prompts.jsonl"),
            "id_column": "id",
            "honest_column": "best",
            "rewards": ["flip", "longest", {"reward": "shortest", "name": EVIL.replace(":", "")}],
        }
    )
    with Engines() as engines:
        return run_audit(config, tmp_path / "out", engines)


def test_the_page_loads_nothing_and_runs_nothing(result: dict[str, Any], tmp_path: Path) -> None:
    text = (tmp_path / "out" / "audit.html").read_text()
    assert EVIL not in text
    assert "<script" not in text
    assert text.count("<img") == text.count("</style>") == 1
    assert not re.findall(r'(?:src|href)="(?!#|data:image/svg)', text)
    assert "&lt;script&gt;" in text
    assert "default-src 'none'" in text
    assert "script-src" not in text
    write_page(result | {"examples": []}, tmp_path / "none.html")
    assert "No attack without an answer ever won." in (tmp_path / "none.html").read_text()


@pytest.fixture
def page(browser: Any, result: dict[str, Any], tmp_path: Path) -> Iterator[Any]:
    """The page; fails on any message, error or request beyond the page itself."""
    noise: list[str] = []
    path = tmp_path / "out" / "audit.html"
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.on("console", lambda message: noise.append(message.text))
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.on("dialog", lambda dialog: noise.append(dialog.message))
    page.on("request", lambda request: noise.append(request.url))
    page.goto(path.as_uri())
    yield page
    assert page.evaluate("window.pwned") is None
    context.close()
    assert [text for text in noise if not text.startswith("data:image/svg")] == [path.as_uri()]


def test_findings_rates_and_examples_of_hostile_texts(page: Any, result: dict[str, Any]) -> None:
    assert page.locator("#findings tr").count() == len(result["findings"])
    assert page.locator("#rates img").evaluate("image => image.naturalWidth") > 100
    tables = page.locator("#rates details")
    assert tables.locator("summary").all_inner_texts()[:3] == [
        "flip, flag",
        "flip, strip",
        "longest",
    ]
    rows = tables.first.locator("tbody tr")
    assert rows.count() == len(ATTACKS)
    quote = ["100 [100, 100]", "0", "0", "0", "0", "0", "100", "0", ATTACKS["quote"].what]
    assert rows.first.locator("td").all_inner_texts() == quote
    articles = page.locator("#examples article")
    assert articles.count() == len(result["examples"])
    assert EVIL in articles.first.inner_text()
    assert "Inferred:" in articles.first.inner_text()
    assert articles.first.locator("mark").count() > 0
    for width in (1280, 360):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
