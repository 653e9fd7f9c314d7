"""Where pure functions run over the parts of a dataset: in this process, or on a Dask cluster.

One way through the code serves both: a stage maps a function over parts and puts the results
together in the order of the parts, so they are the same to the byte wherever they were computed.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import platform
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol, TypeVar
from uuid import uuid4

from perennial.contracts.distribution import DISTRIBUTION, pip_install
from perennial.contracts.errors import InputError, PerennialError, Problem, UnavailableError
from perennial.spec.compute import Compute as Settings
from perennial.spec.compute import check_address

ADDRESS_VARIABLE = "PERENNIAL_DASK_ADDRESS"

CONNECT_SECONDS = 30
"""How long a scheduler may take to answer."""
ALONE_SECONDS = 120
"""How long a cluster may be without any worker while work is waiting."""
LOOK_SECONDS = 5
"""How often is looked whether there are any."""

_LIBRARIES = (
    DISTRIBUTION, "dask", "distributed", "cloudpickle", "numpy", "pandas", "pyarrow", "scipy",
    "xgboost", "apache-hamilton", "deltalake", "duckdb", "prefect", "prefect-dask",
)  # fmt: skip

Item = TypeVar("Item")
Result = TypeVar("Result")


class Compute(Protocol):
    """What runs functions, on so many ``threads``. ``remote`` tells whether it is elsewhere: parts
    had better be named, and not be sent."""

    @property
    def remote(self) -> bool: ...

    @property
    def threads(self) -> int: ...

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item], ahead: int | None = None
    ) -> Iterator[Result]:
        """The results in the order of the items; these are taken one by one, up to ``ahead`` before
        the result that is waited for. What the function raises is raised."""
        ...


class Here:
    """Runs everything in this process, one item at a time."""

    remote = False
    threads = 1

    def map(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        ahead: int | None = None,  # noqa: ARG002
    ) -> Iterator[Result]:
        return map(function, items)


HERE = Here()


class Cluster:
    """Runs functions on the workers of a Dask cluster. A function whose worker dies is run again on
    another: it must be pure."""

    remote = True

    def __init__(self, client: Any, address: str) -> None:
        self.client = client
        self.address = address

    @property
    def workers(self) -> dict[str, int]:
        """Threads of each worker by its address; in an order that restarts don't change as long as
        workers keep their names. Raises UnavailableError when the scheduler does not answer."""
        scheduler = self.client.scheduler
        if scheduler is None:  # was gone for so long that the client has closed itself
            raise UnavailableError(f"the Dask cluster at {self.address} does not answer any more")
        try:
            # not scheduler_info: another thread of the client's puts none in what that gives
            known = self.client.sync(scheduler.identity, n_workers=-1)["workers"]
        except OSError as error:
            raise UnavailableError(
                f"the Dask cluster at {self.address} does not answer any more: {_line(error)}"
            ) from None
        order = sorted(known, key=lambda address: (str(known[address]["name"]), address))
        return {address: int(known[address]["nthreads"]) for address in order}

    @property
    def threads(self) -> int:
        """Of all workers that there are now; at least 1."""
        return max(sum(self.workers.values()), 1)

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item], ahead: int | None = None
    ) -> Iterator[Result]:
        most = ahead or 2 * self.threads
        running: deque[Any] = deque()
        rest = iter(items)
        try:
            with self.answering():
                for item in itertools.islice(rest, most):
                    running.append(self._submit(function, item))
            while running:
                yield self.result(running[0])
                running.popleft().release()
                with self.answering():
                    for item in itertools.islice(rest, 1):
                        running.append(self._submit(function, item))
        finally:
            if running:
                with suppress(Exception):  # it may be what failed
                    self.client.cancel(list(running))

    def _submit(self, function: Callable[[Item], Any], item: Item) -> Any:
        return self.client.submit(function, item, pure=False)

    def result(self, future: Any) -> Any:
        """What a future comes to. Raises what its function raised, PerennialError when it killed
        several workers, UnavailableError when the cluster is gone or stays without workers."""
        alone_since: float | None = None
        while True:
            with self.answering():
                try:
                    return future.result(timeout=LOOK_SECONDS)
                except TimeoutError:
                    if future.done():
                        raise
                alone_since = None if self.workers else alone_since or time.monotonic()
            if alone_since and time.monotonic() - alone_since > ALONE_SECONDS:
                raise UnavailableError(
                    f"the Dask cluster at {self.address} has had no worker for {ALONE_SECONDS} s"
                )

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Says in our words how a cluster fails."""
        from distributed import CancelledError
        from distributed.comm.core import CommClosedError
        from distributed.scheduler import KilledWorker

        try:
            yield
        except KilledWorker as error:
            raise PerennialError(
                f"the same part of the work ended {error.allowed_failures + 1} workers of the Dask "
                f"cluster at {self.address}, the last {error.last_worker.address}: most likely "
                "they ran out of memory; give them more, or fewer threads each"
            ) from None
        except (CommClosedError, CancelledError) as error:
            raise UnavailableError(
                f"the Dask cluster at {self.address} does not answer any more: {_line(error)}"
            ) from None


@contextmanager
def connect(settings: Settings, shared: Path | None = None) -> Iterator[Compute]:
    """What runs the work of a model whose ``compute`` section this is.

    Workers must see the folder ``shared``. Raises InputError where Dask isn't installed, there is
    no address, or the scheduler or a worker is not like this process; UnavailableError when the
    scheduler does not answer or has no workers.
    """
    if settings.kind == "local":
        yield HERE
        return
    with connect_client(address_of(settings)) as cluster:
        _check_alike(cluster)
        if shared is not None:
            _check_shared(cluster, shared)
        yield cluster


