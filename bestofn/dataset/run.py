"""Selection over a dataset: prompts in, the rows of their selections out, durably."""

import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from inspect import signature
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any, Unpack

from bestofn import concurrency
from bestofn.dataset.config import Faults, SelectConfig, same_selection
from bestofn.dataset.progress import bar_of
from bestofn.dataset.seen import Ledger, has_response, read_output
from bestofn.dataset.sources import Source, SourceOptions, count_rows, iter_prompts
from bestofn.dataset.summary import Summary, counted
from bestofn.errors import BestOfNError, ConfigError, OtherProcessError, RunFailedError
from bestofn.generators import EngineGenerator
from bestofn.identity import Compare, by_identity, identity_of
from bestofn.resuming import input_of, moved, with_one_spelling
from bestofn.sampler import BestOfN
from bestofn.store import pool
from bestofn.store.journal import Confirm, begun_with, beside, cannot_write, open_journal
from bestofn.types import Prompt, Selection

Row = dict[str, Any]
Work = Callable[[Iterator[Prompt], Confirm], Iterator[Row]]
"""Turns prompts into the rows of their selections, in any order. Once more is known of the settings
than before, it confirms them."""

USUAL = Faults()
READING = {
    name: parameter.default
    for name, parameter in signature(iter_prompts).parameters.items()
    if name in SourceOptions.__annotations__
}
"""How a source is read by default."""
FIRST_ROWS = 20  # a share of errors says little before


def select_dataset(
    source: Source,
    output: str | Path,
    best: BestOfN,
    *,
    ordered: bool = False,
    faults: Faults = USUAL,
    settings: Mapping[str, Any] | None = None,
    progress: bool = True,
    **options: Unpack[SourceOptions],
) -> Summary:
    """Writes the selection for each prompt of a dataset to a JSONL file; a rerun goes on.

    A finished row is neither drawn nor written again. A prompt that stands in the source more than
    once is answered once. A prompt without a response gets a row with its `error`.

    Args:
        source: Where the rows come from; see `iter_prompts`.
        output: The file. Beside it stand its manifest, a lock and, where rows of the source were
            skipped, a file that names them.
        best: Draws and selects.
        ordered: Write rows in the order of the source, not as they finish.
        faults: What to do about what goes wrong.
        settings: What the rows depend on; a rerun with others is refused. By default the other
            arguments, with the identity of engine, reward and stop rule.
        progress: Show a bar, or without a terminal a line every half minute.
        options: How to read the source; see `iter_prompts`.

    Returns:
        What stands in the file.

    Raises:
        ConfigError: the source or a row of it cannot be used, or the output was begun with other
            settings or is being written.
        BestOfNError: too many rows are without a response, or the disk is full.
    """
    given = _settings(source, best, options) if settings is None else settings
    work = partial(_select_here, best, ordered)
    return run(
        source,
        Path(output),
        work,
        n=best.n,
        settings=given,
        compare=_differences,
        faults=faults,
        progress=progress,
        options=options,
    )


def select_file(config: SelectConfig, output: Path, *, progress: bool = True) -> Summary:
    """`select_dataset` for a configuration, its models loaded when a prompt needs them.

    Raises:
        ConfigError, BestOfNError: what `select_dataset` raises.
        EngineError: a model cannot be loaded.
    """
    config.check()
    return run(
        config.prompts,
        output,
        partial(_select_loaded, config),
        n=config.n,
        settings=config.settings(),
        compare=same_selection,
        faults=config.faults(),
        progress=progress,
        options=config.source_options(),
    )


def _select_loaded(
    config: SelectConfig, prompts: Iterator[Prompt], confirm: Confirm
) -> Iterator[Row]:
    first = next(prompts, None)
    if first is not None:
        with config.loaded() as best:
            confirm(config.settings(best))
            yield from _select_here(best, config.ordered, chain([first], prompts), confirm)


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
    before, now = (READING | with_one_spelling(settings) for settings in (begun, wanted))
    return by_identity(moved(before, now), now)


def _select_here(
    best: BestOfN, ordered: bool, prompts: Iterator[Prompt], _: Confirm
) -> Iterator[Row]:
    """Rows by the engine of this process."""
    select = partial(select_row, best)
    selections = concurrency.map_in_window(select, prompts, best.window, ordered=ordered)
    return timed(map(pool.to_row, selections))


