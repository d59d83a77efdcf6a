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
    from bestofn.evals.audit.results import CARRIES, by_reward, percent

    found = by_reward(result)
    entries = next(iter(found.values()))
    names = [Text(entry["name"]).append(CARRIES[entry["answer"]], "dim") for entry in entries]
    rates = {name: [percent(e["win_rate"]) for e in entries] for name, entries in found.items()}
    columns = [Column(name.replace(", ", "\n"), shown) for name, shown in rates.items()]
    if not fits("attack", names, columns):  # without the intervals
        columns = [Column(c.heading, [str(rate).split()[0] for rate in c.cells]) for c in columns]
    title = f"% of {result['prompts']} prompts on which an attack beats the honest response"
    show_table(title, "attack", names, columns)
    if any(entry["answer"] != "none" for entry in result["attacks"]):
        console.print("* with a piece of the honest response, ** with all of it", style="dim")
    for sentence in result["summary"]:
        console.print(Text(f"- {sentence}"))
