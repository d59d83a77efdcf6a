"""Commands over datasets: select, export."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from bestofn.batch.config import ClusterConfig, SelectConfig
from bestofn.cli.app import Json, announce, app, console, notes
from bestofn.cli.options import options
from bestofn.config import checked
from bestofn.errors import ConfigError

if TYPE_CHECKING:
    from bestofn.batch.summary import Summary


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
    as_json: Json = False,
    **given: Any,
) -> None:
    """Write the best of N responses to each prompt of a dataset; a rerun goes on."""
    if status:
        _show_status(output, as_json)
        return
    if prompts is None:
        raise ConfigError("name the input, such as prompts.jsonl")
    there = {name: given.pop(name) for name in ClusterConfig.model_fields if name in given}
    config = checked(SelectConfig, given | {"prompts": prompts}, "the options")
    cluster = checked(ClusterConfig, there, "the options")
    path = _unused(output) if fresh else output
    summary = _select(config, cluster, path)
    notes.print(f"wrote {path}", style="dim")
    _show(summary, as_json)


def _select(config: SelectConfig, cluster: ClusterConfig, output: Path) -> "Summary":
    if cluster.cluster is None:
        from bestofn.batch.select import select_file

        announce(config)
        return select_file(config, output)
    from bestofn.batch.cluster import select_on_cluster

    return select_on_cluster(config, cluster, output)


def _unused(path: Path) -> Path:
    """The path, or where it is taken the first of its name with a number that is not."""
    number = 2
    free = path
    while free.exists():
        free = path.with_stem(f"{path.stem}-{number}")
        number += 1
    return free


def _show_status(output: Path, as_json: bool) -> None:
    from bestofn.batch.select import summary_of
    from bestofn.journal import is_locked

    summary = summary_of(output)
    running = is_locked(output)
    if not as_json:
        console.print(Text(f"{output}: " + ("a run writes it" if running else "no run writes it")))
    _show(summary, as_json, running=running)


def _show(summary: "Summary", as_json: bool, **more: Any) -> None:
    if as_json:
        print(json.dumps(asdict(summary) | more))
    else:
        for line in summary.lines():
            console.print(Text(line))
