"""The two versions of a rollout side by side in its present step, for its report."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pyarrow as pa

from perennial.contracts.comparing import Apart, ArmFacts, Bin, SideBySide, StepComparison
from perennial.contracts.rollouts import Rollout
from perennial.spec import ModelSpec
from perennial.stores import engine
from perennial.stores.predictions.tables import open_log
from perennial.stores.project import Project
from perennial.stores.rollout_arms import (
    ARM,
    CHALLENGER,
    CHAMPION,
    Arms,
    Requests,
    columns_of,
    count_requests,
    reading,
    relation,
)

SHOWN_ROWS = 10
_SHOWN_INPUTS = 12
_LONGEST = 60  # characters of an input that are shown
_BINS = 24


def compare(project: Project, spec: ModelSpec, rollout: Rollout, now: datetime) -> StepComparison:
    """What both arms logged in the present step before ``now``; of the same rows in a shadow step.

    Another step is compared by giving the rollout as it was in it. In bounded memory. Raises
    IntegrityError for a damaged table, UnavailableError for a store that doesn't answer.
    """
    arms = Arms(rollout, now)
    uris = {kind: project.uri(kind, spec.name) for kind in ("predictions", "failures")}
    found: dict[int, dict[str, Any]] = {CHALLENGER: {}, CHAMPION: {}}
    same_rows = None
    with reading(uris["predictions"], project.home) as connection:
        tables = {kind: open_log(uri) for kind, uri in uris.items()}
        rows = {
            kind: None if table is None else relation(connection, table, uris[kind], arms)
            for kind, table in tables.items()
        }
        counts = count_requests(connection, rows["predictions"], rows["failures"], ())
        if rows["predictions"] is not None:
            log = columns_of(tables["predictions"])
            found |= _facts(connection, rows["predictions"], log)
            if arms.shadow:
                same_rows = _same_rows(connection, rows["predictions"], spec, log)
    facts = []
    for arm, version in ((CHAMPION, rollout.champion), (CHALLENGER, rollout.version)):
        count = counts.get(arm, Requests())
        facts.append(
            ArmFacts(
                arm="champion" if arm == CHAMPION else "challenger",
                version=version,
                rows=count.rows,
                requests=count.requests,
                failed=count.failed,
                **found[arm],
            )
        )
    return StepComparison(
        step=rollout.state.step,
        start=rollout.state.entered_at,
        end=now,
        champion=facts[0],
        challenger=facts[1],
        same_rows=same_rows,
    )


def _facts(connection: Any, rows: str, log: pa.Schema) -> dict[int, dict[str, Any]]:
    took = "_compute_ms" if "_compute_ms" in log.names else "NULL::DOUBLE"
    wanted = {
        "mean": "avg(_prediction) FILTER (isfinite(_prediction))",
        "latency_p50_ms": "approx_quantile(_latency_ms, 0.5)",
        "latency_p99_ms": "approx_quantile(_latency_ms, 0.99)",
        "compute_p50_ms": f"approx_quantile({took}, 0.5)",
        "compute_p99_ms": f"approx_quantile({took}, 0.99)",
    }
    query = f"SELECT {ARM}, {', '.join(wanted.values())} FROM {rows} GROUP BY {ARM}"
    return {
        int(arm): dict(zip(wanted, values, strict=True))
        for arm, *values in connection.execute(query).fetchall()
    }


def _same_rows(connection: Any, rows: str, spec: ModelSpec, log: pa.Schema) -> SideBySide:
    several = spec.objective == "multiclass"
    both = "list_zip(c._probabilities, s._probabilities)"
    difference, agree, text = {
        "binary": (
            "s._prediction - c._prediction",
            "(s._prediction > 0.5) = (c._prediction > 0.5)",
            "round(_prediction, 6)::VARCHAR",
        ),
        "regression": ("s._prediction - c._prediction", "NULL::BOOLEAN", "_prediction::VARCHAR"),
        "multiclass": (
            f"list_sum(list_transform({both}, lambda x: abs(x[1] - x[2]))) / 2",
            "s._class = c._class",
            "_class",
        ),
    }[spec.objective]
    fits = "len(c._probabilities) = len(s._probabilities)" if several else "true"
    connection.execute(
        f"CREATE TEMP TABLE pairs AS SELECT c._id AS id, ({difference})::DOUBLE AS apart, "
        f"{agree} AS agree FROM (SELECT * FROM {rows} WHERE {ARM} = {CHAMPION}) c "
        f"JOIN (SELECT * FROM {rows} WHERE {ARM} = {CHALLENGER}) s ON c._id = s._id "
        f"WHERE {fits} AND isfinite(({difference})::DOUBLE)"
    )
    count, share, mean, low, high, *quantiles = engine.one(
        connection,
        "SELECT count(*), avg(agree::DOUBLE), avg(apart), min(apart), max(apart), "
        + ", ".join(f"approx_quantile(apart, {q})" for q in (0.01, 0.5, 0.99))
        + " FROM pairs",
    )
    if not count:
        return SideBySide(rows=0)
    return SideBySide(
        rows=count,
        agree=share,
        mean=mean,
        p01=quantiles[0],
        p50=quantiles[1],
        p99=quantiles[2],
        bins=_bins(connection, low, high),
        apart=_apart(connection, rows, text, log),
    )


def _bins(connection: Any, low: float, high: float) -> tuple[Bin, ...]:
    width = (high - low) / _BINS
    if not width > 0:
        ((count,),) = connection.execute("SELECT count(*) FROM pairs").fetchall()
        return (Bin(low=low, high=high, rows=count),)
    place = f"least({_BINS - 1}, floor((apart - {low!r}) / {width!r}))::INTEGER"
    found = dict(
        connection.execute(
            f"SELECT {place} AS place, count(*) FROM pairs GROUP BY place"
        ).fetchall()
    )
    return tuple(
        Bin(low=low + i * width, high=low + (i + 1) * width, rows=found.get(i, 0))
        for i in range(_BINS)
    )


def _apart(connection: Any, rows: str, text: str, log: pa.Schema) -> tuple[Apart, ...]:
    connection.execute(
        "CREATE TEMP TABLE far AS SELECT * FROM pairs WHERE apart <> 0 "
        f"ORDER BY abs(apart) DESC, id LIMIT {SHOWN_ROWS}"
    )
    inputs = [name for name in log.names if not name.startswith("_")][:_SHOWN_INPUTS]
    shown = "".join(f", r.{engine.name(name)}::VARCHAR" for name in inputs)
    query = (
        f"SELECT far.id, far.apart, r.{ARM}, {text}{shown} FROM far JOIN {rows} r "
        f"ON r._id = far.id ORDER BY abs(far.apart) DESC, far.id, r.{ARM}"
    )
    found: dict[str, dict[str, Any]] = {}
    for identity, apart, arm, value, *values in connection.execute(query).fetchall():
        one = found.setdefault(identity, {"id": identity, "difference": apart, "inputs": {}})
        one["champion" if arm == CHAMPION else "challenger"] = str(value)
        if arm == CHAMPION:
            known = zip(inputs, values, strict=True)
            one["inputs"] = {name: v[:_LONGEST] for name, v in known if v is not None}
    return tuple(Apart(**one) for one in found.values())
