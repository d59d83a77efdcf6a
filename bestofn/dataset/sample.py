"""Pool files: drawn, and gone on with where a run was interrupted."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bestofn.config import SampleConfig
from bestofn.dataset.pools import draw
from bestofn.dataset.sources import read_prompts
from bestofn.engines.base import Engine
from bestofn.errors import ConfigError, RunFailedError
from bestofn.models import Engines
from bestofn.progress import Progress, silent
from bestofn.prompts import comparable, folded
from bestofn.resuming import comparing, engine_files, input_of
from bestofn.store import pool
from bestofn.store.journal import open_journal
from bestofn.types import Pool, Prompt


@dataclass(slots=True)
class Drawn:
    """What `sample_file` came upon.

    Attributes:
        repeated: Prompts that stand in the source more than once; each is drawn once.
        failed: Prompts in the file of which a candidate could not be drawn.
    """

    repeated: int = 0
    failed: int = 0


def sample_file(
    config: SampleConfig, path: Path, engines: Engines, progress: Progress = silent
) -> Drawn:
    """Draws a pool file, or what is missing of it.

    Args:
        config: Which prompts, and how.
        path: The file. If it is there, it must have been begun with the same settings; `limit`,
            `window` and `retry_errors` may differ.
        engines: Loads the model.
        progress: Shows how far it is.

    Raises:
        ConfigError: a setting or a prompt is wrong, or the file has other settings.
        RunFailedError: the file has no candidate that could be drawn.
    """
    if path.suffix == ".gz":
        raise ConfigError(f"pools are not written to gzipped files; name another one than {path}")
    prompts, repeated = distinct_prompts(
        read_prompts(
            config.prompts,
            prompt_column=config.prompt_column,
            id_column=config.id_column,
            system_column=config.system_column,
            template=config.template,
            system=config.system,
            drop_last_assistant=bool(config.drop_last_assistant),
            limit=config.limit,
            shuffle=config.shuffle,
        )
    )
    config.sampling()  # which says what is out of its range
    if config.m < 1:
        raise ConfigError(f"m must be at least 1, not {config.m}")
    keep = is_drawn if config.retry_errors else None
    result = Drawn(repeated)
    with open_journal(path, _settings(config), keep=keep, compare=_same_pool) as journal:
        missing = missing_prompts(prompts, path, result) if journal.lines else prompts
        if missing:
            generator, _ = engines.drawing(config, keep_tokens=config.keep_tokens)
            journal.confirm(_settings(config, getattr(generator, "engine", None)))
            pools = draw(missing, generator, config.m, config.window)
            for row in progress(pools, len(missing), "drawing"):
                journal.append(pool.dumps(row))
                result.failed += _failed(row)
    if result.failed:
        _check_drawn(path)
    return result


_same_pool = comparing(SampleConfig)


def _settings(config: SampleConfig, engine: Engine | None = None) -> dict[str, Any]:
    """What the rows depend on, more exactly once the engine is loaded."""
    settings = config.model_dump(mode="json", exclude={"limit", "window", "retry_errors"})
    identity = engine_files(config, engine)
    return settings | {"prompts": input_of(config.prompts), "identity": identity}


def _check_drawn(path: Path) -> None:
    """Raises: RunFailedError: the file has no candidate that could be drawn."""
    errors = Counter[str]()
    for row in pool.read(path):
        if not all(candidate.error for candidate in row.candidates):
            return
        errors.update(filter(None, (candidate.error for candidate in row.candidates)))
    raise RunFailedError(
        f"no candidate could be drawn: {errors.most_common(1)[0][0]}; the same command with "
        "--retry-errors draws them again"
    )


def _failed(row: Pool) -> bool:
    return any(candidate.error for candidate in row.candidates)


def is_drawn(line: bytes) -> bool:
    """Whether no candidate of a row failed."""
    return not _failed(pool.loads(line))


def missing_prompts(prompts: Sequence[Prompt], path: Path, result: Drawn) -> list[Prompt]:
    """The prompts that a pool file has no pool for.

    Raises:
        ConfigError: the file has a pool under the id of one, drawn for another prompt.
    """
    missing = {folded(prompt.id): prompt for prompt in prompts}
    for row in pool.read(path):
        result.failed += _failed(row)
        prompt = missing.pop(folded(row.prompt.id), None)
        if prompt is not None and comparable(prompt) != comparable(row.prompt):
            raise ConfigError(
                f"the prompt {prompt.id!r} or its columns are not those that {path} was drawn "
                "with; write to another file"
            )
    return list(missing.values())


def distinct_prompts(prompts: Sequence[Prompt]) -> tuple[list[Prompt], int]:
    """The prompts without repetitions, and how many there were."""
    first: dict[str, Prompt] = {}
    for prompt in prompts:
        if first.setdefault(prompt.id, prompt).messages != prompt.messages:
            raise ConfigError(f"two different prompts have the id {prompt.id!r}")
    return list(first.values()), len(prompts) - len(first)
