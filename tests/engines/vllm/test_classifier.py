"""Reward models on vLLM's pooling runner, against the same ones on transformers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import require_vllm
from reward_models import random_model

from bestofn import ScalarReward, concurrency
from bestofn.errors import ConfigError, EngineError
from bestofn.prompts import as_prompt
from bestofn.types import Candidate

PROMPT = as_prompt("Write a letter from Anna to Ben about the hammer in 3 sentences.")
LONG = "Dear Ben, here is the hammer. " * 20
RESPONSES = [Candidate(i, LONG[:end]) for i, end in enumerate((3, 9, 30, 31, 100, 200, 500))]


@pytest.fixture(autouse=True)
def _vllm_is_there() -> None:
    require_vllm()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # It pads with the token that ends an answer, so that the last token is not the one to read.
    return random_model(tmp_path_factory.mktemp("random"), spread=0.5, pad_token_id=1)


@pytest.fixture(scope="module")
def reward(folder: Path) -> Iterator[ScalarReward]:
    require_vllm()
    loaded = ScalarReward(
        folder, backend="vllm", kv_cache_memory_bytes=1 << 28, enforce_eager=True, dtype="float32"
    )
    yield loaded
    loaded.close()


def test_logits_equal_those_of_transformers(reward: ScalarReward, folder: Path) -> None:
    plain = ScalarReward(folder, device="cpu")
    expected = [score.value for score in concurrency.run(plain.score(PROMPT, RESPONSES))]
    for _ in range(2):  # from the prefix cache the second time
        scores = concurrency.run(reward.score(PROMPT, RESPONSES))
        assert [score.value for score in scores] == pytest.approx(expected, abs=1e-4)
    assert all(score.usage.prompt_tokens > 0 and score.usage.seconds > 0 for score in scores)
    assert scores[-1].usage.cached_tokens > 0
    assert min(expected) < 0  # which no sigmoid gives


def test_too_long(reward: ScalarReward) -> None:
    scores = concurrency.run(reward.score(PROMPT, [Candidate(0, LONG * 9), Candidate(1, "Hi.")]))
    assert str(scores[0].reason).endswith("tokens, over 512")
    assert scores[1].reason is None


def test_what_is_no_reward_model(folder: Path) -> None:
    with pytest.raises(EngineError, match="has 2 labels"):
        ScalarReward("tiny", backend="vllm")
    with pytest.raises(ConfigError, match="max_model_length; did you mean max_model_len"):
        ScalarReward(folder, backend="vllm", max_model_length=9)


def test_closed(folder: Path, reward: ScalarReward) -> None:
    reward.close()
    (score,) = concurrency.run(reward.score(PROMPT, [Candidate(0, "Hi.")]))
    assert score.reason == "engine: the vLLM engine is closed; load it again"
