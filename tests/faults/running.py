"""A run: a world, its traffic, what goes wrong in it, and what is found afterwards."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from perennial.contracts.errors import PerennialError
from tests.contract import postgres
from tests.faults import processes
from tests.faults.actors import MODEL
from tests.faults.adversary import Fault, plan
from tests.faults.checker import Story, violations
from tests.faults.traffic import Traffic
from tests.faults.world import Database, Storage, World, filled, until

_ORDERS = (
    ("rollback", MODEL),
    ("rollout", MODEL, "--pause"),
    ("rollout", MODEL, "--resume"),
    ("rollout", MODEL, "--promote"),
    ("rollout", MODEL, "--abort"),
)


@dataclass(frozen=True)
class Result:
    """A run that is over. ``history`` has a line for each thing that happened."""

    seed: int
    seconds: float
    violations: list[str]
    history: list[str]
    faults: Counter[str]
    story: Story
    statuses: Counter[str]
    longest_silence: float

    def told(self) -> str:
        """All that a person needs to see what went wrong, and to run it again."""
        parts = ["\n".join(self.history), f"seed {self.seed}, {self.seconds:g} seconds"]
        return "\n\n".join([*parts, "\n".join(self.violations) or "nothing was violated"])


class History:
    def __init__(self, path: Path) -> None:
        self.lines: list[str] = []
        self._path = path
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def tell(self, what: str) -> None:
        with self._lock:
            line = f"{time.monotonic() - self._began:7.2f}  {what}"
            self.lines.append(line)
            with self._path.open("a") as file:
                file.write(f"{line}\n")


def run(
    folder: Path,
    seed: int,
    seconds: float,
    *,
    database: Database = "sqlite",
    storage: Storage = "local",
    settle_seconds: float = 20.0,
    clients: int = 2,
    orders_every: float = 6.0,
    pipeline: bool = False,
) -> Result:
    """Everything goes wrong for so many seconds; then all must be well."""
    history = History(folder / "history.txt")
    with World(folder, database, storage, history.tell, pipeline=pipeline) as world:
        faults = plan(seed, seconds, world.possible())
        traffic = Traffic(world.addresses, clients, seed)
        history.tell(f"seed {seed}: {len(faults)} faults in {seconds:g} s; a disk of its own: "
                     f"{world.own_disk}; clocks: {world.clocks is not None}")  # fmt: skip
        traffic.start()
        people = threading.Thread(target=_people, args=(world, seed, seconds, orders_every))
        people.start()
        try:
            _inflict(world, faults, seconds, history.tell)
            people.join()
            history.tell("no more faults")
            before = len(traffic.promises.answers)
            until(lambda: len(traffic.promises.answers) > before + 20, 240, "nobody answers")
            watched = world.quieten(settle_seconds, traffic.stop)
        finally:
            traffic.stop()
            people.join()
        story = world.story(traffic.promises, watched)
        data = world.story_of_data()
    found = violations(story) + [f"demand: {one}" for one in (violations(data) if data else [])]
    if data is not None:
        history.tell(
            f"demand: {len(data.ingested):,} rows taken in, {len(data.table):,} in the table, "
            f"{len(data.versions)} versions, {len(data.decisions)} decisions"
        )
    return Result(
        seed, seconds, found, history.lines, Counter(f.kind for f in faults), story,
        traffic.promises.statuses, traffic.promises.longest_silence,
    )  # fmt: skip


def _people(world: World, seed: int, seconds: float, every: float) -> None:
    chance = random.Random(f"people {seed}")
    ends = time.monotonic() + seconds
    while (wait := chance.uniform(0.5, 1.5) * every) < ends - time.monotonic():
        time.sleep(wait)
        world.order(*chance.choice(_ORDERS))


def _inflict(
    world: World, faults: list[Fault], seconds: float, tell: Callable[[str], None]
) -> None:
    began = time.monotonic()
    with contextlib.ExitStack() as last:
        lasting: list[tuple[float, contextlib.ExitStack]] = []
        last.callback(lambda: [stack.close() for _, stack in lasting])
        for fault in [*faults, None]:
            at = seconds if fault is None else fault.at
            while (now := time.monotonic() - began) < at:
                for over in [one for one in lasting if one[0] <= now]:
                    lasting.remove(over)
                    over[1].close()
                time.sleep(0.02)
            if fault is None:
                return
            tell(str(fault))
            stack = contextlib.ExitStack()
            lasting.append((fault.at + fault.seconds, stack))
            try:
                stack.enter_context(_suffered(world, fault))
            except (OSError, sa.exc.SQLAlchemyError, PerennialError) as error:
                tell(f"  could not be done: {error}")


@contextlib.contextmanager
def _suffered(world: World, fault: Fault) -> Iterator[None]:
    """What goes wrong, for as long as this lasts."""
    if fault.kind in ("cut", "hang", "slow", "busy", "half"):
        way = world.ways[fault.target]
        way.set(fault.kind)
        try:
            yield
        finally:
            way.set("pass")
    elif fault.kind == "disk full":
        with filled(world.root):
            yield
    elif fault.kind == "locked":
        with _locked(world):
            yield
    elif fault.kind == "restart":
        _restart_database(world)
        yield
    elif fault.kind == "clock":
        world.parts[fault.target].jump(fault.amount)
        try:
            yield
        finally:
            world.parts[fault.target].jump(0)
    else:
        with _hurt(world.pids(fault.target), fault):
            yield


@contextlib.contextmanager
def _hurt(pids: list[int], fault: Fault) -> Iterator[None]:
    for pid in pids:
        if fault.kind == "kill":
            processes.kill(pid)
        elif fault.kind == "pause":
            processes.pause(pid)
        else:
            processes.starve(pid, fault.amount)
    try:
        yield
    finally:
        for pid in pids:
            if fault.kind == "pause":
                processes.resume(pid)
            elif fault.kind == "starve":
                processes.feed(pid)


@contextlib.contextmanager
def _locked(world: World) -> Iterator[None]:
    if world.pg_home is None:
        connection = sqlite3.connect(
            world.project.home / "registry.db", isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA busy_timeout = 1000")
            with contextlib.suppress(sqlite3.OperationalError):
                connection.execute("BEGIN IMMEDIATE")
            yield
        finally:
            connection.close()
        return
    engine = sa.create_engine(world.registry_url, poolclass=sa.NullPool)
    locked = None
    with contextlib.suppress(sa.exc.DBAPIError):
        locked = engine.connect()
        locked.exec_driver_sql("SET lock_timeout = '1s'")
        locked.exec_driver_sql("LOCK TABLE routes IN ACCESS EXCLUSIVE MODE")
    try:
        yield
    finally:
        if locked is not None:
            with contextlib.suppress(sa.exc.DBAPIError):
                locked.close()


def _restart_database(world: World) -> None:
    tools, home = postgres.binaries(), world.pg_home
    assert tools is not None
    assert home is not None
    data = home / "data"
    user = data.owner() if data.owner() != _me() else None
    command = [str(tools / "pg_ctl"), "restart", "-D", str(data), "-m", "immediate", "-w"]
    subprocess.run(
        [*command, "-l", str(home / "log")], user=user, cwd=home, check=True, timeout=60,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _me() -> str:
    import getpass

    return getpass.getuser()
