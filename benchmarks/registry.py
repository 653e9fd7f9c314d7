"""The registry with a long history: what each question costs that is asked again and again.

    python -m benchmarks.registry [--models 100] [--versions 10000] [--database sqlite …]

The history is made up: half of all versions are of one model, the others are shared evenly by the
rest. Each version was registered, rolled out and promoted (three decisions with 2 KB of evidence, a
rollout with ten checks), and ten retrainings were asked for, one of which went. PostgreSQL is a
server of this machine without fsync, where its packages are installed.

Times are the best of repeated calls in one process; *statements* is how many one call makes,
*rows* how many they give; *scans* names the tables that are read whole.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from benchmarks.harness import console, show
from perennial.cli.reading import statuses
from perennial.contracts.refs import BundleRef
from perennial.contracts.retraining import Trigger
from perennial.spec.production import Retrain
from perennial.stores.registry import Registry
from perennial.stores.registry.chain import sealed
from perennial.stores.registry.schema import decisions, retrainings, rollouts, routes, versions

START = datetime(2024, 1, 1, tzinfo=UTC)
_EVERY = timedelta(hours=1)
_ASKED = 10
_AT_ONCE = 500
_SMALL = ("routes", "registry_revision")
"""Tables of one row a model or less: reading them whole is what is wanted."""


@dataclass(frozen=True)
class Question:
    """Who asks what, with a call that asks it once."""

    who: str
    what: str
    ask: Callable[[Registry, str], object]
    writes: bool = False


class Counter:
    """How often something was written, so that no cause comes twice."""

    def __init__(self) -> None:
        self._n = 0

    def next(self) -> str:
        self._n += 1
        return f"{time.time_ns()}-{self._n}"


_CAUSES = Counter()


def _record(registry: Registry, model: str) -> object:
    return registry.record(
        model, "kept champion", version=None, actor="a benchmark", reason="no better",
        evidence={}, cause=_CAUSES.next(), now=datetime.now(UTC),
    )  # fmt: skip


def _register(registry: Registry, model: str) -> object:
    digest = _CAUSES.next()
    return registry.register(
        model, BundleRef(uri=f"/bundles/{digest}", digest=digest), params={}, metrics={},
        judgement={}, links={}, actor="a benchmark", reason="better", now=datetime.now(UTC),
    )  # fmt: skip


def _decide(registry: Registry, model: str) -> object:
    now = datetime.now(UTC)
    trigger = Trigger(kind="data", reason="new rows", at=now, data=_CAUSES.next())
    settings = Retrain(on=("data",))
    return registry.retrainings.decide(model, trigger, settings, actor="a benchmark", now=now)


def _roll_back(registry: Registry, model: str) -> object:
    return registry.rollback(
        model, None, actor="a benchmark", reason="", now=datetime.now(UTC)
    )  # fmt: skip


def _told(registry: Registry, _model: str) -> object:
    return registry.newest_decisions(registry.models(), 20), registry.rollouts.running()


def _look_after(registry: Registry, model: str) -> object:
    table = registry.retrainings
    return table.started(model), table.due(datetime.now(UTC), model), table.unstarted(model)


def _versions(registry: Registry, model: str) -> object:
    return registry.versions(model), registry.route(model), registry.quarantined(model)


def _champion(registry: Registry, model: str) -> object:
    champion = registry.champion(model)
    return champion and registry.version(model, champion.version)


QUESTIONS = (
    Question("serving, each second", "routes", lambda r, _: r.routes()),
    Question("serving, every 5 s", "decisions, rollouts", _told),
    Question("status NAME", "all it shows", lambda r, m: statuses(r, [m], 5)),
    Question("status", "all models", lambda r, _: statuses(r, r.models(), 5)),
    Question("versions NAME", "all of them", _versions),
    Question("drift watch", "champion", _champion),
    Question("drift watch", "retrainings of a model", _look_after),
    Question("stack", "retrainings of all", lambda r, _: r.retrainings.unstarted()),
    Question("rollout, each look", "active", lambda r, m: r.rollouts.active(m)),
    Question("rollout", "last", lambda r, m: r.rollouts.last(m, 1)),
    Question("training", "warm start", lambda r, m: r.best_params(m, 5)),
    Question("audit", "heads of all", lambda r, _: r.heads()),
    Question("audit NAME", "a whole chain", lambda r, m: r.audit(m)),
    Question("training", "register", _register, writes=True),
    Question("training", "record a decision", _record, writes=True),
    Question("drift watch", "decide", _decide, writes=True),
    Question("rollback", "to the former", _roll_back, writes=True),
)


def fill(url: str, models: int, total: int, prefix: str = "model", first: int = 0) -> str:
    """Make up a history; the name of the model with half of it. Its rows' numbers begin after
    ``first``, times ten."""
    Registry(url).close()
    engine = sa.create_engine(_driver(url), json_serializer=json.dumps)
    few = max(1, total // 2 // max(1, models - 1))
    with engine.begin() as connection:
        for number in range(models):
            its = total - few * (models - 1) if number == 0 else few
            first = _fill_model(connection, f"{prefix}-{number:03}", its, first)
        for table in ("decisions", "rollouts", "retrainings"):
            if engine.dialect.name == "postgresql":
                connection.exec_driver_sql(
                    f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), "
                    f"(SELECT max(id) FROM {table}))"
                )
        if engine.dialect.name == "postgresql":  # as its autovacuum does; nobody does in SQLite
            connection.exec_driver_sql("ANALYZE")
    engine.dispose()
    return f"{prefix}-000"


def _fill_model(connection: sa.Connection, model: str, its: int, first: int) -> int:
    """Versions, decisions, rollouts and retrainings; the last version's rollout has not ended."""
    evidence = {"verdicts": [{"rule": "logloss", "reason": "x" * 80, "n": i} for i in range(16)]}
    champion = {"arms": [], "shadow": [], "generation": 0, "updated_at": START}
    connection.execute(routes.insert().values(model=model, **champion))
    seal, told, generation = "", 0, 0
    rows: dict[sa.Table, list[dict[str, Any]]] = {
        versions: [], decisions: [], rollouts: [], retrainings: [],
    }  # fmt: skip

    def tell(action: str, version: int, at: datetime, route: int | None = None) -> None:
        nonlocal seal, told
        content: dict[str, Any] = dict(evidence)
        if route is not None:
            arms = [{"version": route, "weight": 100}]
            content["route"] = {"champion": route, "arms": arms, "shadow": []}
        told += 1
        entry = {
            "at": at, "model": model, "actor": "flow run", "action": action, "version": version,
            "digest": f"{version:064x}", "generation": None if route is None else generation,
            "reason": "passed all 5 checks", "evidence": content, "cause": f"{action} {version}",
            "number": told, "follows": seal,
        }  # fmt: skip
        seal = sealed(entry)
        rows[decisions].append({"id": first + told, "seal": seal, **entry})

    for version in range(1, its + 1):
        at = START + version * _EVERY
        rows[versions].append(
            {
                "model": model, "version": version, "digest": f"{version:064x}",
                "uri": f"/bundles/{model}/{version}", "created_at": at, "judgement": evidence,
                "params": {"max_depth": version % 8, "learning_rate": 0.1},
                "metrics": {"logloss": 0.5, "roc_auc": 0.7}, "links": {"study": f"{version}"},
            }
        )  # fmt: skip
        tell("registered", version, at)
        if version > 1:
            tell("rollout began", version, at)
            over = version < its
            rows[rollouts].append(_rollout(first + version, model, version, at, over))
        if version < its or its == 1:
            generation += 1
            tell("promoted", version, at, route=version)
        rows[retrainings] += [
            _retraining((first + version) * _ASKED + i, model, at, i) for i in range(_ASKED)
        ]
        if len(rows[decisions]) >= _AT_ONCE or version == its:
            for table, new in rows.items():
                if new:
                    connection.execute(table.insert(), new)
                new.clear()
    serves = max(1, its - 1)
    connection.execute(
        routes.update().where(routes.c.model == model).values(
            champion=serves, arms=[{"version": serves, "weight": 100}], generation=generation,
            audited=told, seal=seal,
        )
    )  # fmt: skip
    return first + max(told, its)


