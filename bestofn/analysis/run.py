"""Whole experiments: from prompts to a pool, scores, curves and a page."""

import os
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from bestofn.analysis import plots, results
from bestofn.analysis.curves import BASELINES, ScalingCurve
from bestofn.analysis.expected import FROM_GOLD, MAJORITY, WEIGHTED
from bestofn.analysis.lengths import LengthAnalysis
from bestofn.analysis.report import write_report
from bestofn.config import CurveConfig, EngineConfig, ReportConfig, RewardConfig, ScoreConfig
from bestofn.dataset.pools import sample_file
from bestofn.dataset.score import reward_of, score_file
from bestofn.errors import ConfigError
from bestofn.identity import content_fingerprint
from bestofn.models import Engines
from bestofn.recipe import Recipe
from bestofn.redaction import without_secrets
from bestofn.registry import is_built_in
from bestofn.rewards.base import load_reward, needs_engine
from bestofn.store import pool
from bestofn.store.journal import check_output, write_atomically
from bestofn.store.pool import read_origins
from bestofn.types import Pool
from bestofn.verifiers.base import load_verifier

POOL, REPORT, RECIPE = "pool.jsonl", "report.html", "recipe.yaml"


def run_recipe(recipe: Recipe, engines: Engines, *, progress: bool = False) -> dict[str, Any]:
    """Runs a recipe, or what is missing of it.

    Returns what its curve.json holds and, as "drawn", how many prompts were repeated and failed.

    Its output folder gets pool.jsonl, curve.json, curve.csv, pictures, report.html and the recipe
    as it was run.

    Raises:
        ConfigError: something in the recipe cannot be used.
        EngineError: a model cannot be loaded.
    """
    _check(recipe)
    folder = Path(recipe.output)
    check_output(folder, folder=True)
    path = folder / POOL
    drawn = sample_file(recipe.sample, path, engines, progress=progress)
    shown = without_secrets(recipe.model_dump(mode="json"))
    text = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)
    write_atomically(folder / RECIPE, text)
    score_file(path, recipe.score, recipe.sample, path, engines, progress=progress)
    result = make_curve([path], recipe.curve, folder, title=recipe.report.title)
    make_report(folder, folder / REPORT, recipe.report)
    return result | {"drawn": {"repeated": drawn.repeated, "failed": drawn.failures}}


def _check(recipe: Recipe) -> None:
    """Tells what is wrong before hours of drawing.

    Raises:
        ConfigError: something in the recipe cannot be used.
    """
    recipe.sample.sampling()
    for reward in recipe.score.rewards:
        needs_engine(reward.reward)  # which knows the rewards
        if reward.reward == "gold":
            load_reward("gold", verifier=recipe.score.verifier, **reward.options)
    if recipe.curve.answer is not None:
        load_verifier(recipe.curve.answer)
    if recipe.curve.ns and recipe.curve.ns[-1] > recipe.sample.m:
        raise ConfigError(f"N={recipe.curve.ns[-1]} needs more than m={recipe.sample.m} candidates")
    _check_names(recipe)


