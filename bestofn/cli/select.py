"""Commands over datasets: select, export."""

from dataclasses import asdict
from os.path import lexists
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from bestofn.cli.app import Json, Output, app, console, notes, options, section, show
from bestofn.config import ClusterConfig, SelectConfig
from bestofn.dataset.records import LEFT_OUT, Keep
from bestofn.dataset.summary import Summary, counted
from bestofn.dataset.tables import Format, require
from bestofn.errors import ConfigError, RunFailedError


@app.command()
@options(SelectConfig, ClusterConfig, without=["prompts"])
def select(
    output: Output,
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
    if keep is not None and format is None:
        raise ConfigError("--keep says what is exported; name the format as well (--format)")
    config, cluster = section(SelectConfig, given, prompts=prompts), section(ClusterConfig, given)
    path = _unused(output) if fresh else output
    target = format and _target(path, format, keep or "best", prompts)
    try:
        summary = _select(config, cluster, path)
    except RunFailedError:
        if as_json:
            _show_status(path, as_json)
        raise
    notes.print(f"wrote {path}", style="dim")
    if target:
        from bestofn.dataset.export import export as write

        exported = write(path, target, keep=keep or "best", format=format, overwrite=True)
        notes.print(f"wrote {counted(exported.records, 'record')} to {target}", style="dim")
    _show(summary, as_json)
    if summary.rows and summary.failures + summary.fallbacks == summary.rows:
        raise RunFailedError(f"no row has a response that its score has chosen; {path} says why")


def _select(config: SelectConfig, cluster: ClusterConfig, output: Path) -> Summary:
    if cluster.cluster is None:
        from bestofn.dataset.select import select_file

        return select_file(config, output)
    from bestofn.dataset.ray import select_on_cluster

    return select_on_cluster(config, cluster, output)


def _target(rows: Path, format: Format, keep: Keep, prompts: str) -> Path:
    """Where the export goes, refused before anything is drawn if it may not go there."""
    kind = "" if keep == "best" else f".{keep}"
    target = rows.with_name(f"{rows.stem}{kind}.{format}")
    # A file of that name is an earlier export of these rows, or not ours.
    ours = rows.exists() and target.resolve() != Path(prompts).resolve()
    if target == rows or (lexists(target) and not ours):
        raise ConfigError(f"{target} exists, and the export would replace it; name another output")
    require(format)
    return target


def _unused(path: Path) -> Path:
    """The path, or where it is taken the first of its name with a number that is not."""
    number, free = 2, path
    while free.exists():
        number, free = number + 1, path.with_stem(f"{path.stem}-{number}")
    return free


def _show_status(output: Path, as_json: bool) -> None:
    from bestofn.dataset.select import summary_of
    from bestofn.store.journal import is_locked

    summary, running = summary_of(output), is_locked(output)
    if not as_json:
        writing = "a run writes it" if running else "no run writes it"
        console.print(Text(f"{output}: {writing}"), soft_wrap=True)
    _show(summary, as_json, running=running)


def _show(summary: Summary, as_json: bool, **more: Any) -> None:
    def view(_: dict[str, Any]) -> None:
        for line in summary.lines():
            console.print(Text(line), soft_wrap=True)

    show(asdict(summary) | more, as_json, view)


@app.command()
@options()
def export(
    rows: Annotated[
        Path, typer.Argument(help="Rows as `bestofn select` writes them, or a scored pool file.")
    ],
    output: Output,
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
) -> None:
    """Write rows of selections as JSONL, Parquet, CSV or a dataset, also for training with TRL.

    A row's own column whose name is taken gets the prefix "column_".
    """
    from bestofn.dataset.export import Exported
    from bestofn.dataset.export import export as write

    def view(exported: Exported) -> None:
        notes.print(f"wrote {counted(exported.records, 'record')} to {output}")
        for reason, count in exported.left_out.items():
            notes.print(f"left out {counted(count, 'row')} {LEFT_OUT[reason]}")

    how: dict[str, Any] = {"reward": reward, "min_margin": min_margin, "overwrite": overwrite}
    exported = write(rows, output, keep=keep, format=format, **how)
    show(asdict(exported), as_json, lambda _: view(exported))
