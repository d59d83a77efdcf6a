"""What all commands share: the application, its consoles, errors as sentences."""

import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

import bestofn
from bestofn.errors import BestOfNError, RunFailedError

if TYPE_CHECKING:
    from bestofn.config import OptionalEngineConfig

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Best-of-N sampling: draw N candidates, score each, return the best.",
)
# Only results go to stdout, so that --json can be piped.
console = Console(emoji=False)
notes = Console(stderr=True, emoji=False)

Folder = Annotated[Path, typer.Option("-o", "--output", help="The folder to write to.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@contextmanager
def one_sentence(debug: bool) -> Iterator[None]:
    """Turns the package's errors into one sentence and an exit code.

    1: the command ran, but too much of it failed. 2: what was asked for cannot be done. 130: an
    interrupt.
    """
    try:
        yield
    except BestOfNError as error:
        if debug:
            traceback.print_exc()
        else:
            notes.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1 if isinstance(error, RunFailedError) else 2) from None
    except KeyboardInterrupt as interrupt:
        kept = getattr(interrupt, "__notes__", [])
        notes.print(escape("; ".join(["interrupted", *kept])), soft_wrap=True)
        raise typer.Exit(130) from None


def most_often(reasons: Iterable[str | None], shown: int = 3) -> str:
    """The commonest reasons, and how often each was given if there are several."""
    counts = Counter(reason or "unknown" for reason in reasons)
    if len(counts) == 1:
        return next(iter(counts))
    told = [f"{count} x {reason}" for reason, count in counts.most_common(shown)]
    return "; ".join([*told, "..."] if len(counts) > shown else told)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"bestofn {bestofn.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def announce(*configs: "OptionalEngineConfig | None") -> None:
    """Says what takes long; the embedded model loads too fast for a bar."""
    engines = {config.engine for config in configs if config and config.engine}
    if engines == {"tiny"}:
        from transformers.utils import logging

        logging.disable_progress_bar()
    if any(engine.startswith("vllm:") for engine in engines) and notes.is_terminal:
        notes.print("starting vLLM, which takes half a minute or more", style="dim")