def _rollout(id: int, model: str, version: int, at: datetime, over: bool) -> dict[str, Any]:
    step = {
        "strategy": "canary", "weight": 5, "bake_seconds": 600.0, "timeout_seconds": 86_400.0,
        "min_requests": 100, "guards": [],
    }  # fmt: skip
    state = {
        "phase": "promoted" if over else "running", "step": 0, "entered_at": at.isoformat(),
        "reason": "x" * 1000,
    }  # fmt: skip
    return {
        "id": id, "model": model, "version": version, "champion": version - 1,
        "cause": f"judged {version}", "plan": {"steps": [step]}, "actor": "flow run",
        "reason": "passed all 5 checks", "started_at": at, "phase": state["phase"], "state": state,
        "revision": 10, "updated_at": at, "ended_at": at if over else None,
    }  # fmt: skip


def _retraining(id: int, model: str, at: datetime, i: int) -> dict[str, Any]:
    goes = i == 0
    asked = {
        "kind": "drift", "finding": "benign drift", "reason": "as it was found", "data": f"{id}",
        "at": at.isoformat(), "evidence": {"columns": ["x" * 20] * 20},
    }  # fmt: skip
    return {
        "id": id, "model": model, "cause": f"drift {id}", "trigger": "drift",
        "finding": "benign drift", "seen_at": at, "asked": asked, "actor": "flow run",
        "answer": "retrain" if goes else "no", "reason": "not now", "decided_at": at,
        "wait_until": None, "earlier": [], "state": "finished" if goes else "decided",
        "started_run": "run" if goes else None, "started_at": at if goes else None,
        "finished_at": at if goes else None, "outcome": "kept" if goes else None,
    }  # fmt: skip


