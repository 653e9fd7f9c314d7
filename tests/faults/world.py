"""A whole loop in a folder: a registry, tables, servers, a trainer, controllers, clients, people,
and the ways between them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import httpx
import sqlalchemy as sa

from perennial.cli.prefect_server import prefect_server
from perennial.contracts.errors import PerennialError
from perennial.contracts.rollouts import Rollout
from perennial.stores.predictions.sessions import aside
from perennial.stores.predictions.waiting import segments
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from tests.contract import postgres, s3
from tests.faults import processes
from tests.faults.actors import MODEL, Journal, read, rows_of
from tests.faults.adversary import Possible
from tests.faults.checker import Order, Story
from tests.faults.processes import Part, clock_library
from tests.faults.proxy import Proxy, to_port, to_socket
from tests.faults.traffic import Promises, as_float32
from tests.fuzz.served import SPEC
from tests.workplace import FEATURES_PY, MODEL_YAML

Database = Literal["sqlite", "postgresql"]
Storage = Literal["local", "s3"]
SERVERS = ("server-1", "server-2")
CONTROLLERS = ("controller-1", "controller-2")
ROLLOUT = """
rollout:
  strategy: canary
  steps: [40, 100]
  bake: 1s
  timeout: 2d
  min_requests: 10
  check_every: 1s
  guards: {error_rate: 0.05, prediction_shift: 0.9}
