"""Mutual information, against the plain forward passes of the embedded model."""

from math import isnan
from typing import Any

import pytest
from fakes import ScriptedEngine, scores_of

from bestofn import concurrency
from bestofn.engines.base import TokenScores
from bestofn.engines.hf import TransformersEngine
from bestofn.errors import ConfigError, EngineError
from bestofn.prompts import as_prompt
from bestofn.rewards.base import load_reward
from bestofn.rewards.flip import FLIPLikelihood
from bestofn.rewards.mutual import NEUTRAL, MutualInformation
from bestofn.types import Candidate, Prompt, Score

ASKED = as_prompt("Name 4 fruits as a numbered list.")
TEXTS = ["1. fig\n2. peach\n3. plum\n4. pear", "Tuesday", "1, 2, 3, 4"]


def scored(reward: Any, *texts: str) -> list[Score]:
    return scores_of(reward, [Candidate(i, text) for i, text in enumerate(texts)], ASKED)


@pytest.mark.parametrize("exponent", [1.0, 0.5, 0.0])
def test_the_value_is_the_gain_over_the_neutral_prompt(
    tiny: TransformersEngine, exponent: float
) -> None:
    scores = scored(MutualInformation(tiny, length_exponent=exponent), *TEXTS)
    for score, text in zip(scores, TEXTS, strict=True):
        asked = concurrency.run(tiny.loglikelihood(ASKED, text))
        alone = concurrency.run(tiny.loglikelihood(as_prompt(NEUTRAL), text))
        gain = sum(asked.token_logprobs) - sum(alone.token_logprobs)
        assert score.value == pytest.approx(gain / len(asked.token_ids) ** exponent, abs=1e-3)
        assert score.usage.scored_tokens == 2 * len(asked.token_ids)
    assert scores[0].value == max(score.value for score in scores)


def test_the_backward_likelihood_is_added_by_its_weight(tiny: TransformersEngine) -> None:
    alone, backward = scored(MutualInformation(tiny), *TEXTS), scored(FLIPLikelihood(tiny), *TEXTS)
    both = scored(load_reward("mutual", engine=tiny, backward_weight=0.5), *TEXTS)
    for one, other, total in zip(alone, backward, both, strict=True):
        assert total.value == pytest.approx(one.value + 0.5 * other.value, abs=1e-3)
        assert total.usage.scored_tokens == one.usage.scored_tokens + other.usage.scored_tokens


def test_the_backward_likelihood_has_no_floor(tiny: TransformersEngine) -> None:
    reward = MutualInformation(tiny, backward_weight=1.0)
    likely, unlikely = (Candidate(0, TEXTS[0], mean_logprob=value) for value in (-0.5, -5.0))
    one, other = (concurrency.run(reward.score_one(ASKED, c)) for c in (likely, unlikely))
    assert one.value == pytest.approx(other.value, abs=1e-4)


class Short(ScriptedEngine):
    """A context of 20 tokens, a token a character."""

    context = 20

    async def count_tokens(self, prompt: Prompt) -> int:
        return sum(len(message.content) for message in prompt.messages)

    async def loglikelihood(
        self, prompt: Prompt, continuation: str, *, max_tokens: int | None = None, **_: Any
    ) -> TokenScores:
        ids = [ord(character) for character in continuation][:max_tokens]
        if len(ids) + await self.count_tokens(prompt) + 1 > self.context:
            raise EngineError("it does not fit")
        usage = (await super().loglikelihood(prompt, continuation)).usage
        return TokenScores(ids, [-1.0] * len(ids), usage, len(ids) == len(continuation))


def test_of_a_long_response_the_beginning_is_scored_behind_both_prompts() -> None:
    reward = MutualInformation(Short(), neutral="Go on.")
    prompt = as_prompt("Ten tokens")
    short, long = scores_of(reward, [Candidate(0, "a b c"), Candidate(1, "a" * 30)], prompt)
    assert short.flags == []
    assert long.flags == ["cut_to_context"]
    assert short.value == long.value == 0
    (none,) = scores_of(reward, [Candidate(0, "a b c")], as_prompt("Twenty tokens in all"))
    assert none.reason == "too long: the prompt leaves no room for the response"


def test_failures_are_data() -> None:
    class Broken(ScriptedEngine):
        async def loglikelihood(self, *_: Any, **__: Any) -> TokenScores:
            raise EngineError("it broke")

    (empty, broken) = scored(MutualInformation(Broken()), " ", "text")
    assert empty.reason == "empty response"
    assert broken.reason == "engine: it broke"
    assert isnan(broken.value)


@pytest.mark.parametrize("options", [{"length_exponent": 2.0}, {"neutral": " "}])
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        MutualInformation(ScriptedEngine(), **options)


def test_the_options_are_part_of_the_identity(tiny: TransformersEngine) -> None:
    names = [MutualInformation(tiny, length_exponent=e).identity() for e in (1.0, 0.5)]
    assert names[0] != names[1]
    assert "template" not in names[0]
    assert "template" in MutualInformation(tiny, backward_weight=1.0).identity()
