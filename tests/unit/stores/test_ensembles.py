"""Who the members of an ensemble are, and which can't be."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from perennial.bundle.read import Bundle, open_bundle
from perennial.bundle.write import write_bundle
from perennial.contracts.errors import InputError, IntegrityError
from perennial.contracts.refs import Member
from perennial.spec import ModelSpec, parse_spec
from perennial.stores.ensembles import check_members, clean_since, find_members, open_members
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from tests.fuzz.served import NOW, SPEC, content, make_project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    root = tmp_path_factory.mktemp("project")
    make_project(root)
    return Project(root)


def blend(of: str, text: str = SPEC, objective: str = "binary") -> ModelSpec:
    made = text.format(name="blend", objective=objective)
    return parse_spec(f"{made}ensemble: {{of: [{of}]}}\n")


def refusal(project: Project, spec: ModelSpec, source: str = "") -> list[str]:
    with pytest.raises(InputError) as refused:
        find_members(project, spec, source)
    return [str(p).removeprefix("model.yaml, ensemble.of, ") for p in refused.value.problems]


def test_a_name_is_the_champion_of_the_moment_and_a_pinned_one_its_version(
    project: Project,
) -> None:
    found = find_members(project, blend("parcels, parcels@2"), "")
    assert [(m.name, m.model, m.version) for m in found] == [
        ("parcels", "parcels", 1),
        ("parcels@2", "parcels", 2),
    ]
    assert [bundle.digest for bundle in open_members(found).values()] == [m.digest for m in found]


def test_a_model_that_is_no_ensemble_has_no_members(project: Project) -> None:
    assert find_members(project, parse_spec(SPEC.format(name="a", objective="binary")), "x") == ()


def test_every_member_that_is_not_there_is_told_at_once(project: Project) -> None:
    folder = project.models / "idle"
    folder.mkdir()
    (folder / "model.yaml").write_text(SPEC.format(name="idle", objective="binary"))
    assert refusal(project, blend("parcel, idle, parcels@9")) == [
        "parcel: no model 'parcel'; did you mean 'parcels'? "
        "(models here: idle, letters, parcels, prices)",
        "idle: no version of it serves yet (perennial train idle)",
        "registry: 'parcels' has no version 9 (its versions are 1 to 2)",
    ]


def test_members_of_another_objective_are_told(project: Project) -> None:
    assert refusal(project, blend("parcels, letters, prices")) == [
        "letters: its objective is multiclass, this model's is binary "
        "(all members have the ensemble's objective)",
        "prices: its objective is regression, this model's is binary "
        "(all members have the ensemble's objective)",
    ]


def test_the_same_version_by_two_names_is_told(project: Project) -> None:
    assert refusal(project, blend("parcels, parcels@1")) == [
        "parcels@1: the same version as parcels (leave one out)"
    ]


def test_columns_that_do_not_fit_are_told_with_what_to_declare(project: Project) -> None:
    text = SPEC.replace("  depot: {{type: category}}\n", "").replace(", nullable: false", "")
    text = text.replace("insured: {{type: boolean}}", "insured: {{type: integer}}")
    text = text.replace("column: outcome", "column: remark").replace(
        "  remark: {{type: string}}\n", ""
    )
    of_one = [
        "it needs every value of 'items', here they may be missing "
        "(declare the column with nullable: false)",
        "it reads 'insured' as boolean, declared here is integer (declare the member's type)",
        "it reads the column 'depot', which this model.yaml does not declare "
        "(declare it under columns; the source must have it)",
        "it reads 'remark', which is this model's label",
    ]
    assert sorted(refusal(project, blend("parcels, parcels@2", text))) == sorted(
        f"{name}: {what}" for name in ("parcels", "parcels@2") for what in of_one
    )


def test_a_version_that_was_quarantined_is_no_member(tmp_path: Path) -> None:
    make_project(tmp_path)
    registry = Registry(Project(tmp_path).registry_url)
    registry.record(
        "parcels", "quarantined", version=registry.version("parcels", 2).ref, actor="tests",
        reason="too many errors", evidence={}, cause="guard", now=NOW,
    )  # fmt: skip
    registry.close()
    assert refusal(Project(tmp_path), blend("parcels, parcels@2")) == [
        "parcels@2: parcels@2 is quarantined: too many errors (name another version)"
    ]


def test_feature_code_beside_an_ensemble_is_refused(project: Project) -> None:
    assert refusal(project, blend("parcels, parcels@2"), "def x(): ...") == [
        "features.py: an ensemble's features are its members' predictions (remove it)"
    ]


def test_a_damaged_member_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    make_project(tmp_path)
    spec = blend("parcels, parcels@2")
    member = find_members(Project(tmp_path), spec, "")[1]
    (Path(member.uri) / "state.json").write_text("{ }")
    with pytest.raises(IntegrityError, match=r"state\.json: 3 bytes, the manifest says 2"):
        find_members(Project(tmp_path), spec, "")


WHY = "so the rows it was fitted on can't be left out (take members of this event time, or write "
WHY += "overlap: keep and take the figures for flattering)"


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """Members by name: ``early``, ``late`` and ``fine``, which is made of these, tell rows by
    ``sent`` as the ensemble does, ``booked``, of which ``both`` is made, by another moment of
    theirs, ``snapshot`` by none."""
    folder, made = tmp_path_factory.mktemp("bundles"), content("early", "binary", 5)
    found: dict[str, Bundle] = {}

    def add(text: str, end: str | None, **changes: Any) -> None:
        spec = parse_spec(text)
        lineage = {"dataset": {"as_of": None, "end": end}}
        ref = write_bundle(folder, replace(made, spec=spec, lineage=lineage, **changes))
        found[spec.name] = open_bundle(Path(ref.uri), ref.digest)

    def text(name: str) -> str:
        return SPEC.format(name=name, objective="binary")

    moment = "  sent: {type: datetime}\n"
    add(text("early"), "2026-01-12T00:00:00+00:00")
    add(text("late"), "2026-01-20T00:00:00+00:00")
    booked = text("booked").replace("event_time: sent", "event_time: booked_at")
    add(booked + moment, "2026-01-02T00:00:00+00:00")
    snapshot = text("snapshot").replace(", event_time: sent", "").replace(", delay: 1d", "")
    split = "split: {kind: random, validation: 0.2, test: 0.2}\n"
    add(snapshot + moment + split, None)
    for name, other in (("both", "booked"), ("fine", "late")):
        pair = {each: found[each] for each in ("early", other)}
        add(
            f"{text(name)}ensemble: {{of: [early, {other}], overlap: keep}}\n",
            "2026-01-12T00:00:00+00:00",
            booster=None,
            features_source="",
            weights=dict.fromkeys(pair, 0.5),
            members=tuple((member(each, bundle), bundle) for each, bundle in pair.items()),
        )
    return found


def member(name: str, bundle: Bundle) -> Member:
    return Member(name=name, model=bundle.model, version=1, digest=bundle.digest)


def test_members_that_tell_rows_by_another_moment_are_refused_also_within_members(
    timed: dict[str, Bundle],
) -> None:
    members = [member(name, bundle) for name, bundle in timed.items()]
    spec = blend("early, late, booked, snapshot, both, fine")
    said = [
        f"model.yaml, ensemble.of, booked: its event time is 'booked_at', this model's is 'sent', "
        f"{WHY}",
        f"model.yaml, ensemble.of, snapshot: its rows have no event time, {WHY}",
        "model.yaml, ensemble.of, both: it is made of 'booked', whose event time is 'booked_at', "
        f"this model's is 'sent', {WHY}",
    ]
    for compared in (
        lambda: check_members(spec, members, timed),
        lambda: clean_since(spec, timed),
    ):
        with pytest.raises(InputError) as refused:
            compared()
        assert list(map(str, refused.value.problems)) == said

    kept = parse_spec(
        SPEC.format(name="blend", objective="binary")
        + "ensemble: {of: [early, booked, snapshot, both], overlap: keep}\n"
    )
    check_members(kept, members, timed)
    assert clean_since(kept, timed) is None


def test_rows_are_clean_from_the_moment_on_that_the_latest_of_all_was_fitted_to(
    timed: dict[str, Bundle],
) -> None:
    since = {
        name: clean_since(blend("early, fine"), {name: timed[name]}) for name in ("early", "fine")
    }
    assert since["early"] is not None
    assert since["fine"] == clean_since(blend("early, late"), {"late": timed["late"]})
    assert since["fine"] - since["early"] == timedelta(days=8)
