"""Commands that make scaling curves: sample, score, curve, report, run."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from bestofn.cli.app import Folder, Json, announce, app, console, notes
from bestofn.cli.options import options
from bestofn.cli.tables import Column, show_table
from bestofn.config import (
    OPTIONS,
    CurveConfig,
    EngineConfig,
    ReportConfig,
    RewardBenchConfig,
    SampleConfig,
    ScoreConfig,
    checked,
)
from bestofn.recipe import RewardBenchRecipe, load_recipe

PoolFile = Annotated[Path, typer.Argument(help="A pool file, as `bestofn sample` writes it.")]
DRAWN_BY = {"engine": "Default: the model that drew the pool."}


@app.command()
@options(SampleConfig, without=["prompts"])
def sample(
    prompts: Annotated[
        str, typer.Argument(help=str(SampleConfig.model_fields["prompts"].description))
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The pool file to write.")],
    **given: Any,
) -> None:
    """Draw M candidates for each of many prompts into a pool file; a rerun resumes."""
    from bestofn.dataset.pools import sample_file
    from bestofn.models import Engines

    config = checked(SampleConfig, given | {"prompts": prompts}, OPTIONS)
    announce(config)
    with Engines() as engines:
        drawn = sample_file(config, output, engines, progress=True)
    _tell(drawn.repeated, drawn.failures, prompts)
    notes.print(f"wrote {output}", style="dim")


@app.command()
@options(EngineConfig, ScoreConfig, defaults=DRAWN_BY)
def score(
    pool: PoolFile,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="By default the pool file itself.")
    ] = None,
    **given: Any,
) -> None:
    """Add scores to the candidates of a pool file; a rerun resumes, scores that are there stay.

    Without --engine the model scores that drew the pool.
    """
    from bestofn.dataset.score import check_scores, score_file
    from bestofn.models import Engines

    drawn_by, config = _drawn_by(pool, given), checked(ScoreConfig, given, OPTIONS)
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
    output: Folder,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Estimate how gold grows with N under each proxy: tables, JSON, CSV and pictures.

    With --limits what is missing of the length ablation is scored first.
    """
    from bestofn.analysis.run import make_curve, score_cuts
    from bestofn.models import Engines

    scoring = _part(ScoreConfig, given)
    config, report = _part(CurveConfig, given), _part(ReportConfig, given)
    if scoring.limits:
        with Engines() as engines:
            for path in pools:
                drawn_by = _drawn_by(path, dict(given))
                score_cuts(path, scoring, config, drawn_by, engines, progress=True)
    result = make_curve(pools, config, output, title=report.title)
    if as_json:
        print(json.dumps(result))
    else:
        _show(result, output)


@app.command()
@options(ReportConfig)
def report(
    folder: Annotated[Path, typer.Argument(help="A folder that `bestofn curve` wrote.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The page to write.")],
    **given: Any,
) -> None:
    """Write one self-contained HTML page about a curve and its prompts."""
    from bestofn.analysis.run import make_report

    make_report(folder, output, checked(ReportConfig, given, OPTIONS))
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
    from bestofn.cli import rewardbench
    from bestofn.dataset.score import check_scores
    from bestofn.models import Engines

    loaded = load_recipe(recipe, given | ({"output": output} if output else {}))
    if isinstance(loaded, RewardBenchRecipe):
        rewardbench.run(loaded, as_json)
        return
    announce(loaded.sample, loaded.score.scorer(loaded.sample))
    with Engines() as engines:
        result = run_recipe(loaded, engines, progress=True)
    _tell(result["drawn"]["repeated"], result["drawn"]["failed"], loaded.sample.prompts)
    if as_json:
        print(json.dumps(result))
    else:
        _show(result, Path(loaded.output))
    check_scores(Path(loaded.output) / POOL, loaded.score.rewards)


def _tell(repeated: int, failed: int, prompts: str) -> None:
    if repeated:
        notes.print(f"{repeated} prompts are in {prompts} more than once; each was drawn once")
    if failed:
        notes.print(f"{failed} prompts lack candidates; --retry-errors draws them again")


def _part(kind: Any, given: dict[str, Any]) -> Any:
    """One section of options that several sections share a command for."""
    fields = {name: value for name, value in given.items() if name in kind.model_fields}
    return checked(kind, fields, OPTIONS)


def _drawn_by(pool: Path, given: dict[str, Any]) -> EngineConfig | None:
    """The model that drew a pool: the one that is named, else what the pool's manifest says.

    It is taken out of what was given.
    """
    from bestofn.dataset.score import drawn_with

    named = {name: given.pop(name) for name in EngineConfig.model_fields if name in given}
    known = None if "engine" in named else drawn_with(pool)
    if not named and known is None:
        return None
    fields = known.model_dump() if known else {}
    for name, value in named.items():
        # What is given adds to the pool's own arguments, such as a key, which is never stored.
        fields[name] = fields[name] | value if isinstance(fields.get(name), dict) else value
    config = checked(EngineConfig, fields, OPTIONS)
    announce(config)
    return config


def _show(result: dict[str, Any], folder: Path) -> None:
    title = f"{result['gold']} by N, {result['prompts']} prompts"
    golds = [proxy["gold"] for proxy in result["proxies"].values()]
    columns = [
        Column(f"N={n}", [f"{gold['mean'][place]:.3f}" for gold in golds])
        for place, n in enumerate(result["ns"])
    ]
    intervals = [f"[{gold['low'][-1]:.2f}, {gold['high'][-1]:.2f}]" for gold in golds]
    columns.append(Column(f"{result['level']:.0%} at N={result['ns'][-1]}", intervals))
    show_table(title, "proxy", [*result["proxies"]], columns)
    for sentence in result["summary"]:
        console.print(Text(f"- {sentence}"))
    notes.print(f"wrote {folder}")
