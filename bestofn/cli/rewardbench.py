"""The command that measures best-of-4 accuracy: rewardbench."""

import json
from collections.abc import Mapping
from typing import Any

from rich.text import Text

from bestofn.cli.app import Folder, Json, announce, app, console, notes
from bestofn.cli.options import options
from bestofn.cli.tables import Column, show_table
from bestofn.config import OPTIONS, RewardBenchConfig, checked
from bestofn.errors import RunFailedError
from bestofn.recipe import RewardBenchRecipe


@app.command()
@options(RewardBenchConfig, without=["models"])
def rewardbench(output: Folder, as_json: Json = False, **given: Any) -> None:
    """Measure how often a reward finds the right one of four responses; a rerun resumes.

    Without --data on RewardBench 2.
    """
    config = checked(RewardBenchConfig, given, OPTIONS)
    run(RewardBenchRecipe(output=str(output), rewardbench=config), as_json)


def run(recipe: RewardBenchRecipe, as_json: bool) -> None:
    """Runs an evaluation and shows what came of it."""
    from bestofn.evals.rewardbench.run import run_rewardbench
    from bestofn.models import Engines

    announce(*recipe.rewardbench.scorers)
    with Engines() as engines:
        result = run_rewardbench(recipe, engines, progress=True)
    if as_json:
        print(json.dumps(result))
    else:
        _show(result)
        notes.print(f"wrote {recipe.output}")
    if all(_all_failed(line) for line in result["rewards"].values()):
        raise RunFailedError(f"every score failed; {recipe.output} keeps the reasons")


def _all_failed(line: Mapping[str, Any]) -> bool:
    rates = [subset["failure_rate"] for subset in line["subsets"].values()]
    if line["ties"] is not None:
        rates.append(line["ties_failure_rate"])
    return all(rate == 1 for rate in rates)


def _show(result: Mapping[str, Any]) -> None:
    if result["subsets"]:
        _show_accuracies(result, "strict", "Accuracy, ties and failed items wrong")
        _show_accuracies(result, "credit", "Accuracy, ties broken by a draw")
    if result["models"]:
        _show_models(result)
    for sentence in result["summary"]:
        console.print(Text(f"- {sentence}"))


def _show_accuracies(result: Mapping[str, Any], convention: str, title: str) -> None:
    """A row for each subset, and for their mean what else is known of it."""
    whose = f", mean of {len(result['models'])} models" if result["models"] else ""
    names = [*result["subsets"], "mean", f"mean, {result['level']:.0%}", "ties", "failed"]
    chances = [*(subset["chance"] for subset in result["subsets"].values()), result["chance"]]
    columns = [Column("chance", [*(f"{chance:.3f}" for chance in chances), "", "", ""])]
    for label, line in result["overall"].items():
        mean = line["subsets"]["mean"]
        cells = [
            *(f"{found[convention]['mean']:.3f}" for found in line["subsets"].values()),
            f"[{mean[convention]['low']:.2f}, {mean[convention]['high']:.2f}]",
            f"{mean['tie_rate']:.0%}",
            f"{mean['failure_rate']:.0%}",
        ]
        columns.append(Column(label, cells))
    show_table(title + whose, "subset", names, columns)


def _show_models(result: Mapping[str, Any]) -> None:
    """The mean over subsets of each model."""
    lines = [line for line in result["rewards"].values() if line["model"] and line["subsets"]]
    if not lines:
        return
    rewards = dict.fromkeys(line["reward"] for line in lines)
    known = {
        (line["model"], line["reward"]): line["subsets"]["mean"]["strict"]["mean"] for line in lines
    }
    columns = [
        Column(reward, [f"{known[model, reward]:.3f}" for model in result["models"]])
        for reward in rewards
    ]
    title = "Mean over subsets by model, ties and failed items wrong"
    show_table(title, "model", result["models"], columns)
