"""Commands over datasets: export."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bestofn.batch.records import Keep
from bestofn.batch.tables import Format
from bestofn.cli.app import Debug, Json, app, notes, one_sentence


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
            "best and the worst response, or conversations that end with the best one."
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
    from bestofn.batch.export import export as write
    from bestofn.batch.records import LEFT_OUT

    with one_sentence(debug):
        with notes.status(f"exporting {rows}"):
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
        notes.print(f"wrote {_counted(exported.records, 'record')} to {output}")
        for reason, count in exported.left_out.items():
            notes.print(f"left out {_counted(count, 'row')} {LEFT_OUT[reason]}")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
