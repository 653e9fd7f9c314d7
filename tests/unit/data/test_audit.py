from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from perennial.contracts.errors import InputError
from perennial.data.audit import BatchStats, FaultCount, Finding, ValidationReport, audit
from perennial.data.frames import arrow_schema, table_columns
from perennial.data.profile import Profile
from perennial.spec import ModelSpec, parse_spec


def model(
    objective: str = "binary",
    label: str = "category",
    extra: str = "",
    source: str = "kind: csv, uri: x.csv",
) -> ModelSpec:
    return parse_spec(
        f"name: m\nobjective: {objective}\n"
        f"source: {{{source}, event_time: at, entity: [id]}}\n"
        f"label: {{column: y{extra}}}\n"
        f"columns: {{id: {{type: string}}, x: {{type: float}}, y: {{type: {label}}}}}\n"
    )


def profile(spec: ModelSpec, labels: Iterable[Any], x: Iterable[Any] | None = None) -> Any:
    columns = table_columns(spec)
    labels = list(labels)
    values = list(x) if x is not None else [float(i % 7) for i in range(len(labels))]
    rows = {
        "at": [1] * len(labels), "id": [str(i) for i in range(len(labels))], "y": labels,
        "x": values,
    }  # fmt: skip
    result = Profile(columns)
    result.add(pa.table({n: rows[n] for n in columns}, schema=arrow_schema(columns)))
    return result.as_dict()


def stats(spec: ModelSpec, labels: Iterable[Any], **changes: Any) -> BatchStats:
    x = changes.pop("x", None)
    made = profile(spec, labels, x)
    plain: dict[str, Any] = {
        "source": "/data/x.csv", "full": True, "whole": True, "rows": made["rows"], "bad_rows": 0,
        "before": 0, "after": 0, "start": None, "end": None, "ordered": True, "repeats": 0,
        "conflicts": 0, "conflict_examples": (), "undeclared": (), "faults": (), "profile": made,
    }  # fmt: skip
    return BatchStats(**{**plain, **changes})


def report(
    spec: ModelSpec, labels: Iterable[Any], reference: Any = None, **changes: Any
) -> ValidationReport:
    return audit(spec, stats(spec, labels, **changes), reference, "/staged/bad")


def only(found: ValidationReport, check: str) -> Finding:
    (finding,) = [f for f in found.findings if f.check == check]
    return finding


TWO = ["a", "b"] * 50


def test_a_batch_in_order_passes_and_says_what_was_looked_at() -> None:
    found = report(model(), TWO)
    assert found.passed
    assert {f.check: f.outcome for f in found.findings} == {
        "rows": "passed", "quarantine.max_share": "passed", "uniqueness": "passed",
        "label": "passed",
    }  # fmt: skip
    assert only(found, "label").what == "label y: 'a' 50 (50.0%), 'b' 50 (50.0%)"
    found.raise_failures()


def test_too_many_bad_rows_fail_with_rule_count_examples_and_place() -> None:
    faults = (
        FaultCount(column="x", rule="min", rows=3, examples=("x.csv row 2 (column x: -1 …)",)),
        FaultCount(column="", rule="malformed", rows=1, examples=("x.csv row 9 (2 values …)",)),
    )
    found = report(model(), TWO, bad_rows=4, faults=faults)
    assert not found.passed
    with pytest.raises(InputError) as caught:
        found.raise_failures()
    assert str(caught.value) == (
        "/data/x.csv: 4 of 104 rows (3.85 %) break a rule, above quarantine.max_share (2 %)\n"
        "  column x, min: 3 rows, such as x.csv row 2 (column x: -1 …)\n"
        "  malformed: 1 row, such as x.csv row 9 (2 values …)\n"
        "  (mend the source or the rules of these columns; the rows, as Parquet: /staged/bad)"
    )


def test_examples_with_the_same_fault_tell_it_once() -> None:
    examples = ("x.csv row 2 (column x: 'a' is not a number)",) * 2
    examples += ("x.csv row 7 (column x: 'b' is not a number)",)
    faults = (FaultCount(column="x", rule="type", rows=3, examples=examples),)
    found = report(model(), TWO, bad_rows=3, faults=faults)
    told = "x.csv row 2, x.csv row 2 (column x: 'a' is not a number); x.csv row 7 (column x: 'b'"
    assert any(told in finding.what for finding in found.findings)


def test_a_share_equal_to_the_limit_passes() -> None:
    assert report(model(), TWO[:98], bad_rows=2).passed
    assert not report(model(), TWO[:97], bad_rows=2).passed


def test_all_rows_bad_is_told_by_the_share_alone() -> None:
    found = report(model(), [], bad_rows=5)
    assert [f.check for f in found.findings if f.outcome == "failed"] == ["quarantine.max_share"]


def test_no_rows_fail_a_whole_source_and_are_nothing_new_in_an_increment() -> None:
    assert only(report(model(), []), "rows").what == "no rows"
    later = only(report(model(), [], after=7), "rows")
    assert later.what == "no rows; 7 rows lie after the moment asked for"
    assert later.fix == "ask for a later moment"
    assert later.outcome == "failed"
    assert report(model(), [], full=False).passed


