"""The page: its data, what it escapes, and what it does in a real browser."""

import base64
import gzip
import json
import re
from collections.abc import Callable, Iterator
from math import nan
from pathlib import Path
from random import Random
from typing import Any

import pytest

from bestofn.analysis.curves import ScalingCurve
from bestofn.analysis.lengths import LengthAnalysis
from bestofn.analysis.report import choose, marked, write_report
from bestofn.analysis.results import as_dict
from bestofn.dataset.pools import cut_name
from bestofn.prompts import as_prompt
from bestofn.rewards.similarity import f1
from bestofn.tiny import heldout_tasks
from bestofn.types import Candidate, Pool, Score, Usage

EVIL = "</script><script>window.pwned=1</script><img src=x onerror='window.pwned=2'>"


def candidate_of(rng: Random, index: int, instruction: str, evil: str) -> Candidate:
    """Some are not drawn, some scores fail."""
    lost = rng.random() < 0.05
    scores = {
        "flip": Score(rng.randint(0, 9) / 9, inferred=[instruction[: 9 + index] + evil]),
        "other": Score(-rng.random(), flags=["quotes_instruction"]),
        "gold": Score(float(rng.random() < 0.4 and not lost)),
    }
    if rng.random() < 0.1:
        scores["other"] = Score(nan, f"parse: none {evil}")
    for limit in (2, 4):
        for name in ("flip", "gold"):
            scores[cut_name(name, limit)] = Score(rng.random(), usage=Usage(5, 2))
    words = " ".join(rng.choice(instruction.split()) for _ in range(8))
    return Candidate(
        index,
        "" if lost else words + evil,
        reasoning=f"thinking{evil}" if index == 0 else None,
        finish_reason="error" if lost else "stop",
        error=f"lost {evil}" if lost else None,
        token_count=8 + index % 3,
        scores=scores,
    )


def pools_of(prompts: int, m: int, evil: str = "") -> list[Pool]:
    """Pools of the tiny world's instructions with random scores."""
    rng = Random(0)
    pools = []
    for number, task in enumerate(heldout_tasks(prompts)):
        columns = {"family": task.family + evil, "number": number, "nested": {"a": [evil]}}
        prompt = as_prompt(task.instruction + evil, f"{number}{evil}", columns)
        candidates = [candidate_of(rng, index, task.instruction, evil) for index in range(m)]
        pools.append(Pool(prompt, candidates, seconds={"sample": 0.1, "flip": 0.1, "other": 0.1}))
    return pools


def result_of(pools: list[Pool], **options: Any) -> dict[str, Any]:
    curve = ScalingCurve(pools, resamples=50, **options)
    return as_dict(curve, LengthAnalysis(curve), title="A title")


def data_of(page: Path) -> dict[str, Any]:
    packed = re.search(r'id="data">([^<]*)<', page.read_text())
    assert packed is not None
    data: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(packed[1])))
    return data


# --- the data -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inferred", "true", "shared"),
    [
        ("Count from 3 to 9.", "Count from 3 to 7.", "Count from 3 to"),
        ("the the the", "The end.", ""),  # articles are no words of word F1
        ("dog dog dog", "One dog, two cats.", "dog"),
        ("", "Something.", ""),
        ("数字 一", "数字。", "数字"),
    ],
)
def test_marked_words_are_those_that_word_f1_counts(inferred: str, true: str, shared: str) -> None:
    pieces = marked(inferred, true)
    assert " ".join(text for text, _ in pieces) == inferred
    assert " ".join(text for text, is_shared in pieces if is_shared) == shared
    assert (f1(inferred, true) > 0) == bool(shared)


def test_few_prompts_are_all_shown_and_many_are_sampled() -> None:
    pools = pools_of(40, 2)
    result = result_of(pools, proxies=["flip", "other"])
    named = {entry["id"] for d in result["differences"] for entry in d["most"]}
    assert choose(pools, result, 40)[0] == pools
    chosen, sentence = choose(pools, result, 25)
    assert sentence.startswith("25 of 40 prompts")
    assert named < {pool.prompt.id for pool in chosen}
    places = [pools.index(pool) for pool in chosen]
    assert places == sorted(set(places))
    assert [len(choose(pools, result, limit)[0]) for limit in (3, 25)] == [3, 25]


def test_the_page_is_whole_and_loads_nothing(tmp_path: Path) -> None:
    pools, page = pools_of(20, 16), tmp_path / "report.html"
    text = pools[7].candidates[3].text
    pools[0].candidates[0].text = "cut \ud83d"  # half of a surrogate pair
    write_report(result_of(pools), pools, page, title="T")
    assert not re.findall(r'(?:src|href)="(?!#|data:image/svg)', page.read_text())
    shown = data_of(page)["prompts"]
    assert [len(prompt["candidates"]) for prompt in shown] == [16] * 20
    assert shown[7]["candidates"][3]["text"] == text
    assert shown[0]["candidates"][0]["text"] == "cut ?"


# --- in a browser ---------------------------------------------------------------------------------


OpenPage = Callable[..., Any]


