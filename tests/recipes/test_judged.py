"""A judge's preference over a reference response as a gold verdict."""

from math import exp, log
from pathlib import Path
from typing import Any

import pytest
from fakes import ScriptedEngine

from bestofn import concurrency
from bestofn.engines.base import TokenScores
from bestofn.errors import ConfigError
from bestofn.prompts import as_prompt
from bestofn.recipe import load_recipe
from bestofn.rewards.gold import Gold
from bestofn.types import Candidate, Prompt, Usage
from bestofn.verifiers import load_verifier
from recipes.judged import VARIABLE, AgainstReference

PROMPT = as_prompt("Name a fruit.", columns={"output": "An apple."})


class Judge(ScriptedEngine):
    """Says A with the probability that a function of the two answers gives."""

    def __init__(self, probability_of_a: Any) -> None:
        super().__init__()
        self.probability_of_a = probability_of_a

    async def loglikelihood(self, prompt: Prompt, continuation: str, **options: Any) -> TokenScores:
        self.scored.append((prompt, continuation))
        text = prompt.messages[-1].content
        first = text.split("# Answer A\n")[1].split("\n\n# Answer B")[0]
        second = text.split("# Answer B\n")[1].split("\n\nWhich")[0]
        a = self.probability_of_a(first, second)
        return TokenScores([1], [log(a if continuation == "A" else 1 - a)], Usage())


def preference(probability_of_a: Any, response: str) -> float:
    return AgainstReference(Judge(probability_of_a))(PROMPT, response)


def likes_long(first: str, second: str) -> float:
    return 1 / (1 + exp(len(second) - len(first)))


def test_the_better_response_is_preferred() -> None:
    assert preference(likes_long, "A ripe red apple.") > 0.99
    assert preference(likes_long, "No.") < 0.01
    assert preference(likes_long, "An apple.") == pytest.approx(0.5)  # the reference itself


def test_the_preference_of_both_orders_is_averaged() -> None:
    probabilities = {("x", "An apple."): 0.9, ("An apple.", "x"): 0.4}
    found = preference(lambda first, second: probabilities[first, second], "x")
    assert found == pytest.approx((0.9 + 0.6) / 2)
    for bias in (0.01, 0.3, 0.99):  # towards a place
        assert preference(lambda *_, bias=bias: bias, "x") == pytest.approx(0.5)


@pytest.mark.parametrize("length", [0, 9, 700])
def test_it_is_a_probability(length: int) -> None:
    def sure(first: str, second: str) -> float:
        return min(max(likes_long(first, second), 1e-300), 1 - 1e-16)

    assert 0 <= preference(sure, "x" * length) <= 1


def test_the_judge_sees_request_and_both_answers() -> None:
    judge = Judge(likes_long)
    AgainstReference(judge)(PROMPT, "A {pear}.")
    texts = {prompt.messages[-1].content for prompt, _ in judge.scored}
    assert len(texts) == 2
    assert all("Name a fruit." in t and "A {pear}." in t and "An apple." in t for t in texts)
    assert {letter for _, letter in judge.scored} == {"A", "B"}


def test_the_reference_is_in_a_column() -> None:
    verifier = AgainstReference(Judge(likes_long), column="best")
    prompt = as_prompt("Name a fruit.", columns={"best": "Fig"})
    assert verifier(prompt, "Fig") == pytest.approx(0.5)
    with pytest.raises(ConfigError, match="has no column 'output'; it has 'best'"):
        AgainstReference(Judge(likes_long))(prompt, "z")


def test_without_a_judge_it_says_how_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(ConfigError, match=f"name the judge, such as {VARIABLE}=vllm:MODEL"):
        AgainstReference()
    with pytest.raises(ConfigError, match="name the judge"):
        load_verifier("recipes.judged:AgainstReference")


def test_as_gold_on_the_embedded_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "tiny")
    reward = Gold(load_verifier("recipes.judged:AgainstReference"))
    scores = concurrency.run(
        reward.score(PROMPT, [Candidate(0, "A pear."), Candidate(1, "An apple.")])
    )
    assert 0 <= scores[0].value <= 1
    assert scores[1].value == pytest.approx(0.5, abs=1e-6)


def test_the_recipe_and_its_comment_name_it() -> None:
    path = Path(__file__).parents[2] / "recipes" / "alpaca_eval_bo16.yaml"
    assert load_recipe(path).score.verifier == "recipes.judged:AgainstReference"
    assert f"{VARIABLE}=" in path.read_text()
