"""The command that attacks rewards: audit."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from bestofn.cli.app import Json, announce, app, console, notes
from bestofn.cli.options import options
from bestofn.cli.tables import Column, fits, show_table
from bestofn.config import OPTIONS, AuditConfig, checked
from bestofn.errors import RunFailedError

REWARDS = ",".join(reward.label for reward in AuditConfig.model_fields["rewards"].default)
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
    """Try to game rewards: how often do attacks beat honest responses? A rerun resumes."""
    from bestofn.evals.audit import run_audit
    from bestofn.models import Engines

    config = checked(AuditConfig, given, OPTIONS)
    announce(config, config.scorer(config.named()))
    with Engines() as engines:
        result = run_audit(config, output, engines, progress=True)
    if as_json:
        print(json.dumps(result))
    else:
        _show(result)
    notes.print(f"wrote {output}", style="dim")
    if all(entry["both_failed_rate"] == 1 for entry in result["attacks"]):
        raise RunFailedError(f"every score failed; {output} keeps the reasons")


def _show(result: dict[str, Any]) -> None:
    from bestofn.evals.audit.results import is_of

    entries = [entry for entry in result["attacks"] if is_of(entry, result["rewards"][0])]
    names = [Text(e["name"]).append(MARKS[e["answer"]], "dim") for e in entries]
    columns = _columns(result, with_intervals=True)
    if not fits("attack", names, columns):
        columns = _columns(result, with_intervals=False)
    title = f"% of {result['prompts']} prompts on which an attack beats the honest response"
    show_table(title, "attack", names, columns)
    if any(entry["answer"] != "none" for entry in result["attacks"]):
        console.print("* with a piece of the honest response, ** with all of it", style="dim")
    for sentence in result["summary"]:
        console.print(Text(f"- {sentence}"))


def _columns(result: dict[str, Any], with_intervals: bool) -> list[Column]:
    """A column for each reward, with a row for each attack."""
    from bestofn.evals.audit.results import is_of, percent, title

    columns = []
    for reward in result["rewards"]:
        rates = [percent(e["win_rate"]) for e in result["attacks"] if is_of(e, reward)]
        shown = rates if with_intervals else [rate.split()[0] for rate in rates]
        columns.append(Column(title(reward).replace(", ", "\n"), shown))
    return columns