def address_of(settings: Settings) -> str:
    """The scheduler's address: PERENNIAL_DASK_ADDRESS, else that of model.yaml. Raises
    InputError."""
    address = os.environ.get(ADDRESS_VARIABLE)
    if address:
        try:
            return check_address(address)
        except ValueError as error:
            raise InputError(Problem(ADDRESS_VARIABLE, str(error))) from None
    if settings.address is None:
        what = "kind: dask, but no address of a cluster"
        fix = f"give compute.address, or set {ADDRESS_VARIABLE}, such as tcp://scheduler:8786"
        raise InputError(Problem("model.yaml, compute", what, fix))
    return settings.address


@contextmanager
def connect_client(address: str) -> Iterator[Cluster]:
    """A cluster by its scheduler's address, when it has workers."""
    try:
        from distributed import Client
    except ImportError:
        what = "kind: dask needs Dask, which is not installed"
        raise InputError(Problem("model.yaml, compute", what, pip_install("dask"))) from None
    try:
        client = Client(  # type: ignore[no-untyped-call]
            address, timeout=CONNECT_SECONDS, set_as_default=False
        )
    except (OSError, TimeoutError) as error:
        raise UnavailableError(
            f"no Dask scheduler answers at {address}: {_line(error)}; start it, or set "
            f"compute.address or {ADDRESS_VARIABLE} to where it is"
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        except TimeoutError:
            raise UnavailableError(
                f"the Dask scheduler at {address} has no workers; start some: dask worker {address}"
            ) from None
        yield Cluster(client, address)


def installed() -> dict[str, str]:
    """The versions on this machine's disk that decide what is computed, and a digest of Perennial's
    own code there."""
    versions = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    root = Path(__file__).parent.parent
    code = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        code.update(f"{path.relative_to(root).as_posix()}\0".encode())
        code.update(hashlib.sha256(path.read_bytes()).digest())
    return {**versions, "perennial's code": code.hexdigest()[:12]}


_AT_FIRST = installed()
"""As this module was loaded, which every stage's functions need: an upgrade changes the disk, and
nothing that a process has loaded."""


def running() -> dict[str, str]:
    """What this process computes with, in the words of ``installed``."""
    loaded = {name: sys.modules.get(name.replace("-", "_")) for name in _AT_FIRST}
    told = {name: getattr(module, "__version__", None) for name, module in loaded.items()}
    return _AT_FIRST | {name: said for name, said in told.items() if isinstance(said, str)}


@dataclass(frozen=True)
class Report:
    """What a process of the cluster runs, what its disk had as it loaded Perennial, and has now."""

    runs: Mapping[str, str]
    had: Mapping[str, str]
    has: Mapping[str, str]


def report() -> Report:
    """Of this process."""
    return Report(running(), _AT_FIRST, installed())


def differences(
    here: Mapping[str, str], there: Mapping[str, Report | BaseException]
) -> Iterator[Problem]:
    """A problem for each process of the cluster, by its name, that is not like this process, that
    still runs what was there before an upgrade, or that could not even say what it is like."""
    fix = "start the {} from the same environment as the flow"
    for place, told in there.items():
        kind = place.partition(" ")[0]
        if isinstance(told, BaseException):
            what = f"it can't run Perennial: {_line(told)}"
            yield Problem(place, what, fix.format(kind))
            continue
        changed = [
            f"{name} {told.had.get(name, 'missing')} (now {told.has.get(name, 'missing')})"
            for name in {**told.had, **told.has}
            if told.had.get(name) != told.has.get(name)
        ]
        other = [
            f"{name} {told.runs.get(name, 'missing')} (here {known})"
            for name, known in here.items()
            if told.runs.get(name) != known
        ]
        if changed:
            what = f"it still runs what was there before an upgrade: {', '.join(changed)}"
            yield Problem(place, what, f"restart the {kind}")
        elif other:
            yield Problem(place, f"it has {', '.join(other)}", fix.format(kind))


def _check_alike(cluster: Cluster) -> None:
    """Workers compute; the scheduler reads every task before it hands it on."""
    from distributed.comm.core import CommClosedError

    with cluster.answering():
        found = cluster.client.run(report, on_error="return")
        there = {f"worker {worker}": told for worker, told in found.items()}
        scheduler = f"scheduler {cluster.address}"
        try:
            there[scheduler] = cluster.client.run_on_scheduler(report)
        except CommClosedError:  # it does not answer; what it raises itself may be an OSError too
            raise
        except Exception as error:
            there[scheduler] = error
    problems = list(differences(running(), there))
    if problems:
        raise InputError(problems)


def _check_shared(cluster: Cluster, folder: Path) -> None:
    """Workers read the table and the matrices at the same places as this process."""
    folder.mkdir(parents=True, exist_ok=True)
    seal = folder / f".seen-{uuid4().hex}"
    seal.touch()
    try:
        with cluster.answering():
            seen = cluster.client.run(os.path.exists, str(seal))
    finally:
        seal.unlink()
    blind = [worker for worker, sees in seen.items() if not sees]
    if blind:
        what = f"not seen by {len(blind)} of {len(seen)} workers, such as {blind[0]}"
        fix = (
            "give them the same disk at the same place, or keep all in a bucket: PERENNIAL_STORAGE"
        )
        raise InputError(Problem(str(folder), what, fix))


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__
