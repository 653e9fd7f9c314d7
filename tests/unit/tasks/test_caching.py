"""What a stage's cache key depends on, and what it doesn't."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import perennial
import tasks
from perennial.contracts.errors import InputError
from perennial.contracts.refs import DatasetRef, SplitRef
from perennial.stores import sources, staging, tables
from perennial.stores.folders import keep_folder, new_folder
from perennial.stores.project import Project
from tasks._caching import Stage, _generation, fingerprint
from tests.workplace import Workplace, demand_rows

TUNE = Stage(name="tune", sections=("objective", "training", "tuning"))
FEATURES = Stage(name="features", sections=("columns", "features"), feature_code=True)


def _key(stage: Stage, project: Workplace, **inputs: Any) -> str:
    model, _ = Project(project.root).load_model("demand")
    return stage.base_key({"model": model, **inputs})


def _dataset(**changes: Any) -> DatasetRef:
    moment = datetime(2024, 1, 1, tzinfo=UTC)
    ref = DatasetRef(
        uri="/table", version=3, start=moment, end=moment, as_of=moment, rows=10,
        schema_digest="a", content_digest="b",
    )  # fmt: skip
    return ref.model_copy(update=changes)


def test_the_same_inputs_give_the_same_key(project: Workplace) -> None:
    assert _key(TUNE, project) == _key(TUNE, project)
    assert _key(TUNE, project).startswith("tune-")


def test_a_section_that_the_stage_uses_changes_its_key(project: Workplace) -> None:
    before = _key(TUNE, project)
    project.edit("rounds: 60", "rounds: 61")
    assert _key(TUNE, project) != before


def test_a_section_that_the_stage_does_not_use_leaves_its_key(project: Workplace) -> None:
    before = _key(TUNE, project)
    project.edit("min: 0.6", "min: 0.7")
    project.edit("warm", "hot", file="features.py")
    assert _key(TUNE, project) == before


def test_comments_and_order_in_model_yaml_leave_the_key(project: Workplace) -> None:
    before = _key(FEATURES, project)
    project.edit("name: demand\n", "# our best model\nname: demand\n")
    assert _key(FEATURES, project) == before


def test_editing_features_py_changes_the_key_of_stages_that_run_it(project: Workplace) -> None:
    before = _key(FEATURES, project)
    project.edit("clip(lower=0)", "clip(lower=1)", file="features.py")
    assert _key(FEATURES, project) != before


def test_another_model_leaves_the_key(project: Workplace) -> None:
    before = _key(FEATURES, project)
    other = project.root / "models" / "other"
    shutil.copytree(project.model, other)
    (other / "features.py").write_text("")
    text = (other / "model.yaml").read_text().replace("name: demand", "name: other")
    (other / "model.yaml").write_text(text)
    assert _key(FEATURES, project) == before


def test_a_newer_version_of_a_table_with_the_same_rows_leaves_the_key(project: Workplace) -> None:
    before = _key(TUNE, project, dataset=_dataset())
    assert _key(TUNE, project, dataset=_dataset(version=4)) == before
    assert _key(TUNE, project, dataset=_dataset(content_digest="c")) != before


def test_another_library_version_changes_the_key(
    project: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(name="tune", libraries=("xgboost",))
    before = _key(stage, project)
    monkeypatch.setattr("tasks._caching.version", lambda _: "99")
    assert _key(stage, project) != before


def test_editing_core_code_changes_the_fingerprint_and_the_command_line_does_not(
    tmp_path: Path,
) -> None:
    package, steps = tmp_path / "perennial", tmp_path / "tasks"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(perennial.__file__).parent, package, ignore=ignore)
    shutil.copytree(Path(tasks.__file__).parent, steps, ignore=ignore)
    before = fingerprint(package, steps)

    with (package / "cli" / "app.py").open("a") as file:
        file.write("# a new command\n")
    assert fingerprint(package, steps) == before

    for path in (package / "data" / "splits.py", steps / "training.py"):
        with path.open("a") as file:
            file.write("# another result\n")
        after = fingerprint(package, steps)
        assert after != before
        before = after


def test_a_model_that_changes_under_a_run_is_refused(project: Workplace) -> None:
    model, _ = Project(project.root).load_model("demand")
    project.edit("rounds: 60", "rounds: 61")
    with pytest.raises(InputError, match=r"model\.yaml: changed while a run was going on"):
        TUNE.base_key({"model": model})


class _Results:
    """The two questions that a result store is asked about a key."""

    def __init__(self, results: dict[str, object]) -> None:
        self._results = results

    def exists(self, key: str) -> bool:
        return key in self._results

    def read(self, key: str) -> SimpleNamespace:
        return SimpleNamespace(result=self._results[key])


def test_a_key_moves_to_its_next_generation_when_the_target_is_gone_or_the_run_is_forced(
    tmp_path: Path,
) -> None:
    with new_folder(tmp_path) as folder:
        (folder / "parts.npy").write_bytes(b"parts")
        place, digest = keep_folder(folder)
    ref = SplitRef(uri=str(place), digest=digest, rows={"train": 5}, unused_rows=0)
    results: Any = _Results({"k-0": ref})

    assert _generation("new", results, forced=False) == "new-0"
    assert _generation("k", results, forced=False) == "k-0"
    assert _generation("k", results, forced=True) == "k-1"

    (place / "parts.npy").write_bytes(b"other")
    assert _generation("k", results, forced=False) == "k-1"
    shutil.rmtree(place)
    assert _generation("k", results, forced=False) == "k-1"


@pytest.mark.parametrize(("kind", "generation"), [("csv", "0"), ("sql", "1")])
def test_rows_of_a_database_are_staged_anew_as_no_look_tells_what_an_update_changed(
    project: Workplace, monkeypatch: pytest.MonkeyPatch, kind: str, generation: str
) -> None:
    model, spec = Project(project.root).load_model("demand")
    found = sources.inspect(spec, project.root, None, None)
    staged = staging.stage(spec, project.root, found, project.root / "staging")
    stage = Stage(name="stage")
    asked: Any = {"model": model, "source": found.model_copy(update={"kind": kind})}
    results = _Results({f"{stage.base_key(asked)}-0": staged})
    monkeypatch.setattr("tasks._caching.get_result_store", lambda: results)
    assert stage.compute_key(None, asked, {}).rpartition("-")[2] == generation  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["csv", "parquet", "delta", "sql"])
def test_a_change_that_was_taken_back_is_published_again(
    project: Workplace, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The table still has what the source said in between."""
    model, spec = Project(project.root).load_model("demand")
    uri, bad = str(project.root / "table"), str(project.root / "quarantine")
    found = sources.inspect(spec, project.root, None, None)
    staged = staging.stage(spec, project.root, found, project.root / "staging")
    tables.publish(spec, staged, uri, bad)
    now = datetime.now(UTC)
    first = tables.dataset(spec, uri, now)
    project.write_rows("2024-b.csv", demand_rows("2024-03-01", 1))
    found = sources.inspect(spec, project.root, None, None)
    tables.publish(
        spec, staging.stage(spec, project.root, found, project.root / "staging"), uri, bad
    )
    stage = Stage(name="publish")
    source = found.model_copy(update={"kind": kind})
    asked: Any = {"model": model, "source": source, "as_of": now}
    results = _Results({f"{stage.base_key(asked)}-0": first})
    monkeypatch.setattr("tasks._caching.intact", lambda _: True)
    monkeypatch.setattr("tasks._caching.get_result_store", lambda: results)
    assert stage.compute_key(None, asked, {}).rpartition("-")[2] == "1"  # type: ignore[arg-type]


def test_a_dataset_as_of_now_is_made_again_when_the_clock_has_added_labels(
    project: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same source: nothing else would ever use those labels."""
    model, spec = Project(project.root).load_model("demand")
    uri = str(project.root / "table")
    found = sources.inspect(spec, project.root, None, None)
    staged = staging.stage(spec, project.root, found, project.root / "staging")
    tables.publish(spec, staged, uri, str(project.root / "quarantine"))
    then = tables.dataset(spec, uri, None, datetime(2024, 2, 1, 3, tzinfo=UTC))
    stage = Stage(name="publish")

    def generation(as_of: datetime | None) -> str:
        asked: Any = {"model": model, "source": found, "as_of": as_of}
        results = _Results({f"{stage.base_key(asked)}-0": then})
        monkeypatch.setattr("tasks._caching.get_result_store", lambda: results)
        return stage.compute_key(None, asked, {}).rpartition("-")[2]  # type: ignore[arg-type]

    assert generation(None) == "1"
    assert generation(datetime(2024, 2, 1, 3, tzinfo=UTC)) == "0"
    then = tables.dataset(spec, uri, None)
    assert generation(None) == "0"
