"""Whatever a column, a value or a model is called, it is a name: never SQL, YAML, code, a path."""

from __future__ import annotations

import csv
import json
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from perennial.contracts.errors import InputError
from perennial.data.infer import infer
from perennial.spec import ModelSpec, parse_spec
from perennial.spec.documents import document_text
from perennial.stores import (
    data_export,
    differences,
    quarantine,
    sources,
    staging,
    tables,
    windows,
)
from perennial.stores.project import Project
from tests.our_names import OURS

SETTINGS = settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
HOSTILE = (
    'a"; DROP TABLE victims; --', "a'; DROP TABLE victims; --", "victims", "SELECT", "rowid", '"',
    "''", "`", "[a]", "a]b", "--", "/* */", ";", "\\", "../../etc/passwd", "/etc/passwd", "~", "*",
    "..", ".", "${HOME}", "$(id)", "{{7*7}}", "%s", "%(a)s", ":name", "?", "{a}", "x\nimport os",
    'x"""\nimport os\n"""', "<script>alert(1)</script>", "!!python/object/apply:os.system", "&a",
    "a: b", "# x", "\u202egnp", "\ufeffx", "\u2028x", "\x1b[31m", "ａ", "café", "cafe\u0301",
    *OURS,
)  # fmt: skip
names = st.sampled_from(HOSTILE) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=12
)


def _model(columns: list[str], time: str, label: str, source: dict[str, Any]) -> ModelSpec:
    document = {
        "name": "m",
        "objective": "binary",
        "source": {**source, "event_time": time, "entity": columns[:1]},
        "label": {"column": label},
        "columns": {
            columns[0]: {"type": "category"},
            **{name: {"type": "float", "min": 0} for name in columns[1:]},
            label: {"type": "boolean"},
        },
    }
    return parse_spec(document_text(document))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _distinct(found: list[str]) -> bool:
    return len({name.casefold() for name in found}) == len(found)  # tables' columns are alike then


@settings(SETTINGS, max_examples=10)
@given(st.lists(names, min_size=4, max_size=6, unique=True).filter(_distinct), st.data())
def test_rows_of_any_column_reach_the_table_and_the_quarantine_and_nothing_else_happens(
    columns: list[str], data: st.DataObject
) -> None:
    """From a database through every statement that ingestion, quarantine and reading make of the
    names (SQLAlchemy's, DuckDB's, Delta's), with values that are as hostile."""
    time, label, key, *rest = columns
    keys = data.draw(st.lists(names, min_size=3, max_size=3, unique=True))
    amounts = [1.5, -1.0, 2.5]  # the second breaks a rule
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with sqlite3.connect(root / "rows.db") as database:
            database.execute("CREATE TABLE victims (kept TEXT)")
            database.execute("INSERT INTO victims VALUES ('still here')")
            declared = ", ".join(_quoted(name) for name in columns)
            database.execute(f"CREATE TABLE rows ({declared})")
            rows = [
                [f"2024-01-0{i + 1}T00:00:00Z", i % 2, keys[i], *[amounts[i]] * len(rest)]
                for i in range(3)
            ]
            database.executemany(f"INSERT INTO rows VALUES ({', '.join('?' * len(columns))})", rows)
        database.close()
        source = {"kind": "sql", "uri": "sqlite:///rows.db", "query": "rows"}
        spec = _model([key, *rest], time, label, source)

        found = sources.inspect(spec, root, None, None)
        staged = staging.stage(spec, root, found, root / "staging")
        tables.publish(spec, staged, str(root / "table"), str(root / "quarantine"))
        ref = tables.dataset(spec, str(root / "table"), None)
        good = pd.concat(tables.scan(ref, spec))
        bad = quarantine.rows(str(root / "quarantine"))
        quarantine.put_back(spec, str(root / "quarantine"), str(root / "table"))

        assert set(good.columns) == set(columns)
        assert good[key].tolist() == [keys[0], keys[2]]
        assert good[rest[0]].tolist() == [1.5, 2.5] if rest else True
        assert len(bad) == (1 if rest else 0)
        with sqlite3.connect(root / "rows.db") as database:
            assert database.execute("SELECT kept FROM victims").fetchall() == [("still here",)]
        database.close()
        assert {path.name for path in root.iterdir()} <= {
            "rows.db", "staging", "table", "table.ingested.json", "quarantine"
        }  # fmt: skip


