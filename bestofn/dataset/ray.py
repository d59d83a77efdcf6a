"""Selection over a dataset by several replicas on a Ray cluster; the same rows in and out."""

import asyncio
import logging
import os
import pickle
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bestofn import concurrency
from bestofn.config import ClusterConfig, SelectConfig
from bestofn.dataset.run import timed
from bestofn.dataset.select import loaded, select_file, select_row
from bestofn.dataset.summary import Summary
from bestofn.errors import BestOfNError, ConfigError, EngineError
from bestofn.store.journal import Confirm
from bestofn.store.pool import dumps, loads
from bestofn.types import Pool, Prompt

if TYPE_CHECKING:
    import pyarrow

BLOCK = 16  # prompts that travel together, and are done again together when a replica dies


def select_on_cluster(
    config: SelectConfig, cluster: ClusterConfig, output: Path, *, progress: bool = True
) -> Summary:
    """`select_file` with replicas of the sampler on a Ray cluster.

    The prompts are read here and handed to Ray's object store, and the rows are written here. When
    a replica dies, Ray starts another one, and what it had in hand is done again.

    Raises:
        ConfigError, BestOfNError: what `select_file` raises, or Ray is not installed.
        EngineError: the cluster failed, or a replica cannot load its models.
    """

    def work(prompts: Iterator[Prompt], _: Confirm) -> Iterator[Pool]:
        written = set[str]()
        with _connected(cluster, config.ordered) as ray:
            items = _answered(ray, config, cluster, prompts).iter_rows()
            for row in timed((_row(item), {"select": 1.0}) for item in items):
                if row.prompt.id not in written:
                    written.add(row.prompt.id)
                    yield row

    return select_file(config, output, work=work, progress=progress)


def _answered(
    ray: Any, config: SelectConfig, cluster: ClusterConfig, prompts: Iterator[Prompt]
) -> Any:
    """The data set of answers to the prompts, which travel in blocks."""
    import pyarrow

    at_once = config.n if config.adaptive is None else min(config.n, config.round_size)
    in_flight = concurrency.Window(at_once, config.window).most
    blocks = []
    while block := [pickle.dumps(prompt) for prompt in islice(prompts, BLOCK)]:
        blocks.append(ray.put(pyarrow.table({"prompt": block})))
    return ray.data.from_arrow_refs(blocks).map_batches(
        Replica,
        fn_constructor_kwargs={"config": config.model_dump()},
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(
            size=cluster.replicas,
            max_concurrent_calls_per_actor=max(2, ceil(in_flight / BLOCK)),
        ),
        num_cpus=cluster.replica_cpus,
        num_gpus=cluster.replica_gpus,
    )


def _row(item: Mapping[str, str]) -> Pool:
    if item["failure"]:
        raise EngineError(f"a replica failed: {item['failure']}")
    return loads(item["row"])


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
            yield {"row": [""], "failure": [self._failure]}
            return
        work = [
            asyncio.ensure_future(
                concurrency.on_background_loop(select_row(self._best, pickle.loads(prompt)))
            )
            for prompt in block.column("prompt").to_pylist()
        ]
        for selection in work if self._config.ordered else asyncio.as_completed(work):
            yield {"row": [dumps(await selection)], "failure": [""]}


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
    options: dict[str, Any] = {"address": cluster.cluster}
    if cluster.cluster == "local":
        needed = ceil(cluster.replicas * cluster.replica_cpus) + 1
        options = {"num_cpus": max(needed, os.cpu_count() or 1), "include_dashboard": False}
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = ordered
        yield ray
    except BestOfNError:
        raise
    except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError) as error:
        raise EngineError(f"the cluster failed: {_root(error)}") from error
    finally:
        ray.shutdown()


def _root(error: BaseException) -> str:
    """What began it, without the traces of the processes it came through."""
    said = str(error).strip()
    while cause := getattr(error, "cause", None) or error.__cause__:
        error, said = cause, str(cause).strip() or said
    return said.splitlines()[-1] if said else type(error).__name__
