"""What drawing candidates says of them."""

import itertools
import warnings

import pytest
from fakes import ScriptedEngine

from bestofn import BestOfN, SamplingParams
from bestofn.rewards.baselines import Longest


def thinking(answered: int, of: int, **options: str) -> ScriptedEngine:
    """An engine that reasons first, and of whose answers so many in each round come to an end."""
    numbers = itertools.count()

    def answer(*_: object) -> str:
        return "an answer" if next(numbers) % of < answered else ""

    return ScriptedEngine(answer, **{"finish_reason": "length", "reasoning": "hm", **options})


def warned_by(engine: ScriptedEngine, n: int) -> list[str]:
    best = BestOfN(engine, Longest(), n=n, sampling=SamplingParams(max_tokens=64))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for prompt in ("one", "two"):
            best.select(prompt)
    return [str(warning.message) for warning in caught if warning.category is UserWarning]


def test_candidates_that_are_cut_inside_their_reasoning() -> None:
    (warning,) = warned_by(thinking(answered=3, of=4), n=20)  # once, not for each prompt
    assert warning.startswith("5 of the first 20 candidates are cut inside their reasoning")
    for remedy in (
        "max_tokens=64",
        "raise max_tokens",
        "with_options(chat_template_kwargs={'enable_thinking': False})",
        "--engine-option 'chat_template_kwargs={enable_thinking: false}'",
    ):
        assert remedy in warning


@pytest.mark.parametrize(
    ("engine", "n"),
    [
        (thinking(answered=4, of=5), 20),  # a fifth is not more than a fifth
        (thinking(answered=0, of=1), 9),  # 18 say nothing yet
        (thinking(answered=0, of=1, finish_reason="stop"), 20),
        (ScriptedEngine("", finish_reason="length"), 20),  # no reasoning at all
    ],
)
def test_candidates_that_need_no_warning(engine: ScriptedEngine, n: int) -> None:
    assert warned_by(engine, n) == []
