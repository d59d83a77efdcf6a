"""Pools of M candidates for each of many prompts: drawn to memory or a file, and scored."""

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from statistics import fmean
from typing import Any

from bestofn import concurrency
from bestofn.config import PromptsConfig, SampleConfig
from bestofn.dataset.run import ErrorPolicy, Spent, run, timed
from bestofn.dataset.sources import read_prompts
from bestofn.dataset.summary import Summary
from bestofn.engines.base import Engine
from bestofn.errors import ConfigError, RunFailedError
from bestofn.generators import Generator, collect
from bestofn.models import Engines
from bestofn.resuming import comparing, engine_files, input_of
from bestofn.scoring import RewardModel, add_nested_scores, add_scores, without_cost
from bestofn.store.journal import Confirm
from bestofn.thinking import is_half_a_tag
from bestofn.types import Candidate, Pool, Prompt


def draw(
    prompts: Iterable[Prompt], generator: Generator, m: int, window: int | None = None
) -> Iterator[Pool]:
    """`m` candidates for each prompt, in the order of the prompts, which are read as needed.

    `window` is the number of prompts in flight, by default enough for 512 candidates.

    Raises:
        ConfigError: m is less than 1.
    """
    _check_m(m)

    async def work(prompt: Prompt) -> Spent:
        return Pool(prompt, await collect(generator.draw(prompt, m))), {"sample": 1.0}

    return timed(concurrency.map_in_window(work, prompts, concurrency.Window(m, window)))


def _check_m(m: int) -> None:
    if m < 1:
        raise ConfigError(f"m must be at least 1, not {m}")


# --- pool files -----------------------------------------------------------------------------------


def sample_file(
    config: SampleConfig, path: Path, engines: Engines, *, progress: bool = False
) -> Summary:
    """Draws a pool file, or what is missing of it, and says what is in it.

    A file that is there must have been begun with the same settings; `limit`, `window` and
    `retry_errors` may differ.

    Raises:
        ConfigError: a setting or a prompt is wrong, or the file has other settings.
        RunFailedError: the file has no candidate that could be drawn.
    """
    config.sampling()
    _check_m(config.m)
    prompts = prompts_of(config, system=config.system, shuffle=config.shuffle)

    def work(missing: Iterator[Prompt], confirm: Confirm) -> Iterator[Pool]:
        generator, _ = engines.drawing(config, keep_tokens=config.keep_tokens)
        confirm(_settings(config, getattr(generator, "engine", None)))
        return draw(missing, generator, config.m, config.window)

    summary = run(
        lambda accept, _: iter([*filter(accept, prompts)]),
        path,
        work,
        settings=_settings(config),
        compare=_same_pool,
        policy=ErrorPolicy(max_error_rate=1.0, retry_errors=config.retry_errors),
        otherwise="write to another file",
        columns=True,
        n=config.m,
        total=len(prompts),
        progress=progress,
        what="drawing",
    )
    if summary.failed and summary.failed == summary.candidates:
        raise RunFailedError(
            f"no candidate could be drawn: {summary.commonest()}; the same command with "
            "--retry-errors draws them again"
        )
    return summary


def prompts_of(config: PromptsConfig, **more: Any) -> list[Prompt]:
    """The prompts that a configuration names; ConfigError where there are none."""
    names = PromptsConfig.model_fields.keys() - {"prompts"}
    return read_prompts(config.prompts, **{n: getattr(config, n) for n in names}, **more)


_same_pool = comparing(SampleConfig)


def _settings(config: SampleConfig, engine: Engine | None = None) -> dict[str, Any]:
    """What the rows depend on, more exactly once the engine is loaded."""
    settings = config.model_dump(mode="json", exclude={"limit", "window", "retry_errors"})
    identity = engine_files(config, engine)
    return settings | {"prompts": input_of(config.prompts), "identity": identity}


# --- scores ---------------------------------------------------------------------------------------


