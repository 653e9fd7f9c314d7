"""One booster from a matrix that is spread over the workers of a Dask cluster, by xgboost.dask.

Each worker maps a stretch of the rows from the matrix's own files, or its copy of them. The same
inputs and the same number of workers give the same bytes. They are not those of one machine: the
bins of a feature with more than ``max_bin`` values come of what each worker proposes for its own
rows.

The rows don't go through Dask's collections: those would copy them into every worker's memory, and
lay them out anew after a worker died, and the result depends on where they lie.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from perennial.contracts.errors import PerennialError, UnavailableError
from perennial.contracts.features import FeatureSchema
from perennial.contracts.refs import Part
from perennial.spec import ModelSpec
from perennial.stores import rendezvous
from perennial.stores.compute import Cluster
from perennial.stores.matrices import read_schema
from perennial.stores.sharing import fetched

if TYPE_CHECKING:
    import xgboost as xgb

    from perennial.learning.matrices import Fitting
    from perennial.spec.parameters import Parameter

Stretch = tuple[str, str, int, int]
"""The files of a matrix and its labels, the first row and the one after the last."""

_ATTEMPTS = 5
_RETURN_SECONDS = 60
"""How long is waited for a worker that died to be replaced, before fewer go on."""
_NOTICE_SECONDS = 10
"""How long a scheduler may take to notice that a worker died, or a worker to tell the cause of what
failed on another."""
_WORKER = "a worker"
_LOCK = "perennial-training"
"""Of two trainings at once each could wait for a worker that the other has."""


@dataclass(frozen=True)
class _Share:
    """What one worker trains on, and with whom; on all its threads where the settings say 0."""

    place: str
    stretches: tuple[Stretch, ...]
    schema: FeatureSchema
    settings: Mapping[str, Any]
    rounds: int
    memory: int | None
    gathering: Mapping[str, Any]


class _DiedError(Exception):
    """A worker is gone, or the tracker: which of them."""


def train_distributed(
    cluster: Cluster,
    folder: Path,
    place: str,
    spec: ModelSpec,
    params: Mapping[str, Parameter],
    rounds: int,
    part: Fitting = "train",
) -> tuple[xgb.Booster, int]:
    """A booster of exactly ``rounds`` rounds, fitted to one part or two of the matrices in a folder
    that workers find at the ``place`` (see ``sharing``); and how many workers made it.

    When a worker dies training begins anew, with its replacement or, if none comes, with those that
    are left; and so it does when XGBoost's tracker dies. Raises PerennialError with XGBoost's
    reason when it can't train, UnavailableError when they keep dying.
    """
    import distributed
    import xgboost as xgb

    from perennial.learning.training import booster_params, first_line, load_booster

    schema = read_schema(folder)
    settings = booster_params(schema, spec, params, threads=0)
    parts: list[Part] = ["train", "validation"] if part == "train+validation" else ["train"]
    files = [(f"{part}.x.npy", f"{part}.y.npy") for part in parts]
    counts = [len(np.load(folder / y, mmap_mode="r")) for _, y in files]
    wanted = max(min(len(cluster.workers), sum(counts)), 1)  # all may be on their way back
    died = ""
    only_one: Any = distributed.Semaphore  # without types
    with cluster.answering(), cluster.client.as_current(), only_one(1, _LOCK):
        for _ in range(_ATTEMPTS):
            workers = _present(cluster, wanted)
            try:
                with _gathering(cluster, len(workers)) as gathering:
                    shares = [
                        _Share(place, _stretches(files, counts, *ends), schema, settings, rounds,
                               spec.compute.memory, gathering)
                        for ends in _ends(sum(counts), len(workers))
                    ]  # fmt: skip
                    content = _train(cluster, dict(zip(workers, shares, strict=True)))
                return load_booster(content), len(workers)
            except PerennialError:  # a worker that has no rows; the others wait for it
                _free(cluster, workers)
                raise
            except (_DiedError, xgb.core.XGBoostError) as error:
                if isinstance(error, xgb.core.XGBoostError) and _all_live(cluster, workers):
                    raise PerennialError(f"XGBoost can't train: {first_line(error)}") from None
                died = str(error) if isinstance(error, _DiedError) else _WORKER
                _free(cluster, workers)
    raise UnavailableError(
        f"a worker of the Dask cluster at {cluster.address}, or XGBoost's tracker beside its "
        f"scheduler, died in each of {_ATTEMPTS} trainings; in the last {died}"
    )


def _train(cluster: Cluster, shares: Mapping[str, _Share]) -> bytes:
    """The booster's bytes. Raises _DiedError when a worker is gone."""
    import distributed

    wait: Any = distributed.wait  # without types
    running = [
        cluster.client.submit(_fit_share, share, workers=[worker], pure=False)
        for worker, share in shares.items()
    ]
    until: float | None = None
    while not all(future.done() for future in running):
        errors = [future.exception() for future in running if future.status == "error"]
        if any(isinstance(error, PerennialError) for error in errors):
            break
        if not set(shares) <= set(cluster.workers):
            raise _DiedError(_WORKER)
        if errors:
            until = until or time.monotonic() + _NOTICE_SECONDS
            if time.monotonic() > until:
                break
        with suppress(TimeoutError):
            wait(running, timeout=1)
    errors = [future.exception() for future in running if future.status == "error"]
    if errors:
        raise next((error for error in errors if isinstance(error, PerennialError)), errors[0])
    contents: list[bytes | None] = [future.result() for future in running]
    return next(content for content in contents if content is not None)


