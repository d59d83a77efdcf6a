"""Drawing pools of candidates and adding scores to them, as streams."""

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from statistics import fmean

from bestofn import concurrency
from bestofn.engines.base import Engine
from bestofn.errors import ConfigError
from bestofn.generators import Generator, collect
from bestofn.scoring import RewardModel, add_nested_scores, add_scores, without_cost
from bestofn.thinking import is_half_a_tag
from bestofn.types import Candidate, Pool, Prompt


def draw(
    prompts: Iterable[Prompt], generator: Generator, m: int, window: int | None = None
) -> Iterator[Pool]:
    """`m` candidates for each prompt, in the order of the prompts.

    Args:
        prompts: Read as they are needed.
        generator: Draws the candidates.
        m: Their number.
        window: Prompts in flight, by default enough for 512 candidates.

    Raises:
        ConfigError: m is less than 1.
    """
    if m < 1:
        raise ConfigError(f"m must be at least 1, not {m}")

    async def work(prompt: Prompt) -> _Work:
        return Pool(prompt, await collect(generator.draw(prompt, m))), {"sample": 1.0}

    return _timed(concurrency.map_in_window(work, prompts, concurrency.Window(m, window)))


def add(
    pools: Iterable[Pool],
    rewards: Sequence[RewardModel],
    *,
    limits: Sequence[int] = (),
    decoder: Engine | None = None,
    again: bool = False,
    window: int | concurrency.Window = 32,
) -> Iterator[Pool]:
    """Adds the rewards' scores to the candidates of each pool, each distinct response once.

    Args:
        pools: Read as they are needed.
        rewards: All score the same candidates.
        limits: Token counts L, ascending: pointwise rewards also score the first L tokens of each
            candidate, under the name "REWARD@L".
        decoder: The engine that drew the candidates, which can read their tokens; with limits.
        again: Replace scores that are there, instead of keeping them.
        window: Prompts in flight.

    Raises:
        ConfigError: limits are given without a decoder, or for candidates without token ids.
    """
    if limits and decoder is None:
        raise ConfigError("limits need the engine that drew the candidates, as decoder")

    async def work(pool: Pool) -> _Work:
        spent: dict[str, float] = {}
        for reward in rewards:
            started = time.perf_counter()
            if again:
                pool.seconds.pop(reward.name, None)
            if again or not has_scores(pool, reward.name):
                await add_scores(pool.prompt, pool.candidates, reward)
                spent[reward.name] = time.perf_counter() - started
            missing = [n for n in limits if again or not has_scores(pool, cut_name(reward.name, n))]
            if missing and reward.pointwise:
                assert decoder is not None
                started = time.perf_counter()
                await _add_cut_scores(pool, reward, missing, decoder)
                spent[cut_name(reward.name, missing[0])] = time.perf_counter() - started
        return pool, spent

    return _timed(concurrency.map_in_window(work, pools, window))


_Work = tuple[Pool, dict[str, float]]


def _timed(results: Iterator[_Work]) -> Iterator[Pool]:
    """Shares the time since the last pool out over what this one's was spent on."""
    last = time.perf_counter()
    for pool, spent in results:
        now = time.perf_counter()
        total = sum(spent.values())
        for name, part in spent.items():
            pool.seconds[name] = pool.seconds.get(name, 0.0) + (now - last) * part / total
        last = now
        yield pool
        last += time.perf_counter() - now  # what the reader does with it is not our time


def cut_name(reward: str, limit: int) -> str:
    """The name of a reward's scores on the first `limit` tokens of each candidate."""
    return f"{reward}@{limit}"


def has_scores(pool: Pool, name: str) -> bool:
    """Whether every candidate has a score of that name."""
    return all(name in candidate.scores for candidate in pool.candidates)


async def _add_cut_scores(
    pool: Pool, reward: RewardModel, limits: Sequence[int], decoder: Engine
) -> None:
    """Scores the first tokens of each candidate; a shorter candidate's score is its own."""
    responses = []
    for candidate in pool.candidates:
        cuts = [
            await _cut(pool.prompt, candidate, limit, decoder)
            for limit in limits
            if limit < _token_count(pool.prompt, candidate)
        ]
        responses.append(cuts)
    await add_nested_scores(pool.prompt, responses, reward)
    for candidate, cuts in zip(pool.candidates, responses, strict=True):
        for limit, cut in zip_longest(limits, cuts):
            score = without_cost(candidate.scores[reward.name])
            if cut is not None:
                score = cut.scores[reward.name]
            candidate.scores[cut_name(reward.name, limit)] = score


def _token_count(prompt: Prompt, candidate: Candidate) -> int:
    if candidate.finish_reason == "error":
        return 0
    if candidate.token_ids is None:
        raise ConfigError(
            f"candidate {candidate.index} of prompt {prompt.id!r} has no token ids to cut; draw "
            "the pool with keep_tokens"
        )
    return len(candidate.token_ids)


async def _cut(prompt: Prompt, candidate: Candidate, limit: int, decoder: Engine) -> Candidate:
    """The candidate as it would be, had it been drawn with `max_tokens=limit`."""
    assert candidate.token_ids is not None
    ids, logprobs = candidate.token_ids[:limit], (candidate.token_logprobs or [])[:limit]
    reasoning, text = await decoder.decode(prompt, ids)
    if _is_inside(candidate.reasoning, reasoning, text):
        reasoning, text = reasoning or "", ""
    # The last word may read otherwise once it is cut, and a stop string is no part of the text.
    whole, begun = candidate.text, text.rstrip("\ufffd").rstrip()
    if not (whole.startswith(begun) or begun.startswith(whole)):
        raise ConfigError(
            f"the tokens of candidate {candidate.index} of prompt {prompt.id!r} do not read as its "
            "text; name the engine that drew the pool, and one that only scores as the reward's"
        )
    return Candidate(
        candidate.index,
        text,
        reasoning=reasoning,
        finish_reason="length",
        token_count=limit,
        mean_logprob=fmean(logprobs) if logprobs else None,
        sum_logprob=sum(logprobs) if logprobs else None,
        token_ids=ids,
    )


def _is_inside(whole: str | None, reasoning: str | None, text: str) -> bool:
    """Whether a cut that seems to have an answer ends inside the reasoning of the whole response.

    Half an opening tag reads as an answer, and so does the rest of an outer block whose end the cut
    takes away.
    """
    if whole is None or reasoning == whole or not text:
        return False
    return is_half_a_tag(text) or (reasoning is not None and whole.startswith(reasoning))