Statement = tuple[str, Any]


@contextmanager
def statements(registry: Registry) -> Iterator[list[Statement]]:
    """What is sent to the database meanwhile, BEGIN and the like apart."""
    found: list[Statement] = []

    def executes(_connection: object, _cursor: object, text: str, values: Any, *_: object) -> None:
        if not text.startswith(("BEGIN", "SELECT set_config")):
            found.append((text, values))

    event.listen(registry._engine, "before_cursor_execute", executes)
    try:
        yield found
    finally:
        event.remove(registry._engine, "before_cursor_execute", executes)


def scanned(registry: Registry, sent: Sequence[Statement], *, forced: bool = False) -> set[str]:
    """The tables that these statements read whole, but for the small ones.

    ``forced``: only where PostgreSQL has no other way, whatever the number of rows.
    """
    found: set[str] = set()
    with registry._engine.begin() as connection:
        postgresql = connection.dialect.name == "postgresql"
        if postgresql and forced:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        for text, values in sent:
            if text.startswith("INSERT"):
                continue
            if postgresql:
                plans: Any = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {text}", values)
                found |= _sequential(plans.scalar()[0]["Plan"])
            else:
                lines = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values)
                words = [line[3].split() for line in lines]
                # A scan along an index of what is still open reads nothing else.
                found |= {w[1] for w in words if w[0] == "SCAN" and "one_running" not in w[-1]}
    return {table for table in found if table in {t.name for t in TABLES}}


TABLES = (versions, decisions, rollouts, retrainings)


def _sequential(plan: dict[str, Any]) -> set[str]:
    below = (name for part in plan.get("Plans", []) for name in _sequential(part))
    own = {plan["Relation Name"]} if plan["Node Type"] == "Seq Scan" else set()
    return own.union(below)


def rows_of(registry: Registry, sent: Sequence[Statement]) -> int:
    with registry._engine.begin() as connection:
        return sum(
            len(connection.exec_driver_sql(text, values).all())
            for text, values in sent
            if text.startswith("SELECT") and "FOR UPDATE" not in text
        )


def _measure(name: str, url: str, models: int, total: int, repeats: int) -> list[list[str]]:
    began = time.perf_counter()
    model = fill(url, models, total)
    console.print(f"{name}: made in {time.perf_counter() - began:.0f} s")
    lines = []
    opening = [_timed(lambda: Registry(url).close()) for _ in range(repeats)]
    lines.append([name, "every process", "open", f"{_ms(opening)}", "", "", ""])
    registry = Registry(url)
    for question in QUESTIONS:
        asking = question.ask
        with statements(registry) as sent:
            asking(registry, model)
        seen, rows = scanned(registry, sent), "" if question.writes else rows_of(registry, sent)
        long = question.what in ("a whole chain", "all of them")
        times = [
            _timed(lambda ask=asking: ask(registry, model))  # type: ignore[misc]
            for _ in range(3 if long else repeats)
        ]
        lines.append(
            [name, question.who, question.what, _ms(times), str(len(sent)),
             f"{rows:,}" if rows != "" else "", ", ".join(sorted(seen))]
        )  # fmt: skip
    registry.close()
    return lines


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _ms(seconds: Sequence[float]) -> str:
    return f"{1000 * min(seconds):.1f}"


def _driver(url: str) -> sa.URL:
    found = sa.make_url(url)
    if found.get_backend_name() == "postgresql":
        return found.set(drivername="postgresql+psycopg")
    return found


@contextmanager
def database(kind: str) -> Iterator[str]:
    """An empty database of this kind."""
    from tests.contract import postgres

    with ExitStack() as stack:
        if kind == "sqlite":
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            yield f"sqlite:///{Path(folder) / 'registry.db'}"
        else:
            server = stack.enter_context(postgres.server())
            yield stack.enter_context(postgres.database(server, "benchmark"))


def main(arguments: Sequence[str] | None = None) -> int:
    from tests.contract import postgres

    found = ["sqlite", *(["postgresql"] if postgres.binaries() else [])]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.registry")
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--versions", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--database", nargs="*", choices=found, default=found)
    options = parser.parse_args(arguments)
    lines: list[list[str]] = []
    for kind in options.database:
        with database(kind) as url:
            lines += _measure(kind, url, options.models, options.versions, options.repeats)
    title = f"{options.versions:,} versions of {options.models} models"
    show(title, ["database", "who", "what", "ms", "statements", "rows", "scans"], lines)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