"""
_REPOSITORY = Path(__file__).parents[2]
_DISK_MIB = 256
_T = TypeVar("_T")


class World:
    """Everything that runs. Entered, it is well and answers; left, all of it has ended.

    ``tell`` is called with each thing that happens.
    """

    def __init__(
        self,
        folder: Path,
        database: Database,
        storage: Storage,
        tell: Callable[[str], None],
        *,
        pipeline: bool = False,
    ) -> None:
        self.folder = folder
        self.root = folder / "project"
        self.project = Project(self.root)
        self._database = database
        self._storage = storage
        self._pipeline = pipeline
        self._prefect_url = ""
        self._tell = tell
        self._open = contextlib.ExitStack()
        self._tending = threading.Event()
        self._numbers = 0
        self.parts: dict[str, Part] = {}
        self.ways: dict[str, Proxy] = {}
        self.orders: list[Order] = []
        self.wrong: list[str] = []
        """What did not come when nothing went wrong any more."""
        self.own_disk = False
        self.clocks: Path | None = None
        self.registry_url = f"sqlite:///{self.root}/.perennial/registry.db"
        self.pg_home: Path | None = None
        self.s3: s3.Endpoint | None = None
        """As nothing goes wrong with it; ``ways`` has the way that everybody takes."""
        self.journal = Journal(folder / "trained.jsonl")

    # Beginning and end

    def __enter__(self) -> World:
        try:
            self._begin()
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _begin(self) -> None:
        self.root.mkdir(parents=True)
        self.own_disk = _mounted(self.root)
        self.clocks = clock_library(self.folder)
        if self.own_disk:
            self._open.callback(subprocess.run, ["umount", "-l", str(self.root)], check=False)
        model = self.root / "models" / MODEL
        model.mkdir(parents=True)
        text = SPEC.format(name=MODEL, objective="binary") + ROLLOUT
        (model / "model.yaml").write_text(text)
        self.project.home.mkdir()
        self._open_registry()
        self._open_storage()
        if self._pipeline:
            self._open_pipeline()
        first = [sys.executable, "-m", "tests.faults.actors", "first", str(self.journal.path)]
        subprocess.run(first, env=self.environment(), cwd=self.folder, check=True, timeout=240)
        self._open.callback(self._end_all)
        for name, command in self._commands().items():
            part = Part(name, command, self.environment(), self.folder, self._tell, self.clocks)
            self.parts[name] = part
            part.start()
        for name in SERVERS:
            way = Proxy(to_port(self._port_of(self.parts[name])))
            self._open.callback(way.close)
            self.ways[name] = way
        for name in SERVERS:
            answers = partial(self._follows_first, name)
            until(answers, 240, f"{name} does not answer")
        tending = threading.Thread(target=self._tend)
        tending.start()
        self._open.callback(tending.join)
        self._open.callback(self._tending.set)

    def _follows_first(self, name: str) -> bool:
        part = self.parts[name]
        assert part.pid is not None, part.log.read_text()[-3000:]
        return self.generation(name) is not None

    def _open_registry(self) -> None:
        if self._database == "sqlite":
            return
        url = sa.make_url(self._open.enter_context(postgres.server()))
        self.pg_home = Path(str(url.query["host"]))
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.exec_driver_sql("CREATE DATABASE faults")
        way = Proxy(to_socket(str(self.pg_home / ".s.PGSQL.5432")))
        self._open.callback(way.close)
        self.ways["registry"] = way
        self.registry_url = f"postgresql+psycopg://{url.username}@127.0.0.1:{way.port}/faults"

    def _open_storage(self) -> None:
        """A bucket that both servers share, each with a folder of its own for what is on its way;
        or one folder for all."""
        if self._storage == "local":
            return
        self.s3 = self._open.enter_context(s3.moto())
        way = Proxy(to_port(self._s3_port))
        self._open.callback(way.close)
        self.ways["storage"] = way
        second = self.root_of(SERVERS[1])
        second.mkdir()
        (second / "models").symlink_to(self.root / "models")

    def _open_pipeline(self) -> None:
        """A second model, which is really trained: by its flow, on a Prefect server."""
        model = self.root / "models" / "demand"
        model.mkdir()
        (model / "model.yaml").write_text(MODEL_YAML)
        (model / "features.py").write_text(FEATURES_PY)
        (self.root / "data").mkdir()
        home = self.folder / "prefect"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        self._prefect_url = self._open.enter_context(prefect_server(home, environment))

    def _s3_port(self) -> int | None:
        return None if self.s3 is None else int(self.s3.url.rsplit(":", 1)[1])

    def root_of(self, part: str) -> Path:
        """The project's folder as a part has it."""
        apart = self.s3 is not None and part == SERVERS[1]
        return self.root.with_name(f"project-of-{part}") if apart else self.root

    def spools(self) -> list[Path]:
        return sorted({self.root_of(name) / ".perennial" / "spool" for name in SERVERS})

    def environment(self, part: str = "") -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items()
            if not name.startswith(("PERENNIAL_", "PREFECT_", "WANDB_", "PYTEST_", "AWS_"))
        }  # fmt: skip
        if self.s3 is not None:
            kept |= self.s3.environment("team/faults")
            kept["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{self.ways['storage'].port}"
        return {
            **kept,
            "PERENNIAL_PROJECT": str(self.root_of(part)),
            "PERENNIAL_REGISTRY_URL": self.registry_url,
            "PYTHONPATH": str(_REPOSITORY),
            "OMP_NUM_THREADS": "1",
            **(self._of_flows() if self._pipeline else {}),
        }

    def _of_flows(self) -> dict[str, str]:
        return {
            "PREFECT_API_URL": self._prefect_url,
            "PREFECT_HOME": str(self.folder / "prefect-home"),
            "PREFECT_LOCAL_STORAGE_PATH": str(self.project.home / "results"),
            "WANDB_MODE": "offline",
        }

    def _commands(self) -> dict[str, list[str]]:
        cli = [sys.executable, "-c", "from perennial.cli import main; main()"]
        actor = [sys.executable, "-m", "tests.faults.actors"]
        looks = str(self.folder / "looks.jsonl")
        return {
            **{
                name: [*cli, "serve", MODEL, "--port", "0", "--acknowledge", promise]
                for name, promise in zip(SERVERS, ("fast", "strict"), strict=True)
            },
            **{name: [*actor, "controller", looks] for name in CONTROLLERS},
            "trainer": [*actor, "trainer", str(self.journal.path)],
            **({"pipeline": [*actor, "pipeline", self._arrived]} if self._pipeline else {}),
        }

    @property
    def _arrived(self) -> str:
        return str(self.folder / "arrived.jsonl")

    @staticmethod
    def _port_of(part: Part) -> Callable[[], int | None]:
        def port() -> int | None:
            return int(part.address.rsplit(":", 1)[1]) if part.address else None

        return port

    def _tend(self) -> None:
        while not self._tending.wait(0.1):
            for part in self.parts.values():
                part.tend()

    def _end_all(self) -> None:
        """Nothing of this world goes on."""
        for part in self.parts.values():
            part.again = False
        deadline = time.monotonic() + 30
        while (left := processes.marked(str(self.folder))) and time.monotonic() < deadline:
            for pid in left:
                processes.kill(pid)
            time.sleep(0.1)

    # What can go wrong here

    def possible(self) -> list[Possible]:
        everybody = list(self.parts)
        beside = [f"{name}/{what}" for name in SERVERS for what in ("keeper", "shadow")]
        beside += ["pipeline/flow"] * 4 if self._pipeline else []
        networks = list(self.ways)
        found = [
            Possible("kill", [*everybody, *beside], 3.0),
            Possible("pause", [*everybody, *beside]),
            Possible("starve", [*everybody, *beside]),
            Possible("cut", networks),
            Possible("hang", networks),
            Possible("slow", networks),
            Possible("half", networks, 0.5),
            Possible("locked", ["registry"], 0.7),
        ]
        if self.s3 is not None:
            found.append(Possible("busy", ["storage"]))
        if self.own_disk:
            found.append(Possible("disk full", ["disk"]))
        if self.pg_home is not None:
            found.append(Possible("restart", ["registry"], 0.7))
        if self.clocks is not None:
            found.append(Possible("clock", everybody))
        return found

    def pids(self, target: str) -> list[int]:
        """The processes of a part, or of what runs beside it: ``server-1/keeper``."""
        name, _, beside = target.partition("/")
        return self.parts[name].members().get(beside or "main", [])

    # What people do and see

    def addresses(self) -> list[str]:
        return [f"http://127.0.0.1:{self.ways[name].port}" for name in SERVERS]

    def generation(self, server: str) -> int | None:
        """The generation of the route that a server follows; None when it doesn't answer."""
        address = self.parts[server].address
        with contextlib.suppress(httpx.HTTPError, KeyError):
            if address is not None:
                reply = httpx.get(f"{address}/models", timeout=10)
                models = {one["name"]: one for one in reply.json()["models"]}
                return int(models[MODEL]["generation"])
        return None

    def order(self, *command: str) -> Order:
        """Give a command as a person would, and keep what it said."""
        self._numbers += 1
        mark = f"order {self._numbers:04d}"
        words = [sys.executable, "-c", "from perennial.cli import main; main()", *command]
        done = subprocess.run(
            [*words, "--reason", mark], env=self.environment(), cwd=self.folder, text=True,
            capture_output=True, timeout=300, check=False,
        )  # fmt: skip
        said = " ".join((done.stdout + done.stderr).split())[-300:]
        order = Order(" ".join(command), mark, done.returncode == 0, said)
        self.orders.append(order)
        self._tell(f"{order.command} ({mark}): {done.returncode} {said[:120]}")
        return order

    def active(self) -> Rollout | None:
        return self.asked(lambda registry: registry.rollouts.active(MODEL))

    def asked(self, question: Callable[[Registry], _T]) -> _T:
        """What the registry says, as soon as it answers."""
        deadline = time.monotonic() + 240
        while True:
            try:
                registry = Registry(self.registry_url)
                try:
                    return question(registry)
                finally:
                    registry.close()
            except PerennialError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    # After all is over

    def quieten(self, settle_seconds: float, stop_traffic: Callable[[], None]) -> bool:
        """Let everything come to rest: rollouts end by themselves within ``settle_seconds``, or by
        order; what waits reaches its tables; servers follow the route, and end. Returns whether
        somebody watched the rollout that had not ended by itself."""
        self._expect(lambda: self._versions() > 1, "the trainer brings no version any more")
        self.parts["trainer"].stop()
        if self._pipeline:
            arrived = partial(read, Path(self._arrived))
            before = sum(1 for _ in arrived())
            self._expect(lambda: sum(1 for _ in arrived()) > before, "nothing is trained any more")
            self.parts["pipeline"].stop()
            until(lambda: not self.pids("pipeline/flow"), 240, "a flow does not end")
        deadline = time.monotonic() + settle_seconds
        while time.monotonic() < deadline and self.active() is not None:
            time.sleep(0.3)
        left, watched = self.active(), True
        if left is not None:
            watched = self._is_watched()
            ended = self.order("rollout", MODEL, "--abort")
            watched = watched and (ended.obeyed or self.active() is None)
        stop_traffic()
        for name in CONTROLLERS:
            self.parts[name].stop()
        return watched

    def _versions(self) -> int:
        return sum(line["told"] == "registered" for line in read(self.journal.path))

    def _expect(self, true: Callable[[], object], otherwise: str) -> None:
        """What has to come once nothing goes wrong any more, however slow the machine is."""
        try:
            until(true, 240, otherwise)
        except AssertionError:
            self.wrong.append(otherwise)

    def _is_watched(self) -> bool:
        """Whether somebody looks at the rollout under way, given time to start and to look."""
        looks = self.folder / "looks.jsonl"
        before = sum(1 for _ in read(looks))
        with contextlib.suppress(AssertionError):
            until(lambda: sum(1 for _ in read(looks)) > before or self.active() is None, 240, "")
            return True
        return False

    def story(self, promises: Promises, watched: bool) -> Story:
        """Everything read anew, after the servers have brought what they have to the tables."""
        route = self.asked(lambda registry: registry.route(MODEL))
        for name in SERVERS:
            follows = partial(self._follows, name, route.generation)
            self._expect(follows, f"{name} does not follow the route")
            has_keeper = partial(self.pids, f"{name}/keeper")
            self._expect(has_keeper, f"{name} has no keeper")
        served = {name: self.generation(name) for name in SERVERS}
        self._expect(lambda: not self._waiting(), "segments do not reach their tables")
        codes = {name: self.parts[name].stop() for name in SERVERS}
        told = list(read(self.journal.path))
        return Story(
            model=MODEL,
            answers=promises.answers,
            labels=promises.labels,
            registered={
                line["version"]: line["digest"] for line in told if line["told"] == "registered"
            },
            begun={line["rollout"] for line in told if line.get("rollout")},
            orders=self.orders,
            predictions=self._rows("predictions"),
            labelled=self._rows("labels"),
            failures=self._rows("failures"),
            route=route,
            versions=self.asked(
                lambda registry: {v.ref.version: v.ref.digest for v in registry.versions(MODEL)}
            ),
            rollouts=self.asked(lambda registry: registry.rollouts.last(MODEL, 100_000)),
            decisions=self.asked(lambda registry: registry.decisions(MODEL, 1_000_000)),
            served=served,
            waiting=self._waiting(),
            damaged=[str(path) for spool in self.spools() for path in aside(spool)],
            wrong=promises.wrong,
            watched=watched,
            chain="; ".join(self.asked(lambda registry: registry.audit(MODEL)).faults),
            more=[
                *self.wrong,
                *(
                    f"{name} ended with {code} when it was told to"
                    for name, code in codes.items()
                    if code
                ),
            ],
        )

    def story_of_data(self) -> Story | None:
        """The same of the model that is really trained."""
        if not self._pipeline:
            return None
        name = "demand"
        taken = [line["number"] for line in read(Path(self._arrived))]
        rows = [rows_of(number) for number in taken]
        table = self._table("tables", name, ("at", "shop"))
        return Story(
            model=name,
            answers=(), labels=(), registered={}, begun=(), orders=(), predictions=(),
            labelled=(), failures=(),
            ingested={
                (moment, shop)
                for frame in rows
                for moment, shop in zip(frame["at"], frame["shop"], strict=True)
            },
            table=[(f"{row['at']:%Y-%m-%dT%H:%M:%SZ}", row["shop"]) for row in table],
            route=self.asked(lambda registry: registry.route(name)),
            versions=self.asked(
                lambda registry: {v.ref.version: v.ref.digest for v in registry.versions(name)}
            ),
            rollouts=self.asked(lambda registry: registry.rollouts.last(name, 100_000)),
            decisions=self.asked(lambda registry: registry.decisions(name, 1_000_000)),
            served={},
            chain="; ".join(self.asked(lambda registry: registry.audit(name)).faults),
        )  # fmt: skip

    def _follows(self, server: str, generation: int) -> bool:
        return self.generation(server) == generation

    def _waiting(self) -> list[str]:
        return [str(one.path) for spool in self.spools() for one in segments(spool)]

    def _rows(self, kind: str) -> list[Mapping[str, Any]]:
        columns = ("_id", "_version", "_arm", "_prediction", "remark", "label", "metric_mark")
        return [_as_answered(row) for row in self._table(kind, MODEL, columns)]

    def _table(self, kind: str, model: str, columns: Sequence[str]) -> list[Mapping[str, Any]]:
        """Rows as any reader of Delta finds them, by a way on which nothing goes wrong."""
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        place, options = f"{self.project.home}/{kind}/{model}", None
        if self.s3 is not None:
            settings = self.s3.environment("team/faults")
            place = f"{settings.pop('PERENNIAL_STORAGE')}/{kind}/{model}"
            options = {**settings, "AWS_ALLOW_HTTP": "true"}
        try:
            table = DeltaTable(place, storage_options=options)
        except TableNotFoundError:
            return []
        there = table.to_pyarrow_dataset().schema.names
        wanted = [name for name in columns if name in there]
        rows: list[Mapping[str, Any]] = table.to_pyarrow_table(columns=wanted).to_pylist()
        return rows


def _as_answered(row: Mapping[str, Any]) -> Mapping[str, Any]:
    if row.get("_prediction") is None:
        return row
    return {**row, "_prediction": as_float32(row["_prediction"])}


def until(true: Callable[[], object], seconds: float, otherwise: str) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.1)


def _mounted(place: Path) -> bool:
    """Whether the folder could be made a small file system of its own, which takes root."""
    if os.geteuid() != 0:
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MIB}m", "perennial-faults", str(place)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def filled(root: Path) -> Iterator[None]:
    """The file system of a folder has no byte left."""
    ballast = root / "ballast"
    with ballast.open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while file.write(bytes(2**20)):
                pass
        with contextlib.suppress(OSError):
            while file.write(bytes(512)):
                pass
    try:
        yield
    finally:
        ballast.unlink(missing_ok=True)