def add(
    pools: Iterable[Pool],
    rewards: Sequence[RewardModel],
    *,
    limits: Sequence[int] = (),
    decoder: Engine | None = None,
    window: int | concurrency.Window = 32,
) -> Iterator[Pool]:
    """Adds the rewards' scores to the candidates of each pool, each distinct response once.

    Scores that are there stay.

    Args:
        pools: Read as they are needed.
        rewards: Score the candidates.
        limits: Token counts L, ascending: pointwise rewards also score the first L tokens of each
            candidate, under the name "REWARD@L".
        decoder: The engine that drew the candidates, which can read their tokens; with limits.
        window: Prompts in flight.

    Raises:
        ConfigError: limits are given without a decoder, or for candidates without token ids.
    """
    if limits and decoder is None:
        raise ConfigError("limits need the engine that drew the candidates, as decoder")

    async def work(pool: Pool) -> Spent:
        spent: dict[str, float] = {}
        for reward in rewards:
            started = time.perf_counter()
            if not has_scores(pool, reward.name):
                await add_scores(pool.prompt, pool.candidates, reward)
                spent[reward.name] = time.perf_counter() - started
            missing = [n for n in limits if not has_scores(pool, cut_name(reward.name, n))]
            if missing and reward.pointwise and decoder is not None:
                started = time.perf_counter()
                await _add_cut_scores(pool, reward, missing, decoder)
                spent[cut_name(reward.name, missing[0])] = time.perf_counter() - started
        return pool, spent

    return timed(concurrency.map_in_window(work, pools, window))


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
    responses = [await _cuts(pool.prompt, c, limits, decoder) for c in pool.candidates]
    await add_nested_scores(pool.prompt, responses, reward)
    for candidate, cuts in zip(pool.candidates, responses, strict=True):
        for limit, cut in zip_longest(limits, cuts):
            whole = candidate.scores[reward.name]
            score = without_cost(whole) if cut is None else cut.scores[reward.name]
            candidate.scores[cut_name(reward.name, limit)] = score


async def _cuts(
    prompt: Prompt, candidate: Candidate, limits: Sequence[int], decoder: Engine
) -> list[Candidate]:
    """The candidate as it would be, had it been drawn with `max_tokens` of each smaller limit."""
    if not candidate.whole:
        return []
    if candidate.token_ids is None:
        raise ConfigError(
            f"candidate {candidate.index} of prompt {prompt.id!r} has no token ids to cut; draw "
            "the pool with keep_tokens"
        )
    found = []
    for limit in (limit for limit in limits if limit < len(candidate.token_ids)):
        ids, logprobs = candidate.token_ids[:limit], (candidate.token_logprobs or [])[:limit]
        reasoning, text = await decoder.decode(prompt, ids)
        if _is_inside(candidate.reasoning, reasoning, text):
            reasoning, text = reasoning or "", ""
        # The last word may read otherwise once it is cut, and a stop string is no part of the text.
        whole, begun = candidate.text, text.rstrip("\ufffd").rstrip()
        if not (whole.startswith(begun) or begun.startswith(whole)):
            raise ConfigError(
                f"the tokens of candidate {candidate.index} of prompt {prompt.id!r} do not read as "
                "its text; name the engine that drew the pool, and one that only scores as the "
                "reward's"
            )
        cut = Candidate(candidate.index, text, reasoning, "length", token_count=limit)
        cut.token_ids = ids
        if logprobs:
            cut.mean_logprob, cut.sum_logprob = fmean(logprobs), sum(logprobs)
        found.append(cut)
    return found


def _is_inside(whole: str | None, reasoning: str | None, text: str) -> bool:
    """Whether a cut that seems to have an answer ends inside the reasoning of the whole response.

    Half an opening tag reads as an answer, and so does the rest of an outer block whose end the cut
    takes away.
    """
    if whole is None or reasoning == whole or not text:
        return False
    return is_half_a_tag(text) or (reasoning is not None and whole.startswith(reasoning))
