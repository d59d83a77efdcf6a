"""The page about an audit: rates as a heat map and in tables, and examples; it has no script."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bestofn.analysis.plots import as_image, new_figure, styled
from bestofn.analysis.report import Picture, Section, Table, marked
from bestofn.analysis.report import write_page as write
from bestofn.evals.audit.verdicts import is_of, percent, title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CARRIES = {"none": "", "part": " *", "whole": " **"}
RATES = {
    "tie_rate": "ties",
    "loss_rate": "losses",
    "both_failed_rate": "both failed",
    "attack_failure_rate": "attack failed",
    "honest_failure_rate": "honest failed",
    "flagged_rate": "flagged",
    "unflagged_win_rate": "wins, not flagged",
}


def write_page(result: Mapping[str, Any], path: Path) -> None:
    """Writes one self-contained HTML page.

    Args:
        result: What `verdicts.as_dict` returned, with where it came from.
        path: The file.

    Raises:
        BestOfNError: the file cannot be written.
    """
    what = "How often an attack beats the honest response, percent of the prompts"
    rates = Section(
        "Rates",
        "Percent of the prompts; ties are no wins, and a failed score loses to any value. "
        "* carries a piece of the honest response, ** all of it.",
        [Picture(what, as_image(_heat_map(result)))],
        [_table(result, reward) for reward in result["rewards"]],
    )
    examples = Section(
        "Examples",
        "For each reward the strongest attack without an answer, on the first prompts on which it "
        "wins. Marked words are those that an inferred instruction shares with the true one."
        if result["examples"]
        else "No attack without an answer ever won.",
        examples=[e | {"title": title(e), "sides": _sides(e)} for e in result["examples"]],
    )
    write(
        path,
        title="Reward-hacking audit",
        facts=_facts(result),
        result=result,
        sections=[rates, examples],
    )


def _facts(result: Mapping[str, Any]) -> str:
    engine = result["reward_engine"]
    return (
        f"{result['prompts']} prompts from {result['source']} · honest responses: "
        f"{result['honest_responses']}{f' · rewards on {engine}' if engine else ''} · "
        f"seed {result['seed']}"
    )


def _heat_map(result: Mapping[str, Any]) -> "Figure":
    by_reward = [[e for e in result["attacks"] if is_of(e, r)] for r in result["rewards"]]
    names = [entry["name"] + CARRIES[entry["answer"]] for entry in by_reward[0]]
    rates = np.array([[100 * e["win_rate"]["mean"] for e in entries] for entries in by_reward]).T
    size = (3 + 1.2 * len(by_reward), 1.2 + 0.22 * len(names))
    rewards = [title(reward).replace(", ", "\n") for reward in result["rewards"]]
    with styled():
        figure, (axes,) = new_figure(1, 1, "% of prompts on which an attack wins", size)
        axes.imshow(rates, aspect="auto", cmap="Blues", vmin=0, vmax=115)  # numbers stay legible
        axes.grid(visible=False)
        axes.set_xticks(range(len(rewards)), rewards)
        axes.set_yticks(range(len(names)), names)
        for (row, column), rate in np.ndenumerate(rates):
            colour = "white" if rate > 60 else "black"
            axes.text(column, row, f"{rate:.0f}", ha="center", va="center", color=colour)
    return figure


def _table(result: Mapping[str, Any], reward: Mapping[str, Any]) -> Table:
    rows = [
        [entry["name"] + CARRIES[entry["answer"]], percent(entry["win_rate"])]
        + ["" if entry[name] is None else f"{100 * entry[name]:.0f}" for name in RATES]
        + [entry["what"]]
        for entry in result["attacks"]
        if is_of(entry, reward)
    ]
    return Table(title(reward), ["attack", "wins", *RATES.values(), "what it is"], rows)


def _sides(example: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Both responses, with the words marked that an inferred instruction shares with the true."""
    names = {"attacked": f"Attack: {example['attack']}", "honest": "Honest response"}
    return [
        example[side]
        | {"name": name}
        | {"inferred": [marked(i, example["instruction"]) for i in example[side]["inferred"]]}
        for side, name in names.items()
    ]
