"""Who the members of an ensemble are, and which can't be."""

from __future__ import annotations

from pathlib import Path

import pytest

from perennial.contracts.errors import InputError, IntegrityError
from perennial.spec import ModelSpec, parse_spec
from perennial.stores.ensembles import find_members, open_members
from perennial.stores.project import Project
from perennial.stores.registry import Registry
from tests.fuzz.served import NOW, SPEC, make_project


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