@pytest.mark.parametrize(("timed", "first"), [(True, 0), (True, 1), (False, 0)])
def test_columns_called_as_our_own_are_rows_as_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timed: bool, first: int
) -> None:
    """Each name is part of the identity in one run, and content in another."""
    root = tmp_path / "place=here" / "n=1"  # as partitions are called: no columns of the rows
    root.mkdir(parents=True)
    entity = list(OURS[first::2])
    values = [name for name in OURS if name not in entity]
    time, label = ("at", "y") if timed else (None, "y")
    spec = _wide(entity, values, time, label)
    table, held = str(root / "table"), str(root / "quarantine")

    def ingest(*rows: tuple[int, float]) -> int:
        """The version after rows of these identities and values; the last is a bad one."""
        lines = [
            {"at": "2024-01-01", "y": i % 2}
            | {name: f"{name}{i}" for name in entity}
            | dict.fromkeys(values, value)
            for i, value in [*rows, (99, -1.0)]
        ]
        pd.DataFrame(lines).to_csv(root / "rows.csv", index=False)
        found = sources.inspect(spec, root, None, None)
        staged = staging.stage(spec, root, found, root / "staging")
        stats = staging.read_stats(staged)
        repeats = len(rows) - len({i for i, _ in rows})
        assert (stats.repeats, stats.conflicts, stats.bad_rows) == (repeats, repeats, 1)
        assert all(f"{entity[0]}={entity[0]}" in told for told in stats.conflict_examples)
        return tables.publish(spec, staged, table, held).version

    def present() -> list[tuple[str, float]]:
        frame = pd.concat(tables.scan(tables.dataset(spec, table, None), spec))
        for name in values:
            assert frame[name].tolist() == frame[values[0]].tolist()
        return list(zip(frame[entity[-1]], frame[values[0]], strict=True))

    def called(*rows: tuple[int, float]) -> list[tuple[str, float]]:
        return [(f"{entity[-1]}{i}", value) for i, value in rows]

    assert ingest((0, 1.0), (1, 1.0), (2, 1.0), (1, 2.0)) == 0
    assert present() == called((0, 1.0), (1, 2.0), (2, 1.0))
    assert ingest((0, 1.0), (1, 2.0), (2, 3.0), (3, 1.0)) == 1
    assert present() == called((0, 1.0), (1, 2.0), (2, 3.0), (3, 1.0))
    assert ingest((0, 1.0), (1, 2.0), (2, 3.0), (3, 1.0)) == 1
    assert (quarantine.count(held), len(quarantine.rows(held))) == (1, 1)
    quarantine.put_back(spec, held, table)

    found = differences.diff(table, 0, 1, time)
    assert (found.added, found.removed, found.changed) == ((1, 0, 1) if timed else (2, 1, 0))
    assert found.columns == (dict.fromkeys(sorted(values), 1) if timed else {})
    ref = tables.dataset(spec, table, None)
    monkeypatch.setattr(windows, "LEAST_ROWS", 1)
    parts = [window.of(OURS).frame() for window in windows.windows(ref, spec, 2)]
    assert pd.concat(parts)[values[0]].tolist() == [1.0, 2.0, 3.0, 1.0]
    export = data_export.export_version(table, 1, "m", tmp_path / "export", False)
    assert export.rows == 4
    assert set(tables.profile(ref, spec)["columns"]) >= set(OURS)


def _wide(entity: list[str], values: list[str], time: str | None, label: str) -> ModelSpec:
    document = {
        "name": "m",
        "objective": "binary",
        "source": {
            "kind": "csv", "uri": "rows.csv", "entity": entity,
            **({"event_time": time} if time else {}),
        },
        "label": {"column": label},
        "columns": {
            **{name: {"type": "category"} for name in entity},
            **{name: {"type": "float", "min": 0} for name in values},
            label: {"type": "boolean"},
        },
        "split": {"kind": "random", "validation": 0.2, "test": 0.2},
    }  # fmt: skip
    return parse_spec(document_text(document))


