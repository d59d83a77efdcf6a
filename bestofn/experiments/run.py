"""Whole experiments: from prompts to a pool, scores, curves and a page."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from bestofn import pool
from bestofn.config import (
    CurveConfig,
    EngineConfig,
    Recipe,
    ReportConfig,
    RewardConfig,
    ScoreConfig,
)
from bestofn.errors import ConfigError
from bestofn.experiments import plots, results
from bestofn.experiments.curves import ScalingCurve
from bestofn.experiments.files import Engines, Progress, sample_file, score_file, silent
from bestofn.experiments.lengths import LengthAnalysis
from bestofn.experiments.report import write_report
from bestofn.journal import write_atomically
from bestofn.rewards.registry import is_known, needs_engine
from bestofn.types import Pool
from bestofn.verifiers.base import load_verifier

POOL, REPORT, RECIPE = "pool.jsonl", "report.html", "recipe.yaml"


def run_recipe(recipe: Recipe, engines: Engines, progress: Progress = silent) -> dict[str, Any]:
    """Runs a recipe, or what is missing of it.

    Returns what its curve.json holds and, as "repeated", how many prompts stand in the source more
    than once; each is drawn once.

    Its output folder gets pool.jsonl, curve.json, curve.csv, pictures, report.html and the recipe
    as it was run.

    Raises:
        ConfigError: something in the recipe cannot be used.
        EngineError: a model cannot be loaded.
    """
    folder = Path(recipe.output)
    path = folder / POOL
    repeated = sample_file(recipe.sample, path, engines, progress)
    text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_atomically(folder / RECIPE, text)
    score_file(path, recipe.score, recipe.sample, path, engines, progress)
    result = make_curve([path], recipe.curve, folder, title=recipe.report.title)
    make_report(folder, folder / REPORT, recipe.report)
    return result | {"repeated": repeated}


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
    bad: list[tuple[str, str]] = []
    pools = [_read(path, config.bad_rows, bad) for path in paths]
    answer = str.strip if config.answer is None else load_verifier(config.answer).answer
    curve = ScalingCurve(
        pools,
        proxies=config.proxies,
        gold=config.gold,
        ns=config.ns,
        answer=answer,
        resamples=config.resamples,
        level=config.level,
        seed=config.bootstrap_seed,
        iid=config.iid,
    )
    curve.left_out += bad
    lengths = LengthAnalysis(curve, config.margin)
    places = [Path(os.path.relpath(path, folder)) for path in paths]
    result = results.as_dict(curve, lengths, title=title, pools=places)
    results.write(folder, curve, result)
    plots.draw(result, folder)
    return result


def _read(path: Path, bad_rows: str, bad: list[tuple[str, str]]) -> list[Pool]:
    def skip(error: ConfigError) -> None:
        bad.append((str(path), str(error)))

    pools = list(pool.read(path, skip if bad_rows == "skip" else None))
    if not pools:
        raise ConfigError(f"the pool {path} has no rows" + (f": {bad[-1][1]}" if bad else ""))
    return pools


def score_cuts(
    path: Path,
    config: ScoreConfig,
    curve: CurveConfig,
    drawn_by: EngineConfig | None,
    engines: Engines,
    progress: Progress = silent,
) -> None:
    """Adds the scores that a length ablation of a pool file lacks.

    The rewards are those of `config`, by default the curve's proxies that a model scores; with a
    verifier gold as well.
    """
    first = next(pool.read(path), None)
    if first is None:
        raise ConfigError(f"the pool {path} has no rows")
    known = curve.proxies or [*first.candidates[0].scores]
    names = [name for name in known if is_known(name) and needs_engine(name)]
    if config.verifier is not None:
        names.append("gold")
    rewards = config.rewards or [RewardConfig(reward=name) for name in names]
    full = config.model_copy(update={"rewards": rewards})
    score_file(path, full, drawn_by, path, engines, progress)


def make_report(folder: Path, path: Path, config: ReportConfig) -> None:
    """Writes the page about the curve in a folder.

    Raises:
        ConfigError: the folder has no curve, or its pools are gone.
    """
    result = results.read(folder)
    first = folder / result["pools"][0]
    pools = list(pool.read(first, lambda _: None))
    title = config.title or result["title"] or "Best-of-N scaling curves"
    write_report(result, pools, path, title=title, limit=config.embed)