def _fit_share(share: _Share) -> bytes | None:
    """On a worker: train with the others. The booster is everybody's; the first gives its bytes."""
    import xgboost as xgb
    import xgboost.dask as dxgb
    from distributed import get_worker

    from perennial.learning.matrices import quantile_matrix
    from perennial.learning.training import booster_bytes

    threads = get_worker().state.nthreads
    folder = fetched(share.place)  # before anybody waits for this worker
    batches = [
        (np.load(folder / x, mmap_mode="r")[a:b], np.load(folder / y, mmap_mode="r")[a:b])
        for x, y, a, b in share.stretches
    ]
    with dxgb.CommunicatorContext(**share.gathering):
        rows = quantile_matrix(
            share.schema, batches, share.settings["max_bin"], threads, memory=share.memory
        )
        settings = {**share.settings, "nthread": share.settings["nthread"] or threads}
        booster = xgb.train(settings, rows, share.rounds, verbose_eval=False)
        first = xgb.collective.get_rank() == 0
    return booster_bytes(booster) if first else None


@contextmanager
def _gathering(cluster: Cluster, workers: int) -> Iterator[dict[str, Any]]:
    """How so many workers find each other, for one training. Raises _DiedError for an error of
    XGBoost's when the tracker died, as every worker fails without it."""
    from distributed.comm.addressing import get_address_host
    from xgboost.core import XGBoostError

    client: Any = cluster.client
    ask = client.run_on_scheduler
    host = get_address_host(client.scheduler.address)
    name, found = ask(rendezvous.start, workers, host, client.id)
    try:
        yield found
    except XGBoostError:
        if code := ask(rendezvous.end, name):
            raise _DiedError(f"the tracker, with exit code {code}") from None
        raise
    finally:
        with suppress(Exception):  # the scheduler may be what failed
            ask(rendezvous.end, name)


def _ends(rows: int, workers: int) -> list[tuple[int, int]]:
    """Stretches of all rows, one a worker, in order."""
    ends = [rows * number // workers for number in range(workers + 1)]
    return list(itertools.pairwise(ends))


def _stretches(
    files: Sequence[tuple[str, str]], counts: Sequence[int], start: int, stop: int
) -> tuple[Stretch, ...]:
    """Where the rows from ``start`` to ``stop`` of several files, one after the other, lie."""
    found = []
    for (x, y), count in zip(files, counts, strict=True):
        first, last = max(start, 0), min(stop, count)
        if first < last:
            found.append((x, y, first, last))
        start, stop = start - count, stop - count
    return tuple(found)


def _present(cluster: Cluster, wanted: int) -> list[str]:
    """The workers, when there are as many as wanted or none came for a while."""
    deadline = time.monotonic() + _RETURN_SECONDS
    while True:
        workers = list(cluster.workers)
        if len(workers) >= wanted or (workers and time.monotonic() > deadline):
            return workers[:wanted]
        if time.monotonic() > deadline:
            raise UnavailableError(f"the Dask cluster at {cluster.address} has no workers")
        time.sleep(0.2)


def _all_live(cluster: Cluster, workers: Sequence[str]) -> bool:
    """Whether none of these workers died; the scheduler may be late to know."""
    deadline = time.monotonic() + _NOTICE_SECONDS
    while time.monotonic() < deadline:
        if not set(workers) <= set(cluster.workers):
            return False
        time.sleep(0.2)
    return True


def _free(cluster: Cluster, workers: Sequence[str]) -> None:
    """Restart the workers that still wait for one which died before all had found each other:
    XGBoost has no end to that."""
    deadline = time.monotonic() + _NOTICE_SECONDS
    while waiting := _training(cluster, workers):
        if time.monotonic() > deadline:
            cluster.client.restart_workers(waiting)
            return
        time.sleep(0.5)


def _training(cluster: Cluster, workers: Sequence[str]) -> list[str]:
    """Those that train, or will as soon as they come to it."""
    told, stacks = cluster.client.processing(), cluster.client.call_stack()
    return [
        worker
        for worker in set(workers) & set(cluster.workers)
        for keys in [(*told.get(worker, ()), *stacks.get(worker, ()))]
        if any(_fit_share.__name__ in str(key) for key in keys)
    ]
