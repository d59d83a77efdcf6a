"""Commands that make scaling curves: sample, score, curve, report, run."""

from pathlib import Path
from typing import Annotated, Any

import typer

from bestofn.cli.app import (
    Column,
    Json,
    Output,
    app,
    notes,
    options,
    section,
    show,
    show_summary,
    show_table,
)
from bestofn.cli.evals import run_bench
from bestofn.config import (
    AdviseConfig,
    CurveConfig,
    EngineConfig,
    ReportConfig,
    RewardBenchConfig,
    SampleConfig,
    ScoreConfig,
)
from bestofn.dataset.pools import sample_file
from bestofn.dataset.score import check_scores, drawn_with, score_file
from bestofn.models import Engines
from bestofn.recipe import RewardBenchRecipe, load_recipe

DRAWN_BY = {"engine": "Default: the model that drew the pool."}


@app.command()
@options(SampleConfig, without=["prompts"])
def sample(
    prompts: Annotated[
        str, typer.Argument(help=str(SampleConfig.model_fields["prompts"].description))
    ],
    output: Output,
    **given: Any,
) -> None:
    """Draw M candidates for each of many prompts into a pool file; a rerun resumes."""
    config = section(SampleConfig, given, prompts=prompts)
    with Engines() as engines:
        drawn = sample_file(config, output, engines, progress=True)
    _note(drawn.repeated, drawn.failures, prompts)
    notes.print(f"wrote {output}", style="dim")


@app.command()
@options(EngineConfig, ScoreConfig, defaults=DRAWN_BY)
def score(
    pool: Annotated[Path, typer.Argument(help="A pool file, as `bestofn sample` writes it.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="By default the pool file itself.")
    ] = None,
    **given: Any,
) -> None:
    """Add scores to the candidates of a pool file; a rerun resumes, scores that are there stay.

    Without --engine the model scores that drew the pool.
    """
    drawn_by, config = _drawn_by(pool, given), section(ScoreConfig, given)
    with Engines() as engines:
        changed = score_file(pool, config, drawn_by, output or pool, engines, progress=True)
    if not changed:
        notes.print("all these scores are there already; --again replaces them")
    check_scores(output or pool, config.rewards)


@app.command()
@options(
    *(CurveConfig, EngineConfig, ScoreConfig, ReportConfig),
    without=["embed", "again"],
    defaults=DRAWN_BY,
)
def curve(
    pools: Annotated[
        list[Path], typer.Argument(help="Scored pool files of the same prompts, one a seed.")
    ],
    output: Output,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Estimate how gold grows with N under each proxy: tables, JSON, CSV and pictures.

    With --limits what is missing of the length ablation is scored first.
    """
    from bestofn.analysis.run import make_curve, score_cuts

    scoring, config = section(ScoreConfig, given), section(CurveConfig, given)
    title = section(ReportConfig, given).title
    if scoring.limits:
        with Engines() as engines:
            for path in pools:
                drawn_by = _drawn_by(path, given)
                score_cuts(path, scoring, config, drawn_by, engines, progress=True)
    show(make_curve(pools, config, output, title=title), as_json, _show)
    notes.print(f"wrote {output}", style="dim")


@app.command()
@options(AdviseConfig)
def advise(
    pool: Annotated[
        Path,
        typer.Argument(help="A pool file with scores of beginnings, by `bestofn score --limits`."),
    ],
    as_json: Json = False,
    **given: Any,
) -> None:
    """Recommend when to reject candidates early, and how many; checked on half of the prompts."""
    from bestofn.analysis import advice

    _, result = advice.advise(pool, section(AdviseConfig, given))
    show(result, as_json, _show_advice)


@app.command()
@options(ReportConfig)
def report(
    folder: Annotated[Path, typer.Argument(help="A folder that `bestofn curve` wrote.")],
    output: Output,
    **given: Any,
) -> None:
    """Write one self-contained HTML page about a curve and its prompts."""
    from bestofn.analysis.run import make_report

    make_report(folder, output, section(ReportConfig, given))
    notes.print(f"wrote {output}")


@app.command()
@options(
    *(SampleConfig, ScoreConfig, CurveConfig, ReportConfig, RewardBenchConfig), without=["models"]
)
def run(
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe.")],
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Another folder than the recipe's.")
    ] = None,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Run a recipe from prompts to page; options replace what it says, a rerun resumes.

    One with the key `rewardbench` runs from items to table.
    """
    from bestofn.analysis.run import POOL, run_recipe

    loaded = load_recipe(recipe, given | ({"output": output} if output else {}))
    if isinstance(loaded, RewardBenchRecipe):
        run_bench(loaded, as_json)
        return
    with Engines() as engines:
        result = run_recipe(loaded, engines, progress=True)
    _note(result["drawn"]["repeated"], result["drawn"]["failed"], loaded.sample.prompts)
    show(result, as_json, _show)
    notes.print(f"wrote {loaded.output}", style="dim")
    check_scores(Path(loaded.output) / POOL, loaded.score.rewards)


def _note(repeated: int, failed: int, prompts: str) -> None:
    if repeated:
        notes.print(f"{repeated} prompts are in {prompts} more than once; each was drawn once")
    if failed:
        notes.print(f"{failed} prompts lack candidates; --retry-errors draws them again")


def _drawn_by(pool: Path, given: dict[str, Any]) -> EngineConfig | None:
    """The model that drew a pool: the one that is named, else what the pool's manifest says.

    Raises:
        ConfigError: there are arguments or options of an engine, and no engine.
    """
    named = {name: given[name] for name in EngineConfig.model_fields if name in given}
    known = None if "engine" in named else drawn_with(pool)
    if named and known is None:
        return section(EngineConfig, {"engine": None} | named)
    # What is given adds to the pool's own arguments, such as a key, which is never stored.
    added = {name: getattr(known, name) | value for name, value in named.items()}
    return known and known.model_copy(update=added)


def _show_advice(result: dict[str, Any]) -> None:
    rates = result["agreement"].values()
    columns: list[Column] = [
        ("agreement", [f"{rate['mean']:.3f}" for rate in rates]),
        ("interval", [f"[{rate['low']:.2f}, {rate['high']:.2f}]" for rate in rates]),
    ]
    title = f"{result['reward']}: the choice by the first tokens is the final one"
    show_table(title, "tokens", [*map(str, result["agreement"])], columns)
    show_summary(result["summary"])


def _show(result: dict[str, Any]) -> None:
    golds = [proxy["gold"] for proxy in result["proxies"].values()]
    columns: list[Column] = [
        (f"N={n}", [f"{gold['mean'][place]:.3f}" for gold in golds])
        for place, n in enumerate(result["ns"])
    ]
    intervals = [f"[{gold['low'][-1]:.2f}, {gold['high'][-1]:.2f}]" for gold in golds]
    columns.append((f"{result['level']:.0%} at N={result['ns'][-1]}", intervals))
    title = f"{result['gold']} by N, {result['prompts']} prompts"
    show_table(title, "proxy", [*result["proxies"]], columns)
    show_summary(result["summary"])
