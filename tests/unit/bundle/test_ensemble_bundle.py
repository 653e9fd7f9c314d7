"""A bundle that holds others: whole in itself, and predicting as its members do."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from perennial.bundle.manifest import MANIFEST
from perennial.bundle.predictor import Predictor, member_program, own_fault
from perennial.bundle.read import Bundle, open_bundle
from perennial.bundle.write import write_bundle
from perennial.contracts.errors import FeatureError, InputError, IntegrityError
from perennial.contracts.refs import BundleRef
from perennial.spec import parse_spec, spec_text
from perennial.stores.importance import bundle_importance, feature_importance
from tests.unit.bundle.conftest import FEATURES, Made, make, make_ensemble

OBJECTIVES = ("binary", "multiclass", "regression")


def written(tmp_path: Path, objective: str, **options: object) -> BundleRef:
    return write_bundle(tmp_path / "blend", make_ensemble(tmp_path, objective, **options))  # type: ignore[arg-type]


def opened(ref: BundleRef) -> Bundle:
    return open_bundle(Path(ref.uri), ref.digest)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_mean_is_its_members_mean_and_needs_no_bundle_but_its_own(
    objective: str, tmp_path: Path
) -> None:
    ref = written(tmp_path, objective)
    shutil.rmtree(tmp_path / "members")
    bundle, rows = opened(ref), make(objective).rows
    parts = [Predictor(member).predict(rows).values for member in bundle.members.values()]
    assert parts[0].tobytes() == make(objective).expected.tobytes()
    found = Predictor(bundle).predict(rows).values
    mean = (3 * parts[0].astype(np.float64) + parts[1].astype(np.float64)) / 4
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, mean.astype(np.float32))
    assert [m.version for m in bundle.manifest.members] == [1, 2]


@pytest.mark.parametrize("weights", [(3.0, 1.0), None], ids=["mean", "stacking"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_row_alone_as_json_predicts_what_it_does_in_its_table(
    objective: str, weights: tuple[float, float] | None, tmp_path: Path
) -> None:
    predictor = Predictor(opened(written(tmp_path, objective, weights=weights)))
    rows = make(objective).rows.head(40)
    together = predictor.predict(rows).values
    plain = rows.astype(object).where(rows.notna(), None)
    requests = json.loads(json.dumps(plain.to_dict("records"), default=str))
    for place, request in enumerate(requests):
        alone = predictor.predict({name: [value] for name, value in request.items()}).values
        assert alone.tobytes() == together[place : place + 1].tobytes(), place
    assert predictor.predict(rows.head(0)).values.shape == (0, *together.shape[1:])


def test_what_members_had_never_seen_is_counted_for_each(made: Made, tmp_path: Path) -> None:
    predictor = Predictor(opened(written(tmp_path, "binary")))
    rows = made.rows.head(5).assign(depot="the moon")
    assert predictor.predict(rows).unseen == {"parcels@1: depot": 5, "parcels@2: depot": 5}


def test_a_missing_column_is_told_once_a_member_needs_it(made: Made, tmp_path: Path) -> None:
    predictor = Predictor(opened(written(tmp_path, "binary")))
    with pytest.raises(InputError, match=r"^column 'items': no such column$"):
        predictor.predict(made.rows.drop(columns="items"))


def test_a_member_whose_feature_code_fails_is_named_and_at_fault(tmp_path: Path) -> None:
    content = make_ensemble(tmp_path, "binary")
    (first, bundle), second = content.members
    broken = FEATURES.replace("sent.dt.hour", "sent.dt.no_such_thing")
    source = bundle.features_source
    assert broken != source
    failing = dataclasses.replace(
        bundle, contents={**bundle.contents, "features.py": broken.encode()}
    )
    bundles = {first.name: failing, second[0].name: second[1]}
    program = member_program(bundles, content.spec)
    frame = Predictor(bundle).frame(make("binary").rows.head(3))
    with pytest.raises(FeatureError, match=r"^member parcels@1, features\.py") as failed:
        program.answers(frame)
    assert own_fault(failed.value)


def test_a_member_reads_a_column_as_it_was_trained_though_here_none_may_miss(
    tmp_path: Path,
) -> None:
    content = make_ensemble(tmp_path, "binary")
    strict = [c.model_copy(update={"nullable": False}) for c in content.schema.inputs]
    schema = content.schema.model_copy(update={"inputs": tuple(strict)})
    spec = parse_spec(spec_text(content.spec).replace("boolean", "boolean\n    nullable: false"))
    ref = write_bundle(tmp_path / "blend", dataclasses.replace(content, schema=schema, spec=spec))
    rows = make("binary").rows.dropna()
    bundle = opened(ref)
    parts = [Predictor(member).predict(rows).values for member in bundle.members.values()]
    mean = (3 * parts[0].astype(np.float64) + parts[1].astype(np.float64)) / 4
    np.testing.assert_array_equal(Predictor(bundle).predict(rows).values, mean.astype(np.float32))


def test_the_same_content_is_the_same_digest_and_other_weights_are_another(
    tmp_path: Path,
) -> None:
    assert written(tmp_path / "a", "binary").digest == written(tmp_path / "b", "binary").digest
    other = written(tmp_path / "c", "binary", weights=(1.0, 1.0))
    assert other.digest != written(tmp_path / "a", "binary").digest


def test_an_ensemble_of_ensembles_opens_to_the_bottom(tmp_path: Path) -> None:
    inner = opened(written(tmp_path, "binary"))
    content = make_ensemble(tmp_path, "binary")
    (first, _), second = content.members
    nested = first.model_copy(update={"digest": inner.digest, "model": "blend"})
    content = dataclasses.replace(content, members=((nested, inner), second))
    outer = opened(write_bundle(tmp_path / "outer", content))
    rows: pd.DataFrame = make("binary").rows
    assert list(outer.members["parcels@1"].members) == ["parcels@1", "parcels@2"]
    parts = [Predictor(inner).predict(rows).values, Predictor(second[1]).predict(rows).values]
    mean = (3 * parts[0].astype(np.float64) + parts[1].astype(np.float64)) / 4
    np.testing.assert_array_equal(Predictor(outer).predict(rows).values, mean.astype(np.float32))


@pytest.mark.parametrize("name", ["booster.ubj", "lineage.json", MANIFEST])
def test_a_byte_changed_in_a_member_is_told(name: str, tmp_path: Path) -> None:
    ref = written(tmp_path, "binary")
    member = opened(ref).manifest.members[1].digest
    place = Path(ref.uri) / "members" / member / name
    data = bytearray(place.read_bytes())
    data[-2] ^= 1
    place.write_bytes(bytes(data))
    with pytest.raises(IntegrityError) as refused:
        opened(ref)
    assert f"members/{member}/{name}: its content was changed" in str(refused.value)


def test_a_stray_file_beside_a_member_is_told_by_where_it_is(tmp_path: Path) -> None:
    ref = written(tmp_path, "binary")
    stray = Path(ref.uri) / "members" / "other"
    stray.mkdir()
    (stray / "booster.ubj").write_bytes(b"x")
    with pytest.raises(IntegrityError) as refused:
        opened(ref)
    (line,) = str(refused.value).splitlines()
    assert line.endswith("members/other: not a file of the bundle (remove it)")


def test_a_mean_has_no_booster_to_give(tmp_path: Path) -> None:
    bundle = opened(written(tmp_path, "binary"))
    with pytest.raises(InputError, match="a weighted mean of other models has no booster"):
        _ = bundle.booster


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_columns_matter_as_much_as_they_do_to_the_members(objective: str, tmp_path: Path) -> None:
    bundle = opened(written(tmp_path, objective))
    features = feature_importance(bundle)
    assert sum(features.values()) == pytest.approx(1)
    first = sum(share for name, share in features.items() if name.endswith("by parcels@1"))
    assert first == pytest.approx(0.75)
    columns = bundle_importance(bundle)
    one, two = (bundle_importance(member) for member in bundle.members.values())
    for name, share in columns.items():
        assert share == pytest.approx(0.75 * one[name] + 0.25 * two.get(name, 0.0))
