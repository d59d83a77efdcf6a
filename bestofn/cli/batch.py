"""Commands over datasets: select, export."""

import json
from contextlib import nullcontext
from dataclasses import asdict
from os.path import lexists
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from bestofn.cli.app import Debug, Json, announce, app, console, most_often, notes, one_sentence
from bestofn.cli.options import options
from bestofn.config import OPTIONS, checked
from bestofn.dataset.config import ClusterConfig, SelectConfig
from bestofn.dataset.export import Format, require
from bestofn.dataset.records import Keep
from bestofn.dataset.summary import counted
from bestofn.errors import ConfigError, RunFailedError
from bestofn.types import Selection

if TYPE_CHECKING:
    from bestofn.dataset.summary import Summary


@app.command()
@options(SelectConfig, ClusterConfig, without=["prompts"])
def select(
    output: Annotated[Path, typer.Option("-o", "--output", help="The JSONL file to write.")],
    prompts: Annotated[
        str | None, typer.Argument(help=str(SelectConfig.model_fields["prompts"].description))
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Where the file exists, begin another one beside it.")
    ] = False,
    status: Annotated[
        bool, typer.Option("--status", help="Only say how far the file is, and whether it grows.")
    ] = False,
    format: Annotated[
        Format | None,
        typer.Option(help="Export the rows in the end as well; see `bestofn export`."),
    ] = None,
    keep: Annotated[
        Keep | None, typer.Option(help="What of them is exported. Default: best.")
    ] = None,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Write the best of N responses to each prompt of a dataset; rerun the command to resume.

    Exit code 1 says that too many rows have no response, or none has one that a score has chosen.
    """
    if status:
        _show_status(output, as_json)
        return
    if prompts is None:
        raise ConfigError("name the input, such as prompts.jsonl")
    there = {name: given.pop(name) for name in ClusterConfig.model_fields if name in given}
    config = checked(SelectConfig, given | {"prompts": prompts}, OPTIONS)
    cluster = checked(ClusterConfig, there, OPTIONS)
    path = _unused(output) if fresh else output
    if keep is not None and format is None:
        raise ConfigError("--keep says what is exported; name the format as well (--format)")
    target = None if format is None else _target(path, format, keep or "best", prompts)
    try:
        summary = _select(config, cluster, path)
    except RunFailedError:
        if as_json:
            _show_status(path, as_json)
        raise
    notes.print(f"wrote {path}", style="dim")
    if format is not None and target is not None:
        _export(path, target, format, keep or "best")
    _show(summary, as_json)
    if summary.rows and summary.failures + summary.fallbacks == summary.rows:
        raise RunFailedError(f"no row has a response that its score has chosen: {_why(path)}")


def _why(rows: Path) -> str:
    """The commonest reason for which rows have no response or no score."""
    from bestofn.store.pool import stream

    selections = (row for row in stream(rows) if isinstance(row, Selection))
    return most_often(row.error or row.scores[0].reason for row in selections)


def _select(config: SelectConfig, cluster: ClusterConfig, output: Path) -> "Summary":
    if cluster.cluster is None:
        from bestofn.dataset.select import select_file

        announce(config, config.scorer(config))
        return select_file(config, output)
    from bestofn.dataset.ray import select_on_cluster

    return select_on_cluster(config, cluster, output)


def _target(rows: Path, format: Format, keep: Keep, prompts: str) -> Path:
    """Where the export goes, told to be impossible before anything is drawn."""
    kind = "" if keep == "best" else f".{keep}"
    target = rows.with_name(f"{rows.stem}{kind}.{format}")
    if target == rows:
        raise ConfigError(f"{rows} is what the export would write; leave out --format")
    # What stands there was exported from these rows, or is not ours.
    if lexists(target) and (not rows.exists() or target.resolve() == Path(prompts).resolve()):
        raise ConfigError(f"{target} exists, and the export would replace it; name another output")
    require(format)
    return target


def _export(rows: Path, target: Path, format: Format, keep: Keep) -> None:
    """Beside the rows, in the place of an earlier export."""
    from bestofn.dataset.export import export as write

    exported = write(rows, target, keep=keep, format=format, overwrite=True)
    notes.print(f"wrote {counted(exported.records, 'record')} to {target}", style="dim")


def _unused(path: Path) -> Path:
    """The path, or where it is taken the first of its name with a number that is not."""
    number = 2
    free = path
    while free.exists():
        free = path.with_stem(f"{path.stem}-{number}")
        number += 1
    return free


def _show_status(output: Path, as_json: bool) -> None:
    from bestofn.dataset.select import summary_of
    from bestofn.store.journal import is_locked

    summary = summary_of(output)
    running = is_locked(output)
    if not as_json:
        writing = "a run writes it" if running else "no run writes it"
        console.print(Text(f"{output}: {writing}"), soft_wrap=True)
    _show(summary, as_json, running=running)


def _show(summary: "Summary", as_json: bool, **more: Any) -> None:
    if as_json:
        print(json.dumps(asdict(summary) | more))
    else:
        for line in summary.lines():
            console.print(Text(line), soft_wrap=True)


@app.command()
def export(
    rows: Annotated[
        Path, typer.Argument(help="Rows as `bestofn select` writes them, or a scored pool file.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The file to write, or for hf the folder.")
    ],
    format: Annotated[
        Format | None,
        typer.Option(help="By default what the file's name ends in; hf is a dataset's folder."),
    ] = None,
    keep: Annotated[
        Keep,
        typer.Option(
            help="The best response of each row, all candidates, or for training: pairs of the "
            "best and the worst response, or conversations that end with the best one; 'pool' is "
            "the rows of a pool with all their scores."
        ),
    ] = "best",
    reward: Annotated[
        str | None, typer.Option(help="What chooses, if not the reward that chose already.")
    ] = None,
    min_margin: Annotated[
        float, typer.Option(help="By how much the scores of a pair must differ.")
    ] = 0.0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an output that exists.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write rows of selections as JSONL, Parquet, CSV or a dataset, also for training with TRL.

    A row's own column whose name is taken gets the prefix "column_".
    """
    from bestofn.dataset.export import export as write
    from bestofn.dataset.records import LEFT_OUT
    from bestofn.progress import redraws

    with one_sentence(debug):
        with notes.status(f"exporting {rows}") if redraws() else nullcontext():
            exported = write(
                rows,
                output,
                keep=keep,
                format=format,
                reward=reward,
                min_margin=min_margin,
                overwrite=overwrite,
            )
        if as_json:
            print(json.dumps(asdict(exported)))
            return
        notes.print(f"wrote {counted(exported.records, 'record')} to {output}")
        for reason, count in exported.left_out.items():
            notes.print(f"left out {counted(count, 'row')} {LEFT_OUT[reason]}")
