"""Of a candidate's test rows those are found that another version was fitted to, row by row."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from perennial.bundle.read import Bundle, open_bundle
from perennial.bundle.write import BundleContent, write_bundle
from perennial.contracts.refs import DatasetRef, Member, RowsBy
from perennial.data.splits import assign
from perennial.spec import parse_spec
from perennial.stores import tables
from perennial.stores.fitted import fitted_rows
from perennial.stores.project import Project as Place
from tests.published import golden
from tests.unit.stores.conftest import Project

START = pd.Timestamp("2024-01-01", tz="UTC")
YAML = """
name: m
objective: binary
source: {kind: csv, uri: d.csv<source>}
label: {column: y}
split: <split>
columns:
  mark: {type: integer, nullable: <nullable>, feature: false}
  shop: {type: category}
  x: {type: float}
<more>
"""
ENTITY, EVENTS = ", entity: [mark]", ", event_time: at, entity: [mark]"
SHARES = "validation: 0.2, test: 0.2"
STRATIFIED, RANDOM = f"{{kind: stratified, {SHARES}}}", f"{{kind: random, {SHARES}}}"
OTHER_SEED = f"{{kind: random, {SHARES}, seed: 8}}"
LONGER = "{kind: random, validation: 0.2, test: 0.3}"
GROUP = f"{{kind: group, group: shop, {SHARES}}}"
DAYS, MORE_DAYS = "{kind: time, validation: 5d, test: 5d}", "{kind: time, validation: 5d, test: 9d}"


def rows(count: int) -> pd.DataFrame:
    """Each with a mark of its own, half an hour after the one before."""
    random = np.random.default_rng(3)
    x, y = random.normal(size=2000).round(3), random.random(2000) < 0.3
    shops = random.integers(0, 40, 2000)
    marks = np.arange(2000)
    frame = pd.DataFrame({"mark": marks, "at": START + pd.to_timedelta(marks * 30, unit="min")})
    return frame.assign(x=x, shop=[f"s{shop}" for shop in shops], y=y.astype(int))[:count]


class Trained:
    """A model's rows as they were taken in, its split of them, and the version it made of them."""

    def __init__(
        self,
        root: Path,
        frame: pd.DataFrame,
        split: str,
        source: str = "",
        rows_by: RowsBy = "content",
        nullable: str = "false",
        more: str = "",
        as_of: pd.Timestamp | None = None,
    ) -> None:
        text = YAML.replace("<source>", source).replace("<split>", split)
        self.spec = parse_spec(text.replace("<nullable>", nullable).replace("<more>", more))
        place = Project(root, self.spec)
        frame.to_csv(root / "d.csv", index=False)
        place.ingest()
        moment = None if as_of is None else as_of.to_pydatetime()
        found = tables.dataset(self.spec, place.table, moment)
        self.dataset: DatasetRef = found.model_copy(update={"rows_by": rows_by})
        self.frame = pd.concat(tables.scan(self.dataset, self.spec), ignore_index=True)
        self.parts = assign(self.frame, self.spec, self.dataset.as_of, rows_by)

    @property
    def test(self) -> pd.DataFrame:
        return self.frame[self.parts == 2].reset_index(drop=True)

    @property
    def fitted(self) -> pd.DataFrame:
        return self.frame[(self.parts == 0) | (self.parts == 1)]

    def bundle(self, root: Path, *members: Bundle) -> Bundle:
        first = golden()
        dataset = self.dataset.model_dump(mode="json")
        if self.dataset.rows_by == "position":
            del dataset["rows_by"]  # as versions of then say it
        content = BundleContent(
            spec=self.spec, schema=first.schema, booster=first.booster, features_source="",
            state={}, reference=first.contents["reference.parquet"], profile={}, metrics={},
            lineage={"dataset": dataset},
            members=tuple(
                (Member(name=name, model="m", version=1, digest=member.digest), member)
                for name, member in zip("ab", members, strict=False)
            ),
        )  # fmt: skip
        ref = write_bundle(root / "bundles", content)
        return open_bundle(Path(ref.uri), ref.digest)


def found_in(root: Path, version: Trained, candidate: Trained) -> np.ndarray:
    return fitted_rows(
        Place(root),
        version.bundle(root),
        candidate.spec,
        candidate.test,
        candidate.dataset,
        candidate.parts,
    )


@pytest.mark.parametrize(
    ("source", "before", "after"),
    [
        ("", STRATIFIED, STRATIFIED),
        ("", STRATIFIED, RANDOM),
        ("", RANDOM, OTHER_SEED),
        ("", RANDOM, LONGER),
        (ENTITY, STRATIFIED, STRATIFIED),
        (ENTITY, RANDOM, OTHER_SEED),
        (ENTITY, GROUP, RANDOM),
        (EVENTS, DAYS, MORE_DAYS),
        (EVENTS, DAYS, RANDOM),
        (EVENTS, STRATIFIED, DAYS),
        (EVENTS, STRATIFIED, STRATIFIED),
    ],
)
@pytest.mark.parametrize("grown", [1500, 1560])
def test_just_those_are_found_that_were_fitted(
    tmp_path: Path, source: str, before: str, after: str, grown: int
) -> None:
    version = Trained(tmp_path, rows(1500), before, source)
    candidate = Trained(tmp_path, rows(grown)[::-1], after, source)
    known = candidate.test["mark"].isin(version.fitted["mark"])
    assert known.any() or (grown == 1500 and before == after)
    assert not known.all()
    assert found_in(tmp_path, version, candidate).tolist() == known.tolist()


