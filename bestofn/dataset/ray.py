"""Selection over a dataset by several replicas on a Ray cluster; the same rows in and out."""

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import islice
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bestofn import concurrency
from bestofn.config import ClusterConfig, SelectConfig
from bestofn.dataset.config import loaded
from bestofn.dataset.run import Row, timed
from bestofn.dataset.select import run_config, select_row
from bestofn.dataset.summary import Summary
from bestofn.errors import BestOfNError, ConfigError, EngineError
from bestofn.prompts import as_prompt, written
from bestofn.sampler import window_of
from bestofn.store import pool
from bestofn.store.journal import Confirm
from bestofn.types import Pool, Prompt

if TYPE_CHECKING:
    import pyarrow

BLOCK = 16  # prompts that travel together, and are done again together when a replica dies


def select_on_cluster(
    config: SelectConfig, cluster: ClusterConfig, output: Path, *, progress: bool = True
) -> Summary:
    """`select_file` with replicas of the sampler on a Ray cluster.

    The prompts are read here and handed to Ray's object store; rows come back as they are finished
    and are written here. When a replica dies, Ray starts another one, and what it had in hand is
    done again.

    Raises:
        ConfigError, BestOfNError: what `select_file` raises, or Ray is not installed.
        EngineError: the cluster cannot be reached, or a replica cannot load its models.
    """
    work = partial(_select_there, config, cluster)
    return run_config(config, output, work, progress=progress)


def _select_there(
    config: SelectConfig, cluster: ClusterConfig, prompts: Iterator[Prompt], _: Confirm
) -> Iterator[Row]:
    at_once = config.n if config.adaptive is None else min(config.n, config.round_size)
    in_flight = window_of(at_once, config.window).most
    with _connected(cluster, config.ordered) as ray:
        blocks = [ray.put(block) for block in _blocks(prompts)]
        replicas = ray.data.ActorPoolStrategy(
            size=cluster.replicas,
            max_concurrent_calls_per_actor=max(2, ceil(in_flight / BLOCK)),
        )
        rows = ray.data.from_arrow_refs(blocks).map_batches(
            Replica,
            fn_constructor_kwargs={"config": config.model_dump()},
            batch_size=None,
            batch_format="pyarrow",
            compute=replicas,
            num_cpus=cluster.replica_cpus,
            num_gpus=cluster.replica_gpus,
        )
        written = set[str]()
        for row in timed((json.loads(item["row"]) for item in rows.iter_rows()), "select"):
            if "failure" in row:
                raise EngineError(f"a replica failed: {row['failure']}")
            if row["id"] not in written:
                written.add(row["id"])
                yield row


class Replica:
    """A sampler in a process of its own, which answers blocks of prompts."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = SelectConfig.model_validate(config)
        self._loaded = loaded(self._config)
        self._failure = ""
        try:
            self._best = self._loaded.__enter__()
        except BestOfNError as error:
            # Ray would try for ever to raise it somewhere else.
            self._failure = str(error)

    async def __call__(self, block: "pyarrow.Table") -> AsyncIterator[dict[str, list[str]]]:
        if self._failure:
            yield {"row": [json.dumps({"failure": self._failure})]}
            return
        prompts = [_unpacked(text) for text in block.column("prompt").to_pylist()]
        work = [
            asyncio.ensure_future(concurrency.bridge(select_row(self._best, prompt)))
            for prompt in prompts
        ]
        for selection in work if self._config.ordered else asyncio.as_completed(work):
            yield {"row": [pool.dumps(await selection)]}


def _blocks(prompts: Iterator[Prompt]) -> "Iterator[pyarrow.Table]":
    import pyarrow

    while block := list(islice(prompts, BLOCK)):
        yield pyarrow.table({"prompt": [_packed(prompt) for prompt in block]})


def _packed(prompt: Prompt) -> str:
    return pool.dumps(Pool(prompt, []))


def _unpacked(text: str) -> Prompt:
    row = json.loads(text)
    return as_prompt(written(row["prompt"]), row["id"], row.get("columns", {}))


@contextmanager
def _connected(cluster: ClusterConfig, ordered: bool) -> Iterator[Any]:
    """Ray, connected to the cluster; what goes wrong there is one sentence."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError:
        raise ConfigError("a cluster needs Ray: pip install 'bestofn[cluster]'") from None
    failures = (ray.exceptions.RayError, ConnectionError)
    try:
        try:
            _connect(ray, cluster, ordered)
        except (*failures, RuntimeError, ValueError) as error:
            raise EngineError(f"the cluster cannot be reached: {_root(error)}") from error
        yield ray
    except failures as error:
        raise EngineError(f"the cluster failed: {_root(error)}") from error
    finally:
        ray.shutdown()


def _connect(ray: Any, cluster: ClusterConfig, ordered: bool) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if cluster.cluster == "local":
        needed = ceil(cluster.replicas * cluster.replica_cpus) + 1
        options |= {"num_cpus": max(needed, os.cpu_count() or 1), "include_dashboard": False}
    else:
        options["address"] = cluster.cluster
    ray.init(**options)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = ordered


def _root(error: BaseException) -> str:
    """What began it, without the traces of the processes it came through."""
    said = ""
    seen: BaseException | None = error
    while seen is not None:
        said = str(seen).strip() or said
        seen = getattr(seen, "cause", None) or seen.__cause__
    return said.splitlines()[-1] if said else type(error).__name__
