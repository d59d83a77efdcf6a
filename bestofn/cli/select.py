"""Commands over datasets: select, export."""

from dataclasses import asdict
from os.path import lexists
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from bestofn.cli.app import Json, Output, app, console, notes, options, section, show
from bestofn.config import ClusterConfig, Section, SelectConfig
from bestofn.dataset.export import Format, require
from bestofn.dataset.export import export as write
from bestofn.dataset.exported import LEFT_OUT, Keep
from bestofn.dataset.select import select_file, summary_of
from bestofn.dataset.summary import Summary, counted
from bestofn.errors import ConfigError, RunFailedError
from bestofn.store.journal import is_locked


class RowsConfig(Section):
    """What becomes of the output of a selection."""

    fresh: bool = False
    """Where the file exists, begin another one beside it."""
    status: bool = False
    """Only say how far the file is, and whether it grows."""
    format: Format | None = None
    """Export the rows in the end as well, as jsonl, parquet, csv or hf; see `bestofn export`."""
    keep: Keep = "best"
    """What of them is exported."""


@app.command()
@options(SelectConfig, ClusterConfig, RowsConfig, without=["prompts"])
def select(
    output: Output,
    prompts: Annotated[
        str | None, typer.Argument(help=str(SelectConfig.model_fields["prompts"].description))
    ] = None,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Write the best of N responses to each prompt of a dataset; rerun the command to resume.

    Exit code 1 says that too many rows have no response, or none has one that a score has chosen.
    """
    rows = section(RowsConfig, given)
    if rows.status:
        _show_status(output, as_json)
        return
    if prompts is None:
        raise ConfigError("name the input, such as prompts.jsonl")
    config, cluster = section(SelectConfig, given, prompts=prompts), section(ClusterConfig, given)
    path = _unused(output) if rows.fresh else output
    target = _target(path, rows, prompts)
    try:
        summary = _select(config, cluster, path)
    except RunFailedError:
        if as_json:
            _show_status(path, as_json)
        raise
    notes.print(f"wrote {path}", style="dim")
    if target is not None:
        exported = write(path, target, keep=rows.keep, format=rows.format, overwrite=True)
        notes.print(f"wrote {counted(exported.records, 'record')} to {target}", style="dim")
    _show(summary, as_json)
    if summary.rows and summary.failures + summary.fallbacks == summary.rows:
        raise RunFailedError(f"no row has a response that its score has chosen; {path} says why")


def _select(config: SelectConfig, cluster: ClusterConfig, output: Path) -> Summary:
    if cluster.cluster is None:
        return select_file(config, output)
    from bestofn.dataset.ray import select_on_cluster

    return select_on_cluster(config, cluster, output)


def _target(path: Path, rows: RowsConfig, prompts: str) -> Path | None:
    """Where the export goes, refused before anything is drawn if it may not go there."""
    if rows.format is None:
        if "keep" in rows.model_fields_set:
            raise ConfigError("--keep says what is exported; name the format as well (--format)")
        return None
    kind = "" if rows.keep == "best" else f".{rows.keep}"
    target = path.with_name(f"{path.stem}{kind}.{rows.format}")
    # A file of that name is an earlier export of these rows, or not ours.
    ours = path.exists() and target.resolve() != Path(prompts).resolve()
    if target == path or (lexists(target) and not ours):
        raise ConfigError(f"{target} exists, and the export would replace it; name another output")
    require(rows.format)
    return target


def _unused(path: Path) -> Path:
    """The path, or where it is taken the first of its name with a number that is not."""
    number, free = 2, path
    while free.exists():
        number, free = number + 1, path.with_stem(f"{path.stem}-{number}")
    return free


def _show_status(output: Path, as_json: bool) -> None:
    summary, running = summary_of(output), is_locked(output)
    if not as_json:
        writing = "a run writes it" if running else "no run writes it"
        console.print(Text(f"{output}: {writing}"), soft_wrap=True)
    _show(summary, as_json, running=running)


def _show(summary: Summary, as_json: bool, **more: Any) -> None:
    text = Text("\n".join(summary.lines()))
    show(asdict(summary) | more, as_json, lambda _: console.print(text, soft_wrap=True))


class ExportConfig(Section):
    """What is exported of rows."""

    format: Format | None = None
    """'jsonl', 'parquet', 'csv', or 'hf', which is a dataset's folder; by default what the file's
    name ends in."""
    keep: Keep = "best"
    """The best response of each row, 'all' candidates, or for training: 'preference' is pairs of
    the best and the worst response, 'sft' conversations that end with the best one; 'pool' is the
    rows of a pool with all their scores."""
    reward: str | None = None
    """What chooses, if not the reward that chose already."""
    min_margin: float = 0.0
    """By how much the scores of a pair must differ."""
    overwrite: bool = False
    """Replace an output that exists."""


@app.command()
@options(ExportConfig)
def export(
    rows: Annotated[
        Path, typer.Argument(help="Rows as `bestofn select` writes them, or a scored pool file.")
    ],
    output: Output,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Write rows of selections as JSONL, Parquet, CSV or a dataset, also for training with TRL.

    A row's own column whose name is taken gets the prefix "column_".
    """
    exported = write(rows, output, **section(ExportConfig, given).model_dump())
    if not as_json:
        notes.print(f"wrote {counted(exported.records, 'record')} to {output}")
        for reason, count in exported.left_out.items():
            notes.print(f"left out {counted(count, 'row')} {LEFT_OUT[reason]}")
    show(asdict(exported), as_json, lambda _: None)
