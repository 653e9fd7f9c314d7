"""Whatever is changed in a bundle's folder, it does not open."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.bundle.manifest import FILES, MANIFEST
from perennial.bundle.read import open_bundle
from perennial.bundle.write import BundleContent, write_bundle
from perennial.contracts.errors import IntegrityError
from perennial.contracts.features import Feature, FeatureSchema, InputColumn
from perennial.spec import parse_spec

_SPEC = parse_spec(
    "{name: m, objective: regression, source: {kind: csv, uri: x}, label: {column: y},"
    " columns: {a: {type: float}}, split: {kind: random, validation: 0.2, test: 0.2}}"
)
_CONTENT = BundleContent(
    spec=_SPEC,
    schema=FeatureSchema(
        inputs=(InputColumn(name="a", type="float", nullable=True),),
        features=(Feature(name="a"),),
        classes=None,
    ),
    booster=bytes(range(256)) * 4,
    features_source="# nothing but columns\n",
    state={"mean": 0.1 + 0.2},
    reference=b"PAR1" * 50,
    profile={"rows": 3},
    metrics={"rmse": 1.5},
    lineage={"seed": 7},
)

names = st.sampled_from([*FILES, MANIFEST])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, width=64)
    .filter(lambda x: abs(x) != float("inf")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(name=names, place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_bundle_with_any_one_byte_changed_is_refused(name: str, place: float, flip: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ref = write_bundle(Path(folder), _CONTENT)
        path = Path(ref.uri, name)
        data = bytearray(path.read_bytes())
        data[int(place * len(data))] ^= flip
        path.write_bytes(data)
        with pytest.raises(IntegrityError):
            open_bundle(Path(ref.uri), ref.digest)


@settings(deadline=None, max_examples=50)
@given(name=names, kept=st.floats(0, 1, exclude_max=True))
def test_a_bundle_cut_short_anywhere_is_refused(name: str, kept: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ref = write_bundle(Path(folder), _CONTENT)
        path = Path(ref.uri, name)
        data = path.read_bytes()
        path.write_bytes(data[: int(kept * len(data))])
        with pytest.raises(IntegrityError):
            open_bundle(Path(ref.uri), ref.digest)


@settings(deadline=None, max_examples=100)
@given(value=st.dictionaries(st.text(), json_values, max_size=4))
def test_json_comes_back_equal_and_its_key_order_makes_no_difference(
    value: dict[str, object],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        content = BundleContent(**{**vars(_CONTENT), "lineage": value})
        ref = write_bundle(Path(folder), content)
        assert open_bundle(Path(ref.uri), ref.digest).lineage == value
        turned = dict(reversed(list(json.loads(json.dumps(value)).items())))
        again = BundleContent(**{**vars(_CONTENT), "lineage": turned})
        assert write_bundle(Path(folder, "again"), again).digest == ref.digest
        shutil.rmtree(ref.uri)
