"""Selection over a dataset: prompts in, the rows of their selections out, durably."""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Unpack

from bestofn import concurrency
from bestofn.config import SelectConfig
from bestofn.dataset.config import check, loaded, same_selection, settings_of, source_options
from bestofn.dataset.run import Accept, BadRow, ErrorPolicy, Work, run, skipped_of, timed
from bestofn.dataset.sources import PromptForm, Source, SourceOptions, count_rows, iter_prompts
from bestofn.dataset.summary import Summary, counted
from bestofn.errors import BestOfNError, ConfigError, OtherProcessError
from bestofn.generators import EngineGenerator
from bestofn.identity import identity_of
from bestofn.resuming import input_of, same_spelled
from bestofn.sampler import BestOfN
from bestofn.store.journal import Confirm, begun_with
from bestofn.store.pool import stream
from bestofn.types import Pool, Prompt, Selection

USUAL = ErrorPolicy()
READING = asdict(PromptForm())
"""How a source is read by default."""


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
    for row in stream(output):
        summary.add(row)
    with suppress(OSError), skipped_of(output).open("rb") as lines:
        summary.bad_rows = sum(1 for _ in lines)
    return summary


# --- what rows depend on --------------------------------------------------------------------------


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
    if getattr(generator, "keep_tokens", False):
        found["keep_tokens"] = True
    return settings | {"n": best.n, "reward": best.reward.name, "identity": found}


def _differences(begun: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """What differs between the settings of `select_dataset`; those not recorded are defaults."""
    return same_spelled(READING | dict(begun), READING | dict(wanted))