def _in_a_header(name: str) -> bool:
    return name.strip() == name and not set(name) & set("\r\ufeff") and "\x00" not in name


@SETTINGS
@given(st.lists(names.filter(_in_a_header), min_size=2, max_size=6, unique=True), names)
@example(["x\nimport os", "- a"], "a: {b")
@example(['when"""\nimport os\n"""', "y\u2028z"], "# c")
def test_what_init_makes_of_any_header_and_value_reads_back_as_those_names(
    columns: list[str], value: str
) -> None:
    value = value.replace("\r", "").replace("\x00", "")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "data.csv"
        with file.open("w", newline="", encoding="utf-8") as out:
            writer = csv.writer(out)
            writer.writerow([*columns, "the label", "the time"])
            for i in range(40):
                cells = [i * 7 % 11 if i % 2 else value for _ in columns]
                writer.writerow([*cells, i % 2, f"2024-01-{i // 2 + 1:02d}T00:00:00Z"])
        try:
            made = infer(file, "m", "the label", "the time", Path(folder))
        except InputError:
            return  # names or values that no model can have are told, and nothing is written
        spec = parse_spec(made.model_yaml)
        code = compile(made.features_py, "features.py", "exec")

    assert set(spec.columns) <= {*columns, "the label", "the time"}
    assert spec.source.uri == "data.csv"
    assert "os" not in code.co_names


@SETTINGS
@given(names | st.sampled_from(["a", "a-b", "x" * 63]))
def test_a_model_has_a_name_that_stays_inside_the_project_or_none(name: str) -> None:
    try:
        spec = parse_spec(
            f"name: {json.dumps(name)}\nobjective: binary\nsource: {{kind: csv, uri: a}}\n"
            "label: {column: y}\ncolumns: {x: {type: float}}\nsplit: {kind: random}\n"
        )
    except InputError:
        return
    project = Project(Path("/project"))

    place = project.folder("bundles", spec.name)
    assert place.parent == Path("/project/.perennial/bundles")
    assert place.resolve() == place
    assert spec.name.isascii()


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT * FROM rows; DROP TABLE victims", "must be one SELECT"),
        ("SELECT * FROM rows) AS probe; DROP TABLE victims; --", "must be one SELECT"),
        ("DELETE FROM victims", "syntax error"),
        ("rows; DROP TABLE victims", "must be one SELECT"),
        ("SELECT * FROM rows WHERE x = 'a;b'", "make a view"),
    ],
)
def test_a_query_is_one_select_or_nothing_happens(tmp_path: Path, query: str, message: str) -> None:
    with sqlite3.connect(tmp_path / "rows.db") as database:
        database.executescript(
            "CREATE TABLE victims (kept); INSERT INTO victims VALUES (1);"
            "CREATE TABLE rows (at, y, k, x)"
        )
    source = {"kind": "sql", "uri": "sqlite:///rows.db", "query": query}

    with pytest.raises(InputError) as error:
        sources.inspect(_model(["k", "x"], "at", "y", source), tmp_path, None, None)

    assert message in error.value.message
    assert database.execute("SELECT kept FROM victims").fetchall() == [(1,)]
    database.close()


def test_a_select_may_end_in_a_comment(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "rows.db") as database:
        database.executescript(
            "CREATE TABLE rows (at, y, k, x); INSERT INTO rows VALUES ('2024-01-01', 1, 'a', 2)"
        )
    database.close()
    source = {
        "kind": "sql", "uri": "sqlite:///rows.db", "query": "SELECT * FROM rows -- of today\n;"
    }  # fmt: skip
    spec = _model(["k", "x"], "at", "y", source)

    found = sources.inspect(spec, tmp_path, None, None)
    (batch,) = sources.read(spec, tmp_path, found)

    assert batch.table["k"].to_pylist() == ["a"]
