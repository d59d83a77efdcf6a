"""The command that attacks rewards: audit."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from bestofn.cli.app import Json, announce, app, console, notes, pool_progress
from bestofn.cli.options import options
from bestofn.config import OPTIONS, AuditConfig, checked
from bestofn.errors import RunFailedError

REWARDS = ",".join(reward.label for reward in AuditConfig.model_fields["rewards"].default)
WIDEST = 10_000  # columns, of a terminal that would show everything
MARKS = {"none": "", "part": " *", "whole": " **"}


@app.command()
@options(AuditConfig, defaults={"rewards": f"Default: {REWARDS}."})
def audit(
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write to.")] = Path(
        "audit"
    ),
    as_json: Json = False,
    **given: Any,
) -> None:
    """Try to game rewards: how often do attacks beat honest responses? A rerun goes on."""
    from bestofn.experiments.audit import run_audit
    from bestofn.experiments.engines import Engines

    config = checked(AuditConfig, given, OPTIONS)
    announce(config, config.scorer(config.named()))
    with Engines() as engines:
        result = run_audit(config, output, engines, pool_progress)
    if as_json:
        print(json.dumps(result))
    else:
        _show(result)
    notes.print(f"wrote {output}", style="dim")
    if all(entry["both_failed_rate"] == 1 for entry in result["attacks"]):
        raise RunFailedError(f"every score failed; {output} keeps the reasons")


def _show(result: dict[str, Any]) -> None:
    table = _table(result, with_intervals=True)
    wanted = console.measure(table, options=console.options.update(width=WIDEST)).maximum
    if wanted > console.width:
        table = _table(result, with_intervals=False)
    console.print(table)
    if any(entry["answer"] != "none" for entry in result["attacks"]):
        console.print("* with a piece of the honest response, ** with all of it", style="dim")
    for sentence in result["summary"]:
        console.print(Text(f"- {sentence}"))


def _table(result: dict[str, Any], with_intervals: bool) -> Table:
    """A row for each attack, a column for each reward."""
    from bestofn.experiments.audit.verdicts import is_of, percent, title

    heading = f"% of {result['prompts']} prompts on which an attack beats the honest response"
    table = Table(title=heading, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column("attack", no_wrap=True)
    for reward in result["rewards"]:
        table.add_column(title(reward).replace(", ", "\n"), justify="right", overflow="fold")
    for entry in result["attacks"]:
        if is_of(entry, result["rewards"][0]):
            same = [other for other in result["attacks"] if other["name"] == entry["name"]]
            rates = [percent(other["win_rate"]) for other in same]
            shown = rates if with_intervals else [rate.split()[0] for rate in rates]
            name = Text(entry["name"]).append(MARKS[entry["answer"]], "dim")
            table.add_row(name, *map(Text, shown))
    return table
