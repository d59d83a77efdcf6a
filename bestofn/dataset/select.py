"""Selection over a dataset: prompts in, the rows of their selections out, durably."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Unpack, cast

from bestofn import concurrency
from bestofn.config import AskConfig, SelectConfig
from bestofn.dataset.run import Accept, BadRow, ErrorPolicy, Work, run, skipped_of, timed
from bestofn.dataset.sources import PromptForm, Source, SourceOptions, count_rows, iter_prompts
from bestofn.dataset.summary import Summary, counted
from bestofn.engines.base import SamplingParams
from bestofn.errors import BestOfNError, ConfigError, OtherProcessError
from bestofn.generators import EngineGenerator, Generator
from bestofn.identity import identity_of
from bestofn.models import Engines
from bestofn.registry import is_own
from bestofn.rejection import EarlyRejection
from bestofn.resuming import comparing, engine_files, input_of, same_spelled
from bestofn.rewards.base import (
    is_pointwise,
    load_reward,
    needs_engine,
    reads_confidence,
    reward_identity,
)
from bestofn.sampler import BestOfN
from bestofn.scoring import RewardModel
from bestofn.selectors import Best, Selector, Vote, WeightedVote, load_selector
from bestofn.stopping import ExpectedGain
from bestofn.store import pool
from bestofn.store.journal import Confirm, begun_with
from bestofn.types import Pool, Prompt, Selection

USUAL = ErrorPolicy()
NEGATIVE = ("flip-likelihood", "mutual", "mean-logprob", "shortest")
"""Rewards whose values are below 0."""
READING = asdict(PromptForm())
"""How a source is read by default."""
DRAWING = asdict(SamplingParams())
"""How an engine draws by default."""
same_selection = comparing(
    SelectConfig,
    described=(
        *("reward", "reward_options", "verifier"),
        *("adaptive", "adaptive_prior", "adaptive_weight"),
    ),
)
"""What differs between the settings of two selections."""
FREE = {"limit", "window", "ordered", "on_bad_row", "max_error_rate", "retry_errors"}


def select_dataset(
    source: Source,
    output: str | Path,
    best: BestOfN,
    *,
    ordered: bool = False,
    policy: ErrorPolicy = USUAL,
    progress: bool = True,
    **options: Unpack[SourceOptions],
) -> Summary:
    """Writes the selection for each prompt of a dataset to a JSONL file; a rerun resumes.

    A prompt that is in the source more than once is answered once. One without a response gets a
    row with its `error`. A rerun with another engine, reward or other arguments is refused.

    Args:
        source: Where the rows come from; see `iter_prompts`.
        output: The file. What else belongs to it is in the folder OUTPUT.run beside it.
        best: Draws and selects.
        ordered: Write rows in the order of the source, not as they finish.
        policy: What to do about what goes wrong.
        progress: Show a bar, or without a terminal a line every half minute.
        options: How to read the source; see `iter_prompts`.

    Returns:
        What is in the file.

    Raises:
        ConfigError: the source or a row of it cannot be used, or the output was begun with other
            arguments or is being written.
        BestOfNError: too many rows are without a response, or the disk is full.
    """
    return _run(
        source,
        Path(output),
        lambda prompts, _: _select(best, ordered, prompts),
        options,
        n=best.n,
        settings=_settings(source, best, options),
        compare=_differences,
        policy=policy,
        progress=progress,
    )


def select_file(
    config: SelectConfig, output: Path, *, work: Work | None = None, progress: bool = True
) -> Summary:
    """`select_dataset` for a configuration.

    Its models are loaded when a prompt needs them, or other work is done, such as on a cluster.
    """

    def here(prompts: Iterator[Prompt], confirm: Confirm) -> Iterator[Pool]:
        with loaded(config) as best:
            confirm(settings_of(config, best))
            yield from _select(best, config.ordered, prompts)

    check(config)
    return _run(
        config.prompts,
        output,
        work or here,
        source_options(config),
        n=config.n,
        settings=settings_of(config),
        compare=same_selection,
        policy=ErrorPolicy(config.on_bad_row, config.max_error_rate, config.retry_errors),
        progress=progress,
    )


def _run(source: Source, output: Path, work: Work, options: SourceOptions, **how: Any) -> Summary:
    """`run` over a source of rows, whose prompts are read as they are needed."""
    name = "the source"
    if isinstance(source, str | PathLike):
        name = str(source)
        folder = Path(source).resolve()
        if output.parent.resolve() in (folder, folder / "data"):
            raise ConfigError(f"{output} is in the folder that is read; write to another folder")

    def prompts(accept: Accept, bad_row: BadRow) -> Iterator[Prompt]:
        return iter_prompts(source, accept=accept, bad_row=bad_row, **options)

    total, limit, shard = count_rows(source), options.get("limit"), options.get("shard")
    if total is not None:
        total = min(total, limit or total) // (shard[1] if shard else 1)
    summary = run(prompts, output, work, total=total, **how)
    if summary.met == 0 and shard is None:
        if not summary.bad_rows:
            raise ConfigError(f"{name} holds no prompts")
        rows = counted(summary.bad_rows, "row")
        raise ConfigError(
            f"none of the {rows} of {name} can be used; {skipped_of(output)} says why"
        )
    return summary


def _select(best: BestOfN, ordered: bool, prompts: Iterator[Prompt]) -> Iterator[Pool]:
    """Selections by the engine of this process."""
    work = partial(select_row, best)
    selections = concurrency.map_in_window(work, prompts, best.window, ordered=ordered)
    return timed((selection, {"select": 1.0}) for selection in selections)


async def select_row(best: BestOfN, prompt: Prompt) -> Selection:
    """The selection for a prompt, with an error where anything went wrong."""
    try:
        return await best.aselect(prompt)
    except OtherProcessError:
        raise
    except Exception as error:
        sentence = str(error) if isinstance(error, BestOfNError) else f"{error!r}"
        return Selection(prompt, [], index=0, reward=best.reward.name, error=sentence)


def summary_of(output: Path) -> Summary:
    """What is in an output file and in those beside it."""
    summary = Summary(n=(begun_with(output) or {}).get("n", 0))
    for row in pool.stream(output):
        summary.add(row)
    with suppress(OSError), skipped_of(output).open("rb") as lines:
        summary.bad_rows = sum(1 for _ in lines)
    return summary


# --- a configuration, and what it loads -----------------------------------------------------------


def check(config: AskConfig) -> None:
    """Finds what is wrong before anything is read or loaded.

    Raises:
        ConfigError: a setting makes no sense, or does nothing beside the others.
    """
    chooses = config.chooses  # whose name and options are looked at
    if config.reward == "gold":
        load_reward("gold", verifier=config.verifier, **chooses.options)
    unscored = not needs_engine(config.reward)
    idle = {"reward_engine": unscored, "reward_engine_options": unscored}
    idle["verifier"] = config.reward != "gold"
    idle["reject_keep"] = not config.reject
    if isinstance(config, SelectConfig):
        fixed = config.adaptive is None
        idle |= dict.fromkeys(("adaptive_prior", "adaptive_weight", "round_size"), fixed)
    for name in sorted(config.model_fields_set):
        if idle.get(name):
            raise ConfigError(f"{name} does nothing beside the other options; leave it out")
    config.sampling()
    stop, selector = stopping(config), selector_of(config)
    if config.answer is not None and not isinstance(selector, Vote):
        raise ConfigError(f"answer does nothing with the selector {config.selector!r}")
    if config.confidence is None and reads_confidence(config.reward):
        raise ConfigError(
            f"the reward {config.reward!r} reads how certain the model was; have that kept with "
            "confidence: 'all', or so many of the likeliest tokens (--confidence 20)"
        )
    check_weights(selector, config.reward)
    if config.reject and not is_pointwise(config.reward):
        raise ConfigError(f"reject needs a pointwise reward, which {config.reward!r} is not")
    rejection(config)
    if stop is not None and type(selector) is not Best:
        raise ConfigError("adaptive expects the highest score to be chosen; leave out selector")


def check_weights(selector: Selector, reward: str) -> None:
    """Refuses votes that would be weighed with negative numbers."""
    if isinstance(selector, WeightedVote) and reward in NEGATIVE:
        raise ConfigError(
            f"a vote's weight cannot be negative, as values of {reward!r} are; weigh with a reward "
            "from 0 on, such as 'flip'"
        )


def selector_of(config: AskConfig) -> Selector:
    """What chooses by the scores."""
    selector = load_selector(config.selector, config.answer or str.strip)
    if selector.draws:
        selector.seed = config.seed or 0
    return selector


def rejection(config: AskConfig) -> EarlyRejection | None:
    """Which candidates end early, None for none."""
    return EarlyRejection(tuple(config.reject), config.reject_keep) if config.reject else None


@contextmanager
def loaded(config: AskConfig) -> Iterator[BestOfN]:
    """What draws and selects, with its models in memory.

    Raises:
        ConfigError: a setting makes no sense.
        EngineError: a model cannot be loaded.
    """
    chooses = config.chooses
    scorer = config.scorer(config) if needs_engine(config.reward) else None
    with Engines() as engines:
        generator, judges = engines.drawing(config, *filter(None, [scorer]))
        reward = load_reward(
            chooses.reward,
            engine=judges[0] if judges else None,
            verifier=config.verifier,
            **chooses.options,
        )
        yield best_of(config, generator, reward)


def best_of(
    config: AskConfig, generator: Generator, reward: RewardModel, budget: int | None = None
) -> BestOfN:
    """What draws and selects as a configuration says.

    Raises:
        ConfigError: a setting makes no sense.
    """
    how: dict[str, Any] = {"stop": stopping(config), "selector": selector_of(config)}
    how |= {"reject": rejection(config), "budget": budget}
    check_weights(how["selector"], reward.name)
    if isinstance(config, SelectConfig):
        how |= {"window": config.window, "round_size": config.round_size}
    return BestOfN(generator, reward, n=config.n, **how)


def stopping(config: AskConfig) -> ExpectedGain | None:
    """When a prompt has enough candidates, None where all get the same number.

    Raises:
        ConfigError: the scores to expect are missing, or unreadable.
    """
    if not isinstance(config, SelectConfig) or config.adaptive is None:
        return None
    prior = None
    if config.adaptive_prior is not None:
        prior = _scores(Path(config.adaptive_prior), config.chooses.label)
    elif config.reward != "flip":
        raise ConfigError(
            f"--adaptive with {config.reward!r} needs --adaptive-prior: a pool file that "
            "`bestofn score` has given its scores"
        )
    return ExpectedGain(config.adaptive, prior=prior, weight=config.adaptive_weight)


def _scores(path: Path, reward: str) -> list[float]:
    scores = [c.scores.get(reward) for row in pool.read(path) for c in row.candidates]
    if not any(scores):
        raise ConfigError(f"the pool {path} has no scores of {reward!r}; add them first")
    return [score.value for score in scores if score is not None]


def source_options(config: SelectConfig) -> SourceOptions:
    """How the input is read."""
    names = SourceOptions.__annotations__
    return cast(SourceOptions, {name: getattr(config, name) for name in names})


# --- what rows depend on --------------------------------------------------------------------------


def settings_of(config: SelectConfig, best: BestOfN | None = None) -> dict[str, Any]:
    """What the rows depend on, more exactly once the engines are loaded."""
    chooses, scoring = config.chooses, getattr(best and best.reward, "engine", None)
    found = engine_files(config, getattr(best and best.generator, "engine", None))
    scorer = config.scorer(config) if needs_engine(config.reward) else None
    if scorer is not None and config.reward_engine is not None:
        found |= engine_files(scorer, scoring, "reward_")
    found["reward"] = reward_identity(
        chooses.reward,
        engine=scoring or (scorer or config).described(),
        verifier=config.verifier,
        **chooses.options,
    )
    if stop := stopping(config):
        found["stop_rule"] = stop.identity()
    if is_own("selector", config.selector):
        found["selector"] = selector_of(config).identity()
    given = config.model_dump(mode="json", exclude=FREE)
    return given | {"prompts": input_of(config.prompts), "identity": found}


def _settings(source: object, best: BestOfN, options: SourceOptions) -> dict[str, Any]:
    settings: dict[str, Any] = READING | dict(options)
    del settings["limit"]
    if isinstance(source, str | PathLike):
        settings["prompts"] = input_of(os.fspath(source))
    generator = best.generator
    if isinstance(generator, EngineGenerator):
        settings |= {"engine": generator.engine.name, "seed": generator.seed}
        settings |= asdict(generator.params)
    found: dict[str, Any] = {"engine": identity_of(generator), "reward": identity_of(best.reward)}
    if best.stop is not None:
        found["stop_rule"] = identity_of(best.stop) | {"round_size": best.round_size}
    if best.budget is not None:
        found["budget"] = best.budget
    if best.reject is not None:
        found["reject"] = identity_of(best.reject)
    if type(best.selector) is not Best:
        found["selector"] = identity_of(best.selector)
    if getattr(generator, "keep_tokens", False):
        found["keep_tokens"] = True
    return settings | {"n": best.n, "reward": best.reward.name, "identity": found}


def _differences(begun: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """What differs between the settings of `select_dataset`; those not recorded are defaults."""
    usual = READING | DRAWING
    return same_spelled(usual | dict(begun), usual | dict(wanted))