def test_of_a_version_drawn_by_position_its_own_rows_are_found(tmp_path: Path) -> None:
    version = Trained(tmp_path, rows(1500), RANDOM, rows_by="position")
    candidate = Trained(tmp_path, rows(1900)[::-1], RANDOM)
    known = candidate.test["mark"].isin(version.fitted["mark"])
    assert 0.5 < known.mean() < 0.8
    assert found_in(tmp_path, version, candidate).tolist() == known.tolist()


def test_as_of_a_moment_before_the_version_it_knows_all(tmp_path: Path) -> None:
    version = Trained(tmp_path, rows(1500), DAYS, EVENTS)
    earlier = START + pd.Timedelta(days=20)
    candidate = Trained(tmp_path, rows(1500), DAYS, EVENTS, as_of=earlier)
    assert found_in(tmp_path, version, candidate).all()


def test_labels_that_are_long_in_coming_hide_no_row(tmp_path: Path) -> None:
    """The last label there is ends a split by time, however long ago it was due."""
    late = rows(1500)
    late["y"] = late["y"].astype("Int64")
    late.loc[1000:, "y"] = pd.NA
    version = Trained(tmp_path, late, DAYS, EVENTS)
    late.loc[1000:1100, "y"] = 1
    candidate = Trained(tmp_path, late, DAYS, EVENTS)
    assert not found_in(tmp_path, version, candidate).any()


def test_a_column_that_came_or_may_now_be_missing_hides_no_row(tmp_path: Path) -> None:
    version = Trained(tmp_path, rows(1500), STRATIFIED)
    more = {"nullable": "true", "more": "  colour: {type: category}"}
    candidate = Trained(tmp_path, rows(1500).assign(colour="red"), STRATIFIED, **more)
    known = candidate.test["mark"].isin(version.fitted["mark"])
    assert known.mean() > 0.5
    assert found_in(tmp_path, version, candidate).tolist() == known.tolist()


def test_equal_rows_count_as_often_as_they_are_there(tmp_path: Path) -> None:
    few = rows(1200).assign(mark=1, x=1.0, shop="s1")
    version = Trained(tmp_path, few[:1000], RANDOM)
    same = Trained(tmp_path, few[:1000], OTHER_SEED)
    assert np.bincount(version.parts).tolist() == pytest.approx([600, 200, 200], abs=40)
    share = found_in(tmp_path, version, same).mean()
    assert share == pytest.approx(0.8, abs=0.1)  # of its test rows were the other's for fitting


def test_a_group_is_known_by_any_of_its_rows(tmp_path: Path) -> None:
    version = Trained(tmp_path, rows(300), GROUP, ENTITY)
    candidate = Trained(tmp_path, rows(1500), GROUP.replace("test: 0.2", "test: 0.5"), ENTITY)
    known = candidate.test["shop"].isin(version.fitted["shop"])
    assert known.any()
    assert found_in(tmp_path, version, candidate).tolist() == known.tolist()


def test_rows_drawn_alike_need_no_look_and_others_may_all_be_known_once_the_data_is_gone(
    tmp_path: Path,
) -> None:
    alike = Trained(tmp_path, rows(1500), RANDOM)
    other = Trained(tmp_path, rows(1500), STRATIFIED)
    candidate = Trained(tmp_path, rows(1600), RANDOM)
    shutil.rmtree(alike.dataset.uri)
    assert not found_in(tmp_path, alike, candidate).any()
    assert found_in(tmp_path, other, candidate).all()


def test_without_its_data_a_version_knows_nothing_of_later_events(tmp_path: Path) -> None:
    version = Trained(tmp_path, rows(1500), STRATIFIED, EVENTS)
    candidate = Trained(tmp_path, rows(1600), DAYS, EVENTS)
    shutil.rmtree(version.dataset.uri)
    later = candidate.test["mark"] >= 1500
    assert later.any()
    assert found_in(tmp_path, version, candidate).tolist() == (~later).tolist()


@pytest.mark.parametrize("told", [True, False], ids=["there", "no longer there"])
def test_what_an_ensemble_is_made_of_knows_rows_by_its_own_event_time(
    tmp_path: Path, told: bool
) -> None:
    """Every other row was noted long before it happened, so a member by that time knows it."""
    frame = rows(1800)
    early = pd.to_timedelta(np.where(frame["mark"] % 2, 0, 20), unit="D")
    frame["noted"] = frame["at"] - early
    for name in ("member", "ensemble", "candidate"):
        (tmp_path / name).mkdir()
    noted = EVENTS.replace("at,", "noted,")
    member = Trained(
        tmp_path / "member", frame[:1500], DAYS, noted, more="  at: {type: datetime}"
    ).bundle(tmp_path)
    made_of = "ensemble: {of: [a, b], combine: stacking, overlap: <overlap>}"
    column = "  noted: {type: datetime}\n"
    candidate = Trained(tmp_path / "candidate", frame, DAYS, EVENTS, more=column if told else "")

    def found(overlap: str) -> list[bool]:
        ensemble = Trained(
            tmp_path / "ensemble", frame[:1500], DAYS, EVENTS,
            more=column + made_of.replace("<overlap>", overlap),
        )  # fmt: skip
        known = fitted_rows(
            Place(tmp_path),
            ensemble.bundle(tmp_path, member, member),
            candidate.spec,
            candidate.test,
            candidate.dataset,
            candidate.parts,
        )
        return known.tolist()

    before = (candidate.test["mark"] % 2 == 0) | (not told)
    assert found("drop") == before.tolist()
    assert not any(found("keep"))
