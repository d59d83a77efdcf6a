"""Selection over a dataset: prompts in, the rows of their selections out, durably."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from inspect import signature
from os import PathLike
from pathlib import Path
from typing import Any, Unpack

from bestofn import concurrency
from bestofn.config import SelectConfig
from bestofn.dataset.config import check, loaded, same_selection, settings_of, source_options
from bestofn.dataset.run import Accept, BadRow, ErrorPolicy, Row, Work, run, skipped_of, timed
from bestofn.dataset.seen import read_output
from bestofn.dataset.sources import Source, SourceOptions, count_rows, iter_prompts
from bestofn.dataset.summary import Summary, counted
from bestofn.errors import BestOfNError, ConfigError, OtherProcessError
from bestofn.generators import EngineGenerator
from bestofn.identity import identity_of
from bestofn.resuming import input_of, same_spelled
from bestofn.sampler import BestOfN
from bestofn.store.journal import Confirm, begun_with
from bestofn.store.row import to_row
from bestofn.types import Prompt, Selection

USUAL = ErrorPolicy()
READING = {
    name: parameter.default
    for name, parameter in signature(iter_prompts).parameters.items()
    if name in SourceOptions.__annotations__
}
"""How a source is read by default."""


def select_dataset(
    source: Source,
    output: str | Path,
    best: BestOfN,
    *,
    ordered: bool = False,
    policy: ErrorPolicy = USUAL,
    settings: Mapping[str, Any] | None = None,
    progress: bool = True,
    **options: Unpack[SourceOptions],
) -> Summary:
    """Writes the selection for each prompt of a dataset to a JSONL file; a rerun resumes.

    A finished row is neither drawn nor written again. A prompt that stands in the source more than
    once is answered once. A prompt without a response gets a row with its `error`.

    Args:
        source: Where the rows come from; see `iter_prompts`.
        output: The file. Beside it stand its manifest, a lock and, where rows of the source were
            skipped, a file that names them.
        best: Draws and selects.
        ordered: Write rows in the order of the source, not as they finish.
        policy: What to do about what goes wrong.
        settings: What the rows depend on; a rerun with others is refused. By default the other
            arguments, with the identity of engine, reward and stop rule.
        progress: Show a bar, or without a terminal a line every half minute.
        options: How to read the source; see `iter_prompts`.

    Returns:
        What is in the file.

    Raises:
        ConfigError: the source or a row of it cannot be used, or the output was begun with other
            settings or is being written.
        BestOfNError: too many rows are without a response, or the disk is full.
    """
    given = _settings(source, best, options) if settings is None else settings
    work = partial(_select_here, best, ordered)
    return run_selection(
        source,
        Path(output),
        work,
        options,
        n=best.n,
        settings=given,
        compare=_differences,
        policy=policy,
        progress=progress,
    )


def select_file(config: SelectConfig, output: Path, *, progress: bool = True) -> Summary:
    """`select_dataset` for a configuration, its models loaded when a prompt needs them.

    Raises:
        ConfigError, BestOfNError: what `select_dataset` raises.
        EngineError: a model cannot be loaded.
    """
    return run_config(config, output, partial(_select_loaded, config), progress=progress)


def run_config(config: SelectConfig, output: Path, work: Work, *, progress: bool = True) -> Summary:
    """`select_file` with other work, such as that of a cluster."""
    check(config)
    return run_selection(
        config.prompts,
        output,
        work,
        source_options(config),
        n=config.n,
        settings=settings_of(config),
        compare=same_selection,
        policy=ErrorPolicy(config.on_bad_row, config.max_error_rate, config.retry_errors),
        progress=progress,
    )


def _select_loaded(
    config: SelectConfig, prompts: Iterator[Prompt], confirm: Confirm
) -> Iterator[Row]:
    with loaded(config) as best:
        confirm(settings_of(config, best))
        yield from _select_here(best, config.ordered, prompts, confirm)


def _settings(source: object, best: BestOfN, options: SourceOptions) -> dict[str, Any]:
    settings: dict[str, Any] = READING | dict(options)
    del settings["limit"]
    if isinstance(source, str | PathLike):
        settings["prompts"] = input_of(os.fspath(source))
    generator = best.generator
    if isinstance(generator, EngineGenerator):
        settings["engine"] = generator.engine.name
        settings["seed"] = generator.seed
        settings |= asdict(generator.params)
    return settings | {"n": best.n, "reward": best.reward.name, "identity": _identity(best)}


def _identity(best: BestOfN) -> dict[str, Any]:
    """What the names in `_settings` do not say."""
    found: dict[str, Any] = {
        "engine": identity_of(best.generator),
        "reward": identity_of(best.reward),
    }
    if best.stop is not None:
        found["stop_rule"] = identity_of(best.stop) | {"round_size": best.round_size}
    if getattr(best.generator, "keep_tokens", False):
        found["keep_tokens"] = True
    return found


def _differences(begun: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """What differs between the settings of `select_dataset`; those not recorded are defaults."""
    return same_spelled(READING | dict(begun), READING | dict(wanted))


def _select_here(
    best: BestOfN, ordered: bool, prompts: Iterator[Prompt], _: Confirm
) -> Iterator[Row]:
    """Rows by the engine of this process."""
    select = partial(select_row, best)
    selections = concurrency.map_in_window(select, prompts, best.window, ordered=ordered)
    return timed(map(to_row, selections), "select")


async def select_row(best: BestOfN, prompt: Prompt) -> Selection:
    """The selection for a prompt, with an error where anything went wrong."""
    started = time.perf_counter()
    try:
        return await best.aselect(prompt)
    except OtherProcessError:
        raise
    except Exception as error:
        sentence = str(error) if isinstance(error, BestOfNError) else f"{error!r}"
        failed = Selection(prompt, [], index=0, reward=best.reward.name, error=sentence)
        failed.usage.seconds = time.perf_counter() - started
        return failed


def run_selection(
    source: Source,
    output: Path,
    work: Work,
    options: SourceOptions,
    **how: Any,
) -> Summary:
    """`run` over a source of rows, whose prompts are read as they are needed.

    Raises:
        ConfigError: what `run` raises, or the source holds no prompts.
    """
    _check_apart(source, output)

    def prompts(accept: Accept, bad_row: BadRow) -> Iterator[Prompt]:
        return iter_prompts(source, accept=accept, bad_row=bad_row, **options)

    summary = run(prompts, output, work, total=_expected(source, options), **how)
    if summary.met == 0 and options.get("shard") is None:
        raise ConfigError(_nothing_to_do(source, output, summary))
    return summary


def _check_apart(source: Source, output: Path) -> None:
    """Refuses to write rows where they would be read as prompts."""
    if not isinstance(source, str | PathLike):
        return
    folder = Path(source).resolve()
    if output.parent.resolve() in (folder, folder / "data"):
        raise ConfigError(f"{output} is in the folder that is read; write to another folder")


def summary_of(output: Path) -> Summary:
    """What is in an output file and in those beside it.

    Raises:
        ConfigError: it cannot be read.
    """
    summary = Summary(n=_most_candidates(output))
    for row in read_output(output):
        summary.add(row)
    with suppress(OSError), skipped_of(output).open("rb") as lines:
        summary.bad_rows = sum(1 for _ in lines)
    return summary


def _most_candidates(output: Path) -> int:
    """How many candidates a row may have, 0 where that is not known."""
    try:
        return int(begun_with(output).get("n", 0))
    except (OSError, ValueError, TypeError):
        return 0


def _expected(source: Source, options: SourceOptions) -> int | None:
    """About how many rows the output will have."""
    rows, limit, shard = count_rows(source), options.get("limit"), options.get("shard")
    if rows is not None and limit is not None:
        rows = min(rows, limit)
    return rows if rows is None or shard is None else rows // shard[1]


def _nothing_to_do(source: Source, output: Path, summary: Summary) -> str:
    name = str(source) if isinstance(source, str | PathLike) else "the source"
    if not summary.bad_rows:
        return f"{name} holds no prompts"
    rows = counted(summary.bad_rows, "row")
    return f"none of the {rows} of {name} can be used; {skipped_of(output)} says why"
