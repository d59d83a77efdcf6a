"""What a judge would answer at once, from the probabilities of its answers."""

from collections.abc import Sequence
from math import exp, log
from sys import float_info

from bestofn.engines.base import Engine
from bestofn.errors import ContextLengthError, EngineError, OtherProcessError
from bestofn.types import Prompt, Score, Usage

LEAST_MASS = 0.1  # of the answers together, below which a model hardly meant to give one
TINY = float_info.min  # has a logarithm


async def from_probabilities(
    engine: Engine, question: Prompt, answers: Sequence[str], *, as_share: bool
) -> Score:
    """The verdict that the probabilities of the answers give, by one forward pass.

    The expected value of answers that are numbers. Of two words the log-odds of the first, or with
    `as_share` the share of the second. Flagged "unlikely_answers" where the model hardly meant any.
    """
    score = Score(counts={"calls": 1})
    try:
        logprobs, score.usage = await answer_logprobs(engine, question, answers)
    except OtherProcessError:
        raise
    except EngineError as error:
        cause = "too long" if isinstance(error, ContextLengthError) else "engine"
        score.reason, score.counts = f"{cause}: {error}", {"calls": 1, "unreadable": 1}
        return score
    if sum(map(exp, logprobs)) < LEAST_MASS:
        score.flags.append("unlikely_answers")
    top = max(logprobs)
    shares = [exp(logprob - top) for logprob in logprobs]  # whose sum is not 0
    if all(map(str.isdecimal, answers)):
        grades = zip(map(int, answers), shares, strict=True)
        score.value = sum(grade * share for grade, share in grades) / sum(shares)
    elif as_share:
        score.value = shares[1] / sum(shares)
    else:
        score.value = logprobs[0] - logprobs[1]
    return score


async def answer_logprobs(
    engine: Engine, question: Prompt, answers: Sequence[str]
) -> tuple[list[float], Usage]:
    """The log-probability of each answer.

    Those that begin with the same token take a pass each; one that is no more than this token, as 1
    beside 10, has what the longer ones leave of it.
    """
    first = await engine.first_tokens(question, answers)
    logprobs, usage = list(first.token_logprobs), first.usage
    places: dict[int, list[int]] = {}
    for place, token in enumerate(first.token_ids):
        places.setdefault(token, []).append(place)
    for same in (same for same in places.values() if len(same) > 1):
        shared, left = exp(logprobs[same[0]]), list[int]()
        for place in same:
            scores = await engine.loglikelihood(question, answers[place])
            logprobs[place] = sum(scores.token_logprobs)
            usage += scores.usage
            if len(scores.token_ids) == 1:
                left.append(place)
            else:
                shared -= exp(logprobs[place])
        for place in left:
            logprobs[place] = log(max(shared, TINY))
    return logprobs, usage