def timed(rows: Iterator[Row]) -> Iterator[Row]:
    """Gives each row its share of the run's time: that since the row before it."""
    last = time.perf_counter()
    for row in rows:
        now = time.perf_counter()
        row["seconds"] = {"select": round(now - last, 6)}
        last = now
        yield row


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


def run(
    source: Source,
    output: Path,
    work: Work,
    *,
    n: int,
    settings: Mapping[str, Any],
    compare: Compare,
    faults: Faults,
    progress: bool,
    options: SourceOptions,
) -> Summary:
    """`select_dataset` with other work, such as that of a cluster."""
    if output.suffix in (".gz", ".zst"):
        raise ConfigError(f"rows are not written compressed; name another file than {output}")
    _check_apart(source, output)
    keep = has_response if faults.retry_errors else None
    otherwise = "write to another file (--fresh)"
    with open_journal(output, settings, otherwise, keep, compare) as journal:
        summary, ledger = Summary(), Ledger()
        for row in read_output(output):
            ledger.answered(row)
            summary.add(row, n)
        summary.earlier = summary.rows
        skipped = Skipped(output, summary)
        bad_row = skipped if faults.on_bad_row == "skip" else None
        met = itertools.count()
        accept = partial(_is_new, ledger, summary, met)
        prompts = iter_prompts(source, accept=accept, bad_row=bad_row, **options)
        with bar_of(summary, _expected(source, options), shown=progress) as bar:
            for row in work(prompts, journal.confirm):
                journal.append(pool.as_line(row))
                summary.add(row, n)
                bar.update()
                if summary.rows >= FIRST_ROWS:
                    _check_errors(summary, faults.max_error_rate)
        if next(met) == 0 and options.get("shard") is None:
            raise ConfigError(_nothing_to_do(source, skipped))
    _check_errors(summary, faults.max_error_rate)
    return summary


def _check_apart(source: Source, output: Path) -> None:
    """Refuses to write rows where they would be read as prompts."""
    if not isinstance(source, str | PathLike):
        return
    folder = Path(source).resolve()
    if output.parent.resolve() in (folder, folder / "data"):
        raise ConfigError(f"{output} is in the folder that is read; write to another folder")


def summary_of(output: Path) -> Summary:
    """What stands in an output file and in those beside it.

    Raises:
        ConfigError: it cannot be read.
    """
    summary, n = Summary(), _most_candidates(output)
    for row in read_output(output):
        summary.add(row, n)
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


def _nothing_to_do(source: Source, skipped: "Skipped") -> str:
    name = str(source) if isinstance(source, str | PathLike) else "the source"
    if not skipped.summary.bad_rows:
        return f"{name} holds no prompts"
    rows = counted(skipped.summary.bad_rows, "row")
    return f"none of the {rows} of {name} can be used; {skipped.path} says why"


def _is_new(ledger: Ledger, summary: Summary, met: Iterator[int], prompt: Prompt) -> bool:
    next(met)
    known = ledger.meet(prompt)
    summary.repeated += known == "repeated"
    return known == "new"


def _check_errors(summary: Summary, most: float) -> None:
    """Ends a run in which too many rows are without a response; those of earlier runs count too.

    Raises:
        RunFailedError: it is one.
    """
    if summary.failures > most * summary.rows:
        raise RunFailedError(
            f"{summary.failures} of {counted(summary.rows, 'row')} are without a "
            f"response, most often because: {summary.often()[0]}; the rows "
            "are kept, and the same command with --retry-errors answers them again"
        )


def skipped_of(output: Path) -> Path:
    """Where the rows of the source are named that could not be used."""
    return beside(output, ".skipped")


class Skipped:
    """Names rows of the source that could not be used: the first on stderr, all in a file."""

    SHOWN = 20

    def __init__(self, output: Path, summary: Summary) -> None:
        self.path = skipped_of(output)
        self.summary = summary
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def __call__(self, fault: ConfigError) -> None:
        self.summary.bad_rows += 1
        try:
            with self.path.open("a", encoding="utf-8", errors="replace") as file:
                file.write(f"{fault}\n")
        except OSError as error:
            raise cannot_write(self.path, error) from error
        if self.summary.bad_rows <= self.SHOWN:
            print(f"skipped: {fault}", file=sys.stderr)
        elif self.summary.bad_rows == self.SHOWN + 1:
            print(f"further rows that are skipped are named in {self.path}", file=sys.stderr)