def _check_names(recipe: Recipe) -> None:
    """Curves are of scores that the recipe makes, or of what needs none."""
    scores = [reward.label for reward in recipe.score.rewards]
    proxies = [*scores, *BASELINES, *FROM_GOLD, MAJORITY, *(WEIGHTED + name for name in scores)]
    for known, wanted in ((proxies, recipe.curve.proxies), (scores, [recipe.curve.gold])):
        for name in wanted:
            if name not in known:
                near = get_close_matches(name, known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
                raise ConfigError(f"the recipe's curve needs {name!r}, which nothing makes; {hint}")


def make_curve(
    paths: Sequence[Path], config: CurveConfig, folder: Path, *, title: str = ""
) -> dict[str, Any]:
    """Estimates curves from scored pool files and writes them to a folder, with pictures.

    Args:
        paths: Pool files of the same prompts, one for each seed.
        config: What to estimate.
        folder: Gets curve.json, curve.csv and the pictures.
        title: Of the pictures.

    Returns:
        What curve.json holds.

    Raises:
        ConfigError: a pool cannot be used.
    """
    check_output(folder, folder=True)
    if len({content_fingerprint(path) for path in paths}) < len(paths):
        raise ConfigError("the same pool is given twice; several pools are draws of several seeds")
    bad: list[tuple[str, str]] = []
    pools = [_read(path, config.bad_rows, bad) for path in paths]
    curve = ScalingCurve(
        pools,
        proxies=config.proxies,
        gold=config.gold,
        ns=config.ns,
        answer=str.strip if config.answer is None else config.answer,
        resamples=config.resamples,
        level=config.level,
        seed=config.bootstrap_seed,
        iid=config.iid,
    )
    curve.left_out += bad
    lengths = LengthAnalysis(curve, config.margin)
    places = [Path(os.path.relpath(path.resolve(), folder.resolve())) for path in paths]
    result = results.as_dict(curve, lengths, title=title, pools=places)
    results.write(folder, curve, result)
    plots.draw(result, folder)
    return result


def _read(path: Path, bad_rows: str, bad: list[tuple[str, str]]) -> list[Pool]:
    def skip(error: ConfigError) -> None:
        bad.append((str(path), str(error)))

    pools = [*map(_without_tokens, pool.read(path, skip if bad_rows == "skip" else None))]
    if not pools:
        raise ConfigError(f"the pool {path} has no rows" + (f": {bad[-1][1]}" if bad else ""))
    return pools


def _without_tokens(row: Pool) -> Pool:
    """Curves and pages need none, and a large pool has many."""
    for candidate in row.candidates:
        candidate.token_ids = candidate.token_logprobs = None
    return row


def score_cuts(
    path: Path,
    config: ScoreConfig,
    curve: CurveConfig,
    drawn_by: EngineConfig | None,
    engines: Engines,
    *,
    progress: bool = False,
) -> None:
    """Adds the scores that a length ablation of a pool file lacks.

    The rewards are those of `config`, by default the curve's proxies that a model scores; with a
    verifier gold as well.
    """
    first = next(pool.read(path), None)
    if first is None:
        raise ConfigError(f"the pool {path} has no rows")
    rewards, verifier = list(config.rewards), config.verifier
    made = read_origins(path)
    if not rewards:
        whole = [name for name in first.candidates[0].scores if "@" not in name]
        for name in curve.proxies or whole:
            if name in made and needs_engine(made[name]["reward"]):
                rewards.append(reward_of(name, made[name]))
            elif name not in made and is_built_in("reward", name) and needs_engine(name):
                raise ConfigError(
                    f"how the scores {name!r} in {path} were made is not known; add those of the "
                    "limits with `bestofn score`"
                )
        if curve.gold in made and made[curve.gold]["reward"] == "gold":
            rewards.append(reward_of(curve.gold, made[curve.gold]))
            verifier = verifier or made[curve.gold]["verifier"]
        elif verifier is not None:
            rewards.append(RewardConfig(reward="gold", name=curve.gold))
    full = config.model_copy(update={"rewards": rewards, "verifier": verifier})
    score_file(path, full, drawn_by, path, engines, progress=progress)


def make_report(folder: Path, path: Path, config: ReportConfig) -> None:
    """Writes the page about the curve in a folder.

    Raises:
        ConfigError: the folder has no curve, its pools are gone, or a row has become unusable.
    """
    check_output(path)
    result = results.read(folder)
    first = folder.resolve() / result["pools"][0]
    named = {entry["reason"].removeprefix(entry["id"]) for entry in result["left_out"]}

    def left_out(error: ConfigError) -> None:
        if str(error).removeprefix(str(first)) not in named:
            raise ConfigError(f"{error}; the curve knows nothing of it: make it again")

    pools = [*map(_without_tokens, pool.read(first, left_out))]
    title = config.title or result["title"] or "Best-of-N scaling curves"
    write_report(result, pools, path, title=title, limit=config.embed)