def is_own(url: str, path: Path) -> bool:
    """Whether something is the page itself or a picture in it."""
    return url == path.as_uri() or url.startswith("data:image/svg")


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[OpenPage]:
    """Opens a page about pools; fails on any message, error or request beyond the page itself."""
    noise: list[str] = []
    contexts = []

    def open_page(
        pools: list[Pool], title: str = "A title", proxies: tuple[str, ...] = (), **options: Any
    ) -> Any:
        path = tmp_path / "report.html"
        write_report(result_of(pools, proxies=proxies), pools, path, title=title)
        context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: noise.append(message.text))
        page.on("pageerror", lambda error: noise.append(str(error)))
        page.on("dialog", lambda dialog: noise.append(dialog.message))
        page.on("request", lambda r: None if is_own(r.url, path) else noise.append(r.url))
        page.goto(path.as_uri())
        page.wait_for_selector("body[data-ready=true]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert noise == []


def listed(page: Any) -> int:
    return int(page.locator("#list li").count())


def test_findings_pictures_and_tables_are_shown(opened: OpenPage) -> None:
    pools = pools_of(12, 8)
    pools[5].candidates[0].scores["gold"] = Score(nan, "unreadable")
    page, result = opened(pools), result_of(pools)
    details = page.locator("#findings details")
    assert details.locator("summary").inner_text() == "1 left out"
    assert "unreadable" in (details.locator("li").text_content() or "")
    assert page.locator("#findings tr").count() == len(result["findings"])
    assert result["findings"][2]["shown"] in page.locator("#findings").inner_text()
    assert page.locator("#curves img").count() == 2
    sizes = page.locator("#curves img").evaluate_all("all => all.map(i => i.naturalWidth)")
    assert min(sizes) > 100
    assert all(page.locator("#curves img").evaluate_all("all => all.map(i => i.alt.length > 20)"))
    rows = page.locator("#tables tbody").first.locator("tr")
    assert rows.count() == 4 * len(result["proxies"])  # N = 1, 2, 4, 8
    flip = result["proxies"]["flip"]["gold"]
    assert f"{flip['mean'][0]:.3f} [{flip['low'][0]:.3f}" in rows.first.inner_text()
    limits = page.locator("#tables tbody").last.locator("tr")
    assert limits.count() == 2


def selected(pool: Pool, name: str) -> Candidate:
    """Failed scores lose, ties go to the first."""
    values = [candidate.scores[name].value for candidate in pool.candidates]
    known = [value for value in values if value == value]
    place = values.index(max(known)) if known else 0
    return pool.candidates[place]


def test_filters_agree_with_the_pools(opened: OpenPage) -> None:
    pools = pools_of(40, 4)
    page = opened(pools)
    assert listed(page) == 40
    family = str(pools[3].prompt.columns["family"])
    page.select_option('select[name="column:family"]', family)
    assert listed(page) == sum(pool.prompt.columns["family"] == family for pool in pools)
    page.select_option('select[name="column:family"]', "")
    failed = [any(c.error or c.scores["other"].reason for c in p.candidates) for p in pools]
    missed = [
        max(c.scores["gold"].value for c in p.candidates) > selected(p, "flip").scores["gold"].value
        for p in pools
    ]
    differ = [selected(p, "flip") is not selected(p, "other") for p in pools]
    for name, expected in (("failed", failed), ("missed", missed), ("differ", differ)):
        assert 0 < sum(expected) < 40
        page.check(f'input[name="{name}"]')
        assert listed(page) == sum(expected), name
        page.uncheck(f'input[name="{name}"]')
    page.fill('input[name="query"]', "no such text anywhere")
    assert listed(page) == 0
    assert "No prompt matches" in page.locator("#detail").inner_text()


def test_candidates_are_shown_by_rank_with_marked_words(opened: OpenPage) -> None:
    pools = pools_of(5, 4)
    page = opened(pools)
    ranked = page.locator("#detail .candidate")
    assert ranked.count() == 4
    best = max(candidate.scores["flip"].value for candidate in pools[0].candidates)
    assert float(ranked.first.locator("dd .value").first.inner_text()) == round(best, 3)
    assert ranked.first.locator("strong").inner_text() == "selected"
    assert page.locator("#detail mark").count() > 0


def test_the_keyboard_is_enough(opened: OpenPage) -> None:
    pools = pools_of(6, 2)
    page = opened(pools)
    for key in "jjk":
        page.keyboard.press(key)
    shown = page.locator("#detail .message .text").inner_text()
    assert shown == pools[1].prompt.messages[-1].content
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.name") == "query"
    page.keyboard.type("jjj")
    assert page.locator('input[name="query"]').input_value() == "jjj"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement === document.body")


def test_no_markup_or_script_of_a_model_is_read(opened: OpenPage, tmp_path: Path) -> None:
    pools = pools_of(3, 3, evil=EVIL)
    for pool in pools:
        for candidate in pool.candidates:
            candidate.scores[EVIL] = Score(0.5)
    page = opened(pools, title=EVIL)
    for _ in pools:
        assert EVIL in page.locator("#detail .message .text").inner_text()
        page.keyboard.press("j")
    assert page.title() == EVIL
    text = (tmp_path / "report.html").read_text()
    assert EVIL not in text
    assert text.count("<script") == 2
    assert text.count("<img") == text.count("<figure") == 2
    assert page.evaluate("window.pwned") is None
    assert page.locator("script").count() == 2


@pytest.mark.parametrize("case", ["one candidate", "all failed", "long words"])
def test_odd_pools_are_shown(opened: OpenPage, case: str) -> None:
    pools = pools_of(1, 1) if case == "one candidate" else pools_of(4, 3)
    for candidate in (candidate for pool in pools for candidate in pool.candidates):
        if case == "all failed":
            candidate.scores["flip"] = Score(nan, "engine: gone")
        if case == "long words":
            candidate.text, candidate.token_count = "\u202eمرحبا 数字 👍🏽 " + "x" * 5000, None
            candidate.scores = {k: v for k, v in candidate.scores.items() if "@" not in k}
    page = opened(pools, proxies=("flip",))
    assert page.locator("#detail .candidate").count() == len(pools[0].candidates)
    if case == "all failed":
        assert "engine: gone" in page.locator("#detail").inner_text()
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
