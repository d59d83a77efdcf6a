"""The comparison of selectors, on scripted and on real candidates."""

import numpy as np
import pytest

from bestofn.engines.transformers import TransformersEngine
from bestofn.experiments.selectors import (
    ScoredPool,
    default_selectors,
    draw_pools,
    selector_curves,
)
from bestofn.prompts import as_prompt
from bestofn.tiny import heldout_tasks, verify
from bestofn.types import Candidate, Score


def pool_of(proxy: list[float], gold: list[float]) -> ScoredPool:
    return ScoredPool(
        as_prompt("x"),
        [
            Candidate(
                i, str(i), scores={"r": Score(p), "oracle": Score(g), "random": Score(0.1 * i)}
            )
            for i, (p, g) in enumerate(zip(proxy, gold, strict=True))
        ],
    )


def test_curves_from_known_pools() -> None:
    pools = [pool_of([3, 2, 1, 1], [1, 0, 0, 0]), pool_of([1, 2, 3, 3], [1, 0, 0, 1])]
    r, random, oracle = selector_curves(pools, ["r", "random", "oracle"], [1, 4])
    np.testing.assert_allclose(r.accuracy.mean, [0.375, 0.75])
    np.testing.assert_allclose(r.ties, [0, 0.5])
    np.testing.assert_allclose(r.gain.mean, [0, 0.375])
    np.testing.assert_allclose(random.accuracy.mean, [0.375, 0.375])
    np.testing.assert_allclose(oracle.accuracy.mean, [0.375, 1])


def test_pools_of_the_tiny_model(tiny: TransformersEngine) -> None:
    tasks = heldout_tasks(6)
    selectors = default_selectors(tiny)
    pools = list(draw_pools(tiny, tasks, 4, 0, selectors))
    assert [p.prompt.messages[0].content for p in pools] == [t.instruction for t in tasks]
    for task, pool in zip(tasks, pools, strict=True):
        assert [c.index for c in pool.candidates] == [0, 1, 2, 3]
        gold = [float(verify(task.instruction, c.text)) for c in pool.candidates]
        assert pool.values("oracle") == gold
    curves = selector_curves(pools, [s.name for s in selectors], [1, 4])
    best = next(c for c in curves if c.name == "oracle").accuracy.mean[1]
    for curve in curves:
        assert curve.accuracy.mean[0] == pytest.approx(curves[0].accuracy.mean[0])
        assert curve.accuracy.mean[1] <= best + 1e-12
