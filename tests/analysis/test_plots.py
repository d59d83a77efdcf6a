"""Pictures are there in both formats, whatever the curve lacks."""

from math import nan
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from making import made

from bestofn.analysis import plots, results
from bestofn.analysis.curves import ScalingCurve
from bestofn.analysis.lengths import LengthAnalysis
from bestofn.errors import BestOfNError

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def _coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn does not depend on the resolution, the time that it takes does."""
    monkeypatch.setattr(plots, "DOTS", 20)


def result_of(
    scores: Any, *, title: str = "", prompts: int = 5, tokens: Any = (3, 5, 4, 9), **options: Any
) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    pools = []
    for i in range(prompts):
        gold = {"gold": rng.integers(0, 2, 4).astype(float).tolist()}
        pools.append(made(str(i), gold | scores, tokens=tokens and [t + i for t in tokens]))
    curve = ScalingCurve(pools, **{"resamples": 20} | options)
    return results.as_dict(curve, LengthAnalysis(curve), title=title)


FLIP = {"flip": [0.0, 1.0, 2.0, 3.0]}
CUTS = FLIP | {"flip@2": [1.0, 0.0, 2.0, 3.0], "flip@4": [0.0, 1.0, 2.0, 3.0]}


def words_of(path: Path) -> set[str]:
    """All text of an SVG."""
    root = ElementTree.parse(path).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return {text.strip() for node in root.iter() if (text := node.text) and text.strip()}


def drawn(result: dict[str, Any], folder: Path) -> list[Path]:
    return plots.save_all(plots.figures(result), folder)


def test_both_pictures_in_both_formats_the_same_each_time(tmp_path: Path) -> None:
    result = result_of(CUTS, title="A title")
    files = drawn(result, tmp_path / "a")
    names = ["scaling.svg", "scaling.png", "lengths.svg", "lengths.png"]
    assert [file.name for file in files] == names
    assert [file.read_bytes().startswith(PNG) for file in files] == [False, True] * 2
    for file, again in zip(files, drawn(result, tmp_path / "b"), strict=True):
        assert file.read_bytes() == again.read_bytes()
    assert {*plots.figures(result | {"lengths": None})} == {"scaling"}
    (tmp_path / "file").write_text("")
    with pytest.raises(BestOfNError, match="cannot write"):
        drawn(result, tmp_path / "file")


NAMES = ["a <b> & 'c'", "x$y$z", "$\\frac{", "a_b^c", "é 中", "100%"]


@pytest.mark.filterwarnings("ignore:Glyph")
def test_any_name_is_in_the_picture_as_it_is(tmp_path: Path) -> None:
    title, gold = "From $5 to $6 <b>", "is $x$ <right>"
    scores = dict.fromkeys(NAMES, FLIP["flip"]) | {gold: [0.0, 1.0, 1.0, 0.0]}
    drawn(result_of(scores, title=title, gold=gold, proxies=NAMES), tmp_path)
    for picture in ("scaling.svg", "lengths.svg"):
        assert {title, *NAMES} <= words_of(tmp_path / picture)
    assert gold in words_of(tmp_path / "scaling.svg")


# A percentile interval need not hold its mean: not with one resample, nor by rounding where all
# prompts are alike.
ODD: list[dict[str, Any]] = [
    {"scores": FLIP, "proxies": ["random"]},
    {"scores": FLIP, "tokens": None},
    {"scores": CUTS},
    {"scores": CUTS | {"flip@2": [nan] * 4}},
    {"scores": CUTS | {"gold@2": [0.0, 0.0, 1.0, 0.0], "gold@4": [0.0, 1.0, 1.0, 0.0]}},
    {"scores": {"flip": [nan] * 4}, "proxies": ["flip"]},
    {"scores": FLIP, "prompts": 1, "ns": [1]},
    {"scores": FLIP, "resamples": 1, "prompts": 20},
    {"scores": FLIP | {"gold": [0.1, 0.2, 0.3, 0.7]}, "prompts": 29},
    {"scores": FLIP, "tokens": (0, 0, 0, 0), "prompts": 1},
    {"scores": {f"flip-{i}": FLIP["flip"] for i in range(12)}},
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("given", ODD, ids=[str(number) for number in range(len(ODD))])
def test_odd_curves_have_pictures_too(tmp_path: Path, given: dict[str, Any]) -> None:
    result = result_of(**given)
    assert len(drawn(result, tmp_path)) == 4
    assert {*result["proxies"]} <= words_of(tmp_path / "scaling.svg")
    words = words_of(tmp_path / "lengths.svg")
    assert ("first tokens that the reward sees" in words) == ("flip@2" in given["scores"])
    assert ("the cut candidate itself" in words) == ("gold@2" in given["scores"])
