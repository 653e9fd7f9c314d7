"""The champion, asked about a candidate's holdout; why the two can't be compared is said in the
verdict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from perennial.bundle.read import Bundle, open_bundle
from perennial.bundle.write import BundleContent, write_bundle
from perennial.data.frames import canonical_frame, table_columns
from perennial.spec import ModelSpec, parse_spec, spec_text
from tasks.evaluation import _predictions
from tests.published import golden

UNREAD = "version 3 can't read these rows"
ONCE = "leave this gate out of model.yaml until a version"
GIVEN = {
    "weight_kg": [1.0, 2.5], "items": [1, 2], "insured": [True, None],
    "depot": ["north", None], "sent": ["2025-03-01", "2025-03-02"], "outcome": ["lost", "late"],
}  # fmt: skip


def changed(old: str = "", new: str = "") -> ModelSpec:
    """The champion's model.yaml with a piece replaced."""
    text = spec_text(golden().spec)
    assert old in text
    return parse_spec(text.replace(old, new) if old else text)


def made(root: Path, spec: ModelSpec, classes: tuple[str, ...] | None) -> Bundle:
    """A candidate of another definition, as far as anybody looks at it before it predicts."""
    first = golden()
    content = BundleContent(
        spec=spec, schema=first.schema.model_copy(update={"classes": classes}),
        booster=first.booster, features_source="", state={}, profile={}, metrics={}, lineage={},
        reference=first.contents["reference.parquet"],
    )  # fmt: skip
    ref = write_bundle(root, content)
    return open_bundle(Path(ref.uri), ref.digest)


def asked(
    spec: ModelSpec, given: dict[str, list[object]] = GIVEN, candidate: Bundle | None = None
) -> tuple[np.ndarray | None, str]:
    rows = canonical_frame(pd.DataFrame(given), table_columns(spec))
    return _predictions(3, golden(), candidate or golden(), spec, rows)


def test_it_predicts_rows_that_have_its_columns() -> None:
    values, unread = asked(changed())
    assert values is not None
    assert (values.shape, unread) == ((2, 3), "")
    assert np.isfinite(values).all()


def test_a_column_taken_out_of_model_yaml_is_named_with_the_way_out() -> None:
    gone = asked(changed("  depot:\n    type: category\n"))
    assert gone == (
        None,
        f"{UNREAD}: model.yaml no longer has depot "
        "(keep it with feature: false until a version without it has taken over)",
    )


def test_a_value_it_cannot_read_is_named() -> None:
    other = changed("items:\n    type: integer", "items:\n    type: float")
    values, unread = asked(other, {**GIVEN, "items": [1.5, 2.0]})
    assert values is None
    assert unread == f"{UNREAD}: column 'items', row 1: 1.5 is not a whole number"


@pytest.mark.parametrize(
    ("old", "new", "given", "told"),
    [
        ("depot:\n    type: category", "depot:\n    type: integer", {"depot": [1, 2]},
         "depot from category to integer"),
        ("insured:\n    type: boolean", "insured:\n    type: string", {"insured": ["yes", "no"]},
         "insured from boolean to string"),
    ],
)  # fmt: skip
def test_a_column_that_now_holds_other_values_is_named_with_the_way_out(
    old: str, new: str, given: dict[str, list[object]], told: str
) -> None:
    """It would read "01" as 1, or "yes" as nothing, and that would count as its loss."""
    unread = asked(changed(old, new), {**GIVEN, **given})
    why = f"model.yaml has changed {told} ({ONCE} that reads it so has taken over)"
    assert unread == (None, f"{UNREAD}: {why}")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("depot:\n    type: category", "depot:\n    type: string"),
        ("items:\n    type: integer", "items:\n    type: float"),
        ("items:\n    type: integer\n    nullable: false", "items:\n    type: integer"),
    ],
)
def test_a_column_of_the_same_values_in_another_form_is_read_as_before(old: str, new: str) -> None:
    values, unread = asked(changed(old, new))
    expected, _ = asked(changed())
    assert (unread, values.tolist()) == ("", expected.tolist())


@pytest.mark.parametrize(
    ("old", "new", "classes", "told"),
    [
        ("column: outcome", "column: depot", ("north", "south"),
         "depot (multiclass: north, south)"),
        ("objective: multiclass", "objective: binary", ("late", "lost"),
         "outcome (binary: late, lost)"),
        ("objective: multiclass", "objective: regression", None, "outcome (regression)"),
        ("", "", ("1", "2", "3"), "outcome (multiclass: 1, 2, 3)"),
    ],
)  # fmt: skip
def test_a_champion_of_another_target_is_not_compared(
    tmp_path: Path, old: str, new: str, classes: tuple[str, ...] | None, told: str
) -> None:
    spec = changed(old, new)
    values, unread = asked(changed(), candidate=made(tmp_path, spec, classes))
    assert values is None
    mine = f"outcome (multiclass: {', '.join(golden().schema.classes or ())})"
    assert unread == (
        f"version 3 predicts {mine}, model.yaml now asks for {told} "
        f"({ONCE} of the new target has taken over, or train another model)"
    )


def test_a_class_that_is_new_to_the_champion_has_no_probability(tmp_path: Path) -> None:
    known = golden().schema.classes or ()
    candidate = made(tmp_path, changed(), (*known, "zzz"))
    values, unread = asked(changed(), candidate=candidate)
    expected, _ = asked(changed())
    assert unread == ""
    assert values.tolist() == np.column_stack([expected, [0.0, 0.0]]).tolist()
