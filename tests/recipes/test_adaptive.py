"""The simulation of adaptive N against the sampler itself, and against counting by hand."""

import json
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bestofn import BestOfN, ExpectedGain
from bestofn.errors import ConfigError
from bestofn.estimators import best_of_n
from bestofn.prompts import as_prompt
from bestofn.store import pool
from bestofn.types import Candidate, Pool, Prompt, Score
from recipes.adaptive import (
    Orders,
    Setting,
    Trial,
    as_json,
    by_cost,
    main,
    measure,
    read,
    table,
)

SCORES = np.array([[0.2, 0.9, 0.5, nan, 0.9, 0.1], [nan] * 6, [0.0, 0.3, 0.3, 0.1, 1.0, 0.2]])
GOLD = np.random.default_rng(0).random(SCORES.shape)


class Given:
    """The score in the response."""

    name, pointwise = "given", True

    async def score(self, prompt: Prompt, candidates: Any) -> list[Score]:
        return [Score(float(c.text.split()[0])) for c in candidates]


def sampled(order: list[int], scores: Any, rule: ExpectedGain, round_size: int) -> tuple[int, int]:
    """How many candidates `BestOfN` draws in this order, and which one it selects."""
    left = iter(order)

    def function(prompt: str, n: int) -> list[str]:
        places = [next(left) for _ in range(n)]
        return [f"{scores[place]} {place}" for place in places]

    sampler = BestOfN(function, Given(), n=len(order), stop=rule, round_size=round_size)
    selection = sampler.select("x")
    return len(selection.candidates), int(selection.text.split()[1])


@pytest.mark.parametrize("round_size", [1, 2, 4])
def test_the_simulation_does_what_the_sampler_does(round_size: int) -> None:
    rule = ExpectedGain(0.03, prior=SCORES)
    orders = Orders(SCORES, GOLD, count=12)
    places = Orders(np.tile(np.arange(6.0), (3, 1)), GOLD, count=12).scores.astype(int)
    drawn, gold = orders.stop(rule.stops(orders.scores), 6, round_size)
    for i, scores in enumerate(SCORES):
        runs = [sampled(order.tolist(), scores, rule, round_size) for order in places[i]]
        assert drawn[i] == pytest.approx(np.mean([size for size, _ in runs]))
        assert gold[i] == pytest.approx(np.mean([GOLD[i, chosen] for _, chosen in runs]))
    assert len({*drawn}) > 1


def test_a_rule_that_never_stops_is_the_fixed_n() -> None:
    orders = Orders(SCORES, GOLD, count=20_000)
    for n in (1, 3, 6):
        drawn, gold = orders.stop(np.zeros(orders.scores.shape, dtype=bool), n, 1)
        assert (drawn == n).all()
        assert gold == pytest.approx(best_of_n(SCORES, GOLD, [n])[:, 0], abs=0.01)
        assert orders.fixed_at(n)[0] == pytest.approx(best_of_n(SCORES, GOLD, [n])[:, 0])
    half = orders.fixed[:, 2:4].mean(axis=1)
    assert orders.fixed_at(3.5)[0] == pytest.approx(half)


def test_the_difference_is_paired_at_the_same_mean_number() -> None:
    orders = Orders(SCORES, GOLD)
    gains = ExpectedGain(0.0).gain(orders.scores)
    point = measure(orders, gains, Setting(n=6, weight=1.0, cost=0.03), 1)
    assert 1 < point.drawn < 6
    assert point.gain.mean == pytest.approx(point.gold.mean - point.fixed)
    assert point.fixed == pytest.approx(np.interp(point.drawn, range(1, 7), orders.fixed.mean(0)))


# --- tuning and the files -------------------------------------------------------------------------


def made(kind: str, count: int, size: int = 16) -> list[Pool]:
    """Pools on which a score is the gold value, on easy prompts and on hopeless ones."""
    rng, pools = np.random.default_rng(count), []
    for i in range(count):
        right = rng.random(size) < (0.0 if i % 2 else rng.uniform(0.2, 0.9))
        candidates = [
            Candidate(j, str(j), scores={"flip": Score(s), "gold": Score(float(s > 0.7))})
            for j, s in enumerate((0.7 * right + 0.3 * rng.random(size)).tolist())
        ]
        pools.append(Pool(as_prompt(f"{kind} {i}"), candidates))
    return pools


def test_adaptive_n_pays_where_some_prompts_are_easy_and_some_hopeless() -> None:
    trial = Trial("flip", made("tuning", 60), made("test", 61), count=20)
    line = trial.frontier("all", by_cost(16), round_size=1, budgets=[3.0, 6.0])
    for budget, point in line.budgets.items():
        assert 0.6 * budget < point.drawn < 1.2 * budget
        assert point.gain.low > 0
    assert [p.drawn for p in line.points] == sorted(p.drawn for p in line.points)
    assert line.points[-1].setting.cost == 0
    assert table([line]).count("\n| flip | all | 16 |") == 2
    (entry,) = as_json([line])
    assert entry["budgets"]["3"]["gain"]["low"] > 0
    with pytest.raises(ConfigError, match="rounds of 8 draw more than a budget of 4"):
        trial.frontier("all", by_cost(16), round_size=8, budgets=[4.0])


def test_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for name, count in (("tuning", 8), ("test", 9)):
        rows = "".join(pool.dumps(p) + "\n" for p in made(name, count))
        (tmp_path / f"{name}.jsonl").write_text(rows)
    files = [str(tmp_path / "tuning.jsonl"), str(tmp_path / "test.jsonl")]
    options = ["--reward", "flip", "--orders", "5", "-o", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["adaptive.py", *files, *options])
    main()
    assert "| flip | rounds of 4 |" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "out" / "adaptive.json").read_text())) == 3
    assert (tmp_path / "out" / "adaptive.png").stat().st_size > 10_000
    assert "<svg" in (tmp_path / "out" / "adaptive.svg").read_text()
    with pytest.raises(ConfigError, match="8 prompts stand in both"):
        read(Path(files[0]), Path(files[0]))
    more = tmp_path / "more.jsonl"
    more.write_text("".join(pool.dumps(p) + "\n" for p in made("more", 2, size=5)))
    with pytest.raises(ConfigError, match=r"\[5, 16\]"):
        read(more, Path(files[1]))