@pytest.mark.parametrize(
    ("spec", "labels", "what"),
    [
        (model(), [None] * 9, "label y is missing in all 9 rows"),
        (model(), ["a"] * 9, "label y has one class only: 'a' 9 (100.0%)"),
        (model("multiclass"), ["a"] * 9, "label y has one class only: 'a' 9 (100.0%)"),
        (model("regression", "float"), [2.5] * 9, "label y is 2.5 in all 9 rows"),
    ],
)
def test_a_label_nothing_can_be_learnt_of_fails_a_whole_source_and_warns_in_an_increment(
    spec: ModelSpec, labels: list[Any], what: str
) -> None:
    found = only(report(spec, labels), "label")
    assert (found.outcome, found.what) == ("failed", what)
    increment = only(report(spec, labels, full=False), "label")
    assert (increment.outcome, increment.what) == ("warned", what)


def test_three_classes_of_a_binary_label_always_fail() -> None:
    found = only(report(model(), ["a", "b", "c"] * 3, full=False), "label")
    assert found.outcome == "failed"
    assert found.what.startswith("label y has 3 classes, a binary label two: 'a' 3 (33.3%)")


def test_classes_of_number_and_boolean_labels_are_named_as_people_write_them() -> None:
    numbers = only(report(model(label="integer"), [0, 1, 1, None]), "label")
    assert numbers.what == "label y: '1' 2 (66.7%), '0' 1 (33.3%); 1 not known yet"
    booleans = only(report(model(label="boolean"), [True, False, False]), "label")
    assert booleans.what == "label y: 'false' 2 (66.7%), 'true' 1 (33.3%)"


def test_a_positive_class_that_does_not_occur_fails() -> None:
    found = only(report(model(extra=", positive: late"), TWO), "label")
    assert (found.outcome, found.what) == (
        "failed", "label.positive is 'late', the classes are 'a' and 'b'",
    )  # fmt: skip
    assert report(model(label="boolean", extra=", positive: true"), [True, False]).passed


def test_a_label_with_a_class_a_row_is_no_class() -> None:
    found = only(report(model("multiclass"), [str(i) for i in range(3000)]), "label")
    assert found.what == "label y has more than 1,000 classes in 3,000 rows"
    assert only(report(model("multiclass", "float"), np.arange(3000) / 7), "label").outcome == (
        "failed"
    )


def test_an_empty_column_fails_a_whole_source() -> None:
    found = only(report(model(), TWO, x=[None] * 100), "empty column")
    assert (found.outcome, found.what) == ("failed", "column x is empty in all 100 rows")


def test_an_empty_column_in_an_increment_fails_when_it_cannot_be_chance() -> None:
    spec = model()
    full = profile(spec, TWO)
    half = profile(spec, TWO, [None, 1.0] * 50)
    few, many = ["a", "b"], ["a", "b"] * 15

    def outcome(labels: list[str], reference: Any) -> str:
        x = [None] * len(labels)
        return only(
            report(spec, labels, reference, full=False, x=x), "empty column"
        ).outcome  # fmt: skip

    assert outcome(few, full) == "failed"
    assert outcome(few, half) == "warned"
    assert outcome(many, half) == "failed"
    assert outcome(many, None) == "warned"


def test_repeats_are_told_and_conflicts_warn() -> None:
    alike = only(report(model(), TWO, repeats=2), "uniqueness")
    assert alike.outcome == "passed"
    assert alike.what == (
        "2 rows come again later by at, id; the last of each is kept, files being read in the "
        "order they were written in; all are alike"
    )
    audited = report(model(), TWO, repeats=2, conflicts=1, conflict_examples=("at=1, id=7",))
    differ = only(audited, "uniqueness")
    assert differ.outcome == "warned"
    assert differ.what.endswith("; 1 differ from the last, such as at=1, id=7")
    assert audited.warnings == (
        f"{differ.what} (a row of a file that was appended to or touched replaces its correction; "
        "if these are different events, name more columns in source.entity)",
    )


def test_which_of_a_querys_rows_of_one_identity_is_kept_is_said_to_be_chance() -> None:
    spec = model(source="kind: sql, uri: 'env:URL', query: rows")
    found = only(
        report(spec, TWO, repeats=1, conflicts=1, conflict_examples=("id=7",)), "uniqueness"
    )
    assert "written" not in found.what
    assert found.fix.startswith("which comes last is chance: let the query give each once, or if")


def test_a_moved_column_warns_and_never_fails() -> None:
    spec = model()
    before = profile(spec, TWO * 10, np.arange(1000) % 10 * 1.0)
    found = report(spec, TWO * 10, before, x=(np.arange(1000) % 10 * 1.0 + 20).tolist())
    assert found.passed
    moved = [f for f in found.findings if f.check == "distribution" and f.outcome == "warned"]
    assert len(moved) == 1
    assert moved[0].what.startswith("column x differs from the rows last trained on: stability")
    assert moved[0].what.endswith("; mean 24.5, was 4.5")
    assert found.warnings == ()


def test_undeclared_columns_are_told_bounded() -> None:
    found = only(
        report(model(), TWO, undeclared=tuple(f"c{i}" for i in range(30))), "undeclared columns"
    )
    assert found.what.startswith("30 columns that model.yaml doesn't name: c0, c1, ")
    assert found.what.endswith("c19 and 10 more")


def test_every_failure_is_raised_at_once_and_the_report_survives_json() -> None:
    found = report(model(), ["a"] * 9, bad_rows=9, x=[None] * 9)
    with pytest.raises(InputError) as caught:
        found.raise_failures()
    assert len(caught.value.problems) == 3
    assert ValidationReport.model_validate_json(found.model_dump_json()) == found
