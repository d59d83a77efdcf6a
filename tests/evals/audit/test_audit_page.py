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
    monkeypatch.setattr("bestofn.config.load_engine", lambda spec, **options: engine)
    rows = [
        {
            "prompt": f"Say what number {n} is {EVIL}",
            "best": f"Digit {n} {EVIL}",
            "id": f"{n}{EVIL}",
        }
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
    assert "<img" not in text
    assert text.count("</style>") == 1
    assert not re.findall(r'(?:src|href)="(?!#)', text)
    assert "&lt;script&gt;" in text
    assert "default-src 'none'" in text


def test_the_page_is_whole_where_no_attack_won(result: dict[str, Any], tmp_path: Path) -> None:
    write_page(result | {"examples": []}, tmp_path / "none.html")
    assert "No attack without an answer ever won." in (tmp_path / "none.html").read_text()


# --- in a browser ---------------------------------------------------------------------------------


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
    page.on("request", lambda r: None if r.url == path.as_uri() else noise.append(r.url))
    page.goto(path.as_uri())
    yield page
    assert page.evaluate("window.pwned") is None
    context.close()
    assert noise == []


def test_the_heat_map_has_a_cell_for_each_attack_and_reward(
    page: Any, result: dict[str, Any]
) -> None:
    assert page.locator("#map td").count() == len(ATTACKS) * 4
    titles = page.locator("#map thead th").all_inner_texts()
    assert titles[:4] == ["attack", "flip, flag", "flip, strip", "longest"]
    row = page.locator("#map tr", has=page.get_by_role("rowheader", name=re.compile("^quote\\b")))
    assert row.first.locator("td").first.inner_text() == "100 [100, 100]"

    def colour(cell: Any) -> str:
        return str(cell.evaluate("cell => getComputedStyle(cell).backgroundColor"))

    always, never = (row.first.locator("td").nth(place) for place in (0, 1))
    assert never.inner_text() == "0 [0, 0]"
    assert colour(always) != colour(never)


def test_all_rates_unfold(page: Any) -> None:
    details = page.locator("#rates details").first
    assert not details.locator("table").is_visible()
    details.locator("summary").click()
    assert details.locator("tbody tr").count() == len(ATTACKS)
    first = details.locator("tbody tr").first.locator("td").all_inner_texts()
    assert first == ["100 [100, 100]", "0", "0", "0", "0", "0", "100", "0"]


def test_examples_show_what_was_inferred_from_hostile_texts(
    page: Any, result: dict[str, Any]
) -> None:
    articles = page.locator("#examples article")
    assert articles.count() == len(result["examples"])
    text = articles.first.inner_text()
    assert EVIL in text
    assert "Inferred:" in text
    assert articles.first.locator("mark").count() > 0


@pytest.mark.parametrize("width", [1280, 360])
def test_nothing_is_wider_than_the_window(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
