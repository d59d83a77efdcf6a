"""Pool files: M candidates drawn for each of many prompts."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bestofn.config import PromptsConfig, SampleConfig
from bestofn.dataset.pools import draw
from bestofn.dataset.run import Accept, BadRow, ErrorPolicy, Row, run
from bestofn.dataset.sources import read_prompts
from bestofn.dataset.summary import Summary
from bestofn.engines.base import Engine
from bestofn.errors import ConfigError, RunFailedError
from bestofn.models import Engines
from bestofn.resuming import comparing, engine_files, input_of
from bestofn.store.journal import Confirm
from bestofn.store.row import to_row
from bestofn.types import Prompt


def sample_file(
    config: SampleConfig, path: Path, engines: Engines, *, progress: bool = False
) -> Summary:
    """Draws a pool file, or what is missing of it.

    Args:
        config: Which prompts, and how.
        path: The file. If it is there, it must have been begun with the same settings; `limit`,
            `window` and `retry_errors` may differ.
        engines: Loads the model.
        progress: Show a bar.

    Returns:
        What is in the file.

    Raises:
        ConfigError: a setting or a prompt is wrong, or the file has other settings.
        RunFailedError: the file has no candidate that could be drawn.
    """
    config.sampling()
    if config.m < 1:
        raise ConfigError(f"m must be at least 1, not {config.m}")
    prompts = prompts_of(config, system=config.system, shuffle=config.shuffle)
    summary = run(
        partial(each_of, prompts),
        path,
        partial(_drawn, config, engines),
        settings=_settings(config),
        compare=_same_pool,
        policy=ErrorPolicy(max_error_rate=1.0, retry_errors=config.retry_errors),
        otherwise="write to another file",
        columns=True,
        n=config.m,
        total=len(prompts),
        progress=progress,
        what="drawing",
    )
    if summary.failed and summary.failed == summary.candidates:
        raise RunFailedError(
            f"no candidate could be drawn: {summary.commonest()}; the same command with "
            "--retry-errors draws them again"
        )
    return summary


def prompts_of(config: PromptsConfig, **more: Any) -> list[Prompt]:
    """The prompts that a configuration names.

    Raises:
        ConfigError: they cannot be read, or there are none.
    """
    return read_prompts(
        config.prompts,
        prompt_column=config.prompt_column,
        id_column=config.id_column,
        system_column=config.system_column,
        template=config.template,
        drop_last_assistant=bool(config.drop_last_assistant),
        limit=config.limit,
        **more,
    )


def each_of(prompts: Sequence[Prompt], accept: Accept, _: BadRow) -> Iterator[Prompt]:
    """Prompts that have been read already, those that are accepted.

    Raises:
        ConfigError: two different ones have the same id.
    """
    return iter(list(filter(accept, prompts)))


def _drawn(
    config: SampleConfig, engines: Engines, prompts: Iterator[Prompt], confirm: Confirm
) -> Iterator[Row]:
    generator, _ = engines.drawing(config, keep_tokens=config.keep_tokens)
    confirm(_settings(config, getattr(generator, "engine", None)))
    return map(to_row, draw(prompts, generator, config.m, config.window))


_same_pool = comparing(SampleConfig)


def _settings(config: SampleConfig, engine: Engine | None = None) -> dict[str, Any]:
    """What the rows depend on, more exactly once the engine is loaded."""
    settings = config.model_dump(mode="json", exclude={"limit", "window", "retry_errors"})
    identity = engine_files(config, engine)
    return settings | {"prompts": input_of(config.prompts), "identity": identity}
