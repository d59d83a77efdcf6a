"""What a real small model makes of it all: SmolLM2-135M-Instruct, in float32 on transformers."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from bestofn import BestOfN, concurrency
from bestofn.engines.base import SamplingParams, load_engine
from bestofn.engines.hf import TransformersEngine
from bestofn.prompts import as_prompt
from bestofn.rewards.base import load_reward
from bestofn.rewards.templates import load_template
from bestofn.types import Candidate

pytestmark = pytest.mark.real

ASKED = "Give me three tips for staying healthy."
SOUND = (
    "1. Eat plenty of vegetables, fruit and whole grains.\n2. Walk or exercise for half an hour a "
    "day.\n3. Sleep seven to eight hours every night."
)
GIBBERISH = "the the of and, 3 | healthy-- wr\u00f8 ?? tips tips plato, sun to to zinc (the"
OFF_TOPIC = [
    "Paris is the capital of France, and its largest city.",
    "def add(a, b):\n    return a + b",
    "Dear Mr Brown,\nthank you for the parcel, which came on Monday.\nYours, Ann",
]


@pytest.fixture(scope="module")
def engine(smollm2: str) -> Iterator[TransformersEngine]:
    loaded = load_engine(f"hf:{smollm2}")
    assert isinstance(loaded, TransformersEngine)
    yield loaded
    loaded.close()


def test_loglikelihood_is_that_of_the_plain_forward_pass(engine: TransformersEngine) -> None:
    template = load_template("direct")
    texts = [SOUND, GIBBERISH, *OFF_TOPIC]
    pairs = [(template.fill(text), ASKED) for text in (*texts, SOUND[: len(SOUND) // 2])]

    async def all_of_them() -> list[Any]:
        work = (engine.loglikelihood(prefix, said, close=True) for prefix, said in pairs)
        return await concurrency.gather(*work)

    for (prefix, said), found in zip(pairs, concurrency.run(all_of_them()), strict=True):
        start, ids, _ = engine._chat.encode_scored(prefix, said, True, None)
        with torch.inference_mode():
            logits = engine._scheduler.model(torch.tensor([start + ids])).logits[0]
        rows = logits[len(start) - 1 : -1].float().log_softmax(-1)
        expected = rows[torch.arange(len(ids)), torch.tensor(ids)].tolist()
        assert found.token_logprobs == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("reward", ["flip-likelihood", "mutual"])
def test_the_likelihood_and_mutual_information_choose_what_answers(
    engine: TransformersEngine, reward: str
) -> None:
    texts = [GIBBERISH, OFF_TOPIC[0], SOUND, *OFF_TOPIC[1:]]
    best = BestOfN(lambda prompt, n: texts[:n], load_reward(reward, engine=engine), n=len(texts))
    selection = best.select(ASKED)
    assert selection.text == SOUND
    assert not selection.tie
    assert [score.reason for score in selection.scores] == [None] * len(texts)


def test_flip_takes_a_form_that_the_model_can_write(engine: TransformersEngine) -> None:
    assert engine.default_template == "opened"
    reward = load_reward("flip", engine=engine)
    candidates = [Candidate(place, text) for place, text in enumerate([SOUND, *OFF_TOPIC])]
    scores = concurrency.run(reward.score(as_prompt(ASKED), candidates))
    assert all(len(score.inferred) == 1 for score in scores)
    assert all(score.usage.generated_tokens <= 64 for score in scores)


@pytest.mark.parametrize(
    ("name", "options"),
    [("pointwise", {}), ("pointwise", {"template": "yes"}), ("pairwise", {})],
)
def test_a_verdict_from_logits_is_always_readable(
    engine: TransformersEngine, name: str, options: dict[str, Any]
) -> None:
    judge = load_reward(name, engine=engine, verdict="logits", **options)
    candidates = [Candidate(place, text) for place, text in enumerate([SOUND, *OFF_TOPIC])]
    scores = concurrency.run(judge.score(as_prompt(ASKED), candidates))
    assert [score.reason for score in scores] == [None] * len(scores)
    assert len({score.value for score in scores}) > 1 or name == "pairwise"


def test_best_of_n_from_one_engine(engine: TransformersEngine) -> None:
    best = BestOfN(
        engine,
        load_reward("flip-likelihood", engine=engine),
        n=4,
        sampling=SamplingParams(temperature=0.8, max_tokens=32),
        seed=0,
    )
    selection = best.select(ASKED)
    assert selection.error is None
    assert selection.usage.cached_tokens > 0
