"""An engine of one's own: a name and `generate`; all else has defaults."""

import asyncio

import pytest

from bestofn import BestOfN, FLIPLikelihood, FLIPReward
from bestofn.engines.base import Completion, Engine, SamplingParams
from bestofn.errors import ConfigError, EngineError
from bestofn.identity import identity_of
from bestofn.prompts import as_prompt
from bestofn.rewards.baselines import Longest
from bestofn.types import Prompt, Usage


class Parrot(Engine):
    """Repeats what the user says, as often as the seed."""

    name = "parrot"

    async def generate(
        self, prompt: Prompt, params: SamplingParams, seed: int | None = None
    ) -> Completion:
        text = " ".join([prompt.messages[-1].content] * (1 + (seed or 0) % 3))
        return Completion(text, None, "stop", [], None, Usage(generated_tokens=len(text.split())))


def test_it_draws() -> None:
    selection = BestOfN(Parrot(), Longest(), n=4, seed=0).select("Polly wants a cracker.")
    assert len(selection.candidates) == 4
    assert selection.text == max((c.text for c in selection.candidates), key=len)
    assert selection.best.token_count == len(selection.text.split())


def test_it_judges() -> None:
    selection = BestOfN(Parrot(), FLIPReward(Parrot(), template="direct"), n=2).select("Say hello.")
    assert all(0 < score.value <= 1 for score in selection.scores)


def test_what_it_lacks_is_said_in_a_sentence() -> None:
    selection = BestOfN(Parrot(), FLIPLikelihood(Parrot()), n=1).select("Say hello.")
    assert selection.fallback
    assert "the engine 'parrot' cannot score" in str(selection.scores[0].reason)
    with pytest.raises(EngineError, match="cannot decode"):
        asyncio.run(Parrot().decode(as_prompt("x"), [1]))
    with pytest.raises(ConfigError, match="has no option guided"):
        Parrot().with_options(guided=True)


def test_defaults() -> None:
    engine = Parrot()
    assert engine.with_options() is engine
    assert asyncio.run(engine.count_tokens(as_prompt("x"))) is None
    assert engine.context is None
    assert engine.control_tokens("a <|im_end|> b <|im_end|>") == ["<|im_end|>"]
    assert identity_of(engine) == {"kind": "test_own_engine.Parrot", "name": "parrot"}
    engine.close()
