"""Whole experiments: from prompts to a pool, scores, curves and a page."""

import os
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from bestofn.analysis import plots, results
from bestofn.analysis.curves import ScalingCurve
from bestofn.analysis.early import drawing_of
from bestofn.analysis.lengths import LengthAnalysis
from bestofn.analysis.proxies import BASELINES, FROM_GOLD, score_of, selector_of
from bestofn.analysis.report import write_report
from bestofn.config import CurveConfig, EngineConfig, ReportConfig, RewardConfig, ScoreConfig
from bestofn.dataset.pools import sample_file
from bestofn.dataset.score import reward_of, score_file
from bestofn.errors import ConfigError
from bestofn.identity import content_fingerprint
from bestofn.models import Engines
from bestofn.recipe import Recipe
from bestofn.rewards.base import load_reward, needs_engine
from bestofn.store import pool
from bestofn.store.journal import check_output
from bestofn.store.pool import read_origins
from bestofn.types import Pool
from bestofn.verifiers.base import load_verifier

POOL, REPORT = "pool.jsonl", "report.html"


def run_recipe(recipe: Recipe, engines: Engines, *, progress: bool = False) -> dict[str, Any]:
    """Runs a recipe, or what is missing of it.

    Its output folder gets pool.jsonl, curve.json, curve.csv, pictures, report.html and the recipe
    as it was run. Returns what its curve.json holds and, as "drawn", how many prompts were repeated
    and failed.
    """
    _check(recipe)
    folder = Path(recipe.output)
    check_output(folder, folder=True)
    path = folder / POOL
    drawn = sample_file(recipe.sample, path, engines, progress=progress)
    results.write_recipe(folder, recipe)
    score_file(path, recipe.score, recipe.sample, path, engines, progress=progress)
    result = make_curve([path], recipe.curve, folder, title=recipe.report.title)
    make_report(folder, folder / REPORT, recipe.report)
    return result | {"drawn": {"repeated": drawn.repeated, "failed": drawn.failures}}


def _check(recipe: Recipe) -> None:
    """Says what is wrong before hours of drawing.

    Curves are of scores that the recipe makes, or of what needs none.
    """
    recipe.sample.sampling()
    score, curve = recipe.score, recipe.curve
    for reward in score.rewards:
        needs_engine(reward.reward)  # which knows the rewards
        if reward.reward == "gold":
            load_reward("gold", verifier=score.verifier, **reward.options)
    if curve.answer is not None:
        load_verifier(curve.answer)
    if curve.ns and curve.ns[-1] > recipe.sample.m:
        raise ConfigError(f"N={curve.ns[-1]} needs more than m={recipe.sample.m} candidates")
    scores = [reward.label for reward in score.rewards]
    for proxy in curve.proxies:
        drawing = drawing_of(proxy)  # which knows rules of drawing, and the other the selectors
        selector_of(proxy, str.strip)
        if drawing and drawing.reject and (lacking := {*drawing.reject.at} - {*score.limits}):
            some = ", ".join(map(str, sorted(lacking)))
            raise ConfigError(f"the recipe's curve needs {proxy!r}, so `limits` has to name {some}")
    needed = filter(None, map(score_of, curve.proxies))
    known = [*scores, *BASELINES, *FROM_GOLD]
    for name, known in [*((name, known) for name in needed), (curve.gold, scores)]:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise ConfigError(f"the recipe's curve needs {name!r}, which nothing makes; {hint}")


def make_curve(
    paths: Sequence[Path], config: CurveConfig, folder: Path, *, title: str = ""
) -> dict[str, Any]:
    """Estimates curves from scored pool files of the same prompts, one for each seed.

    The folder gets curve.json, whose content is returned, curve.csv and pictures.
    """
    check_output(folder, folder=True)
    if len({content_fingerprint(path) for path in paths}) < len(paths):
        raise ConfigError("the same pool is given twice; several pools are draws of several seeds")
    bad: list[tuple[str, str]] = []
    curve = ScalingCurve(
        [_read(path, config.bad_rows, bad) for path in paths],
        proxies=config.proxies,
        gold=config.gold,
        ns=config.ns,
        answer=str.strip if config.answer is None else config.answer,
        resamples=config.resamples,
        level=config.level,
        seed=config.bootstrap_seed,
        iid=config.iid,
        prices=config.prices,
    )
    curve.left_out += bad
    lengths = LengthAnalysis(curve, config.margin)
    places = [Path(os.path.relpath(path.resolve(), folder.resolve())) for path in paths]
    result = results.as_dict(curve, lengths, config.margin, title=title, pools=places)
    results.write_results(folder, results.CURVE, result, results.table(result))
    plots.save_all(plots.figures(result), folder)
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
    if not rewards:
        made, gold = read_origins(path), curve.gold
        rewards = [
            reward_of(name, made[name])
            for name in curve.proxies or first.candidates[0].scores
            if name in made and "@" not in name and needs_engine(made[name]["reward"])
        ]
        if gold in made and made[gold]["reward"] == "gold":
            rewards.append(reward_of(gold, made[gold]))
            verifier = verifier or made[gold]["verifier"]
        elif verifier is not None:
            rewards.append(RewardConfig(reward="gold", name=gold))
    full = config.model_copy(update={"rewards": rewards, "verifier": verifier})
    score_file(path, full, drawn_by, path, engines, progress=progress)


def make_report(folder: Path, path: Path, config: ReportConfig) -> None:
    """Writes the page about the curve in a folder."""
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
