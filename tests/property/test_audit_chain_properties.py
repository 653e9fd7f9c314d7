"""Whatever is done to a chain of entries is seen, and nothing else is."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from perennial.stores.registry.chain import SEALED, START, Head, faults, sealed

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
MOMENT = st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1))
ENTRY = st.fixed_dictionaries(
    {
        "at": MOMENT,
        "actor": st.text(),
        "action": st.sampled_from(["registered", "promoted", "refused"]),
        "version": st.none() | st.integers(1, 9),
        "digest": st.none() | st.text(max_size=8),
        "generation": st.none() | st.integers(1, 9),
        "reason": st.text(),
        "evidence": st.dictionaries(st.text(), JSON, max_size=3),
        "cause": st.text(),
    }
)

Row = dict[str, Any]


def chained(entries: list[Row]) -> tuple[list[Row], Head]:
    """Entries as the registry writes them and a database gives them back, and the head."""
    rows, head = [], START
    for entry in entries:
        row = {**entry, "model": "m", "number": head.number + 1, "follows": head.seal}
        row["seal"] = sealed({**row, "at": row["at"].replace(tzinfo=UTC)})
        head = Head(number=row["number"], seal=row["seal"])
        rows.append({**row, "evidence": json.dumps(row["evidence"])})
    return rows, head


def sealed_anew(row: Row) -> Row:
    values = {**row, "at": row["at"].replace(tzinfo=UTC), "evidence": json.loads(row["evidence"])}
    return {**row, "seal": sealed(values)}


def meaning(rows: list[Row]) -> list[Row]:
    """What rows say, however their JSON is spelled."""
    return [{**row, "evidence": json.dumps(json.loads(row["evidence"]))} for row in rows]


@st.composite
def tampered(draw: st.DrawFn, rows: list[Row]) -> list[Row]:
    """The rows after something was done to them."""
    rows = list(rows)
    place = draw(st.integers(0, len(rows) - 1))
    deed = draw(
        st.sampled_from(["change", "reseal", "remove", "cut", "insert", "move", "renumber"])
    )
    event(deed)
    if deed in ("change", "reseal"):
        name = draw(st.sampled_from([n for n in SEALED if n not in ("model", "number", "follows")]))
        value = draw(ENTRY)[name]
        rows[place] = {**rows[place], name: json.dumps(value) if name == "evidence" else value}
        if deed == "reseal":
            rows[place] = sealed_anew(rows[place])
    elif deed == "remove":
        del rows[place]
    elif deed == "cut":
        del rows[place:]
    elif deed == "insert":
        forged = chained([draw(ENTRY)])[0][0]
        before = rows[place - 1]["seal"] if place else ""
        forged |= {"number": rows[place]["number"], "follows": before}
        rows.insert(place, sealed_anew(forged))
    elif deed == "move":
        rows.insert(draw(st.integers(0, len(rows) - 1)), rows.pop(place))
    else:
        rows[place] = sealed_anew({**rows[place], "number": draw(st.integers(-1, 12))})
    return rows


@settings(deadline=None, max_examples=100)
@given(st.lists(ENTRY, max_size=6))
def test_a_chain_that_nobody_touched_has_no_fault(entries: list[Row]) -> None:
    rows, head = chained(entries)
    assert list(faults(rows, head)) == []
    as_text = [{**row, "at": row["at"].isoformat(sep=" ")} for row in rows]
    assert list(faults(as_text, head)) == []


@settings(deadline=None, max_examples=300)
@given(st.data(), st.lists(ENTRY, min_size=1, max_size=6))
def test_whatever_was_done_to_some_entries_is_seen(data: st.DataObject, entries: list[Row]) -> None:
    rows, head = chained(entries)
    touched = data.draw(tampered(rows))
    assume(meaning(touched) != meaning(rows))
    assert list(faults(touched, head)) != []


@settings(deadline=None, max_examples=50)
@given(st.lists(ENTRY, min_size=2, max_size=6), st.text())
def test_who_rewrites_the_chain_and_its_head_is_seen_by_a_head_that_was_kept(
    entries: list[Row], reason: str
) -> None:
    assume(entries[0]["reason"] != reason)
    kept = chained(entries)[1].seal
    rows, head = chained([{**entries[0], "reason": reason}, *entries[1:]])
    assert list(faults(rows, head)) == []
    assert kept not in {row["seal"] for row in rows}
    longer, _ = chained([*entries, {**entries[0], "at": entries[0]["at"] + timedelta(days=1)}])
    assert kept in {row["seal"] for row in longer}
