"""Rows scored in a folder, and put in the place of a table's rows."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, Field, write_deltalake

from perennial.bundle.predictor import Predictor
from perennial.bundle.read import Bundle, open_bundle
from perennial.bundle.write import write_bundle
from perennial.contracts.errors import InputError, PerennialError
from perennial.contracts.refs import StagedRef, VersionRef
from perennial.contracts.scoring import ScoresRef, ScoringJob
from perennial.stores import scored, scoring, sources
from perennial.stores.project import Project
from perennial.stores.sources import columnar
from tests.unit.bundle.conftest import make

INPUTS = ["weight_kg", "items", "insured", "depot", "sent"]
RAW = [b"\xff" * 16, b"\0" * 16, None]
BINARY = {
    "raw": pa.binary(),
    "large_raw": pa.large_binary(),
    "raw_view": pa.binary_view(),
    "sixteen": pa.binary(16),
}


class Place:
    """A project's folder with one version of a model, and the steps of scoring by it."""

    def __init__(self, root: Path, objective: str = "binary") -> None:
        self.root = root
        self.made = make(objective)
        ref = write_bundle(root / "bundles", self.made.content)
        self.bundle: Bundle = open_bundle(Path(ref.uri), ref.digest)
        self.version = VersionRef(model="parcels", version=3, digest=ref.digest, uri=ref.uri)
        self.rows = self.made.rows.assign(sender=[f"s{i}" for i in range(len(self.made.rows))])

    def job(self, uri: str, **changes: Any) -> ScoringJob:
        source, columns = scoring.look(
            self.bundle, self.root, uri, changes.pop("columns", ["sender", "sent"])
        )
        values = {"output": str(self.root / "out"), "max_share": 0.02, "version": self.version}
        return ScoringJob(source=source, columns=columns, **values | changes)

    def score(self, job: ScoringJob) -> StagedRef:
        return scoring.score(
            self.bundle, job.version.version, self.root, job.source, job.columns,
            self.root / "scores", 1, print,
        )  # fmt: skip

    def run(self, uri: str, **changes: Any) -> ScoresRef:
        job = self.job(uri, **changes)
        return scored.find(job) or scored.publish(job, self.score(job))

    def write(self, name: str, frame: pd.DataFrame) -> str:
        path = self.root / name
        if name.endswith(".csv"):
            frame.to_csv(path, index=False)
        else:
            frame.to_parquet(path, index=False)
        return name


def content(uri: str | Path) -> pd.DataFrame:
    frame: pd.DataFrame = DeltaTable(str(uri)).to_pyarrow_table().to_pandas()
    return frame


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("objective", ["binary", "multiclass", "regression"])
def test_rows_are_scored_as_a_request_would_be_to_the_last_bit(
    tmp_path: Path, objective: str
) -> None:
    place = Place(tmp_path, objective)

    scores = place.run(place.write("rows.parquet", place.rows))

    expected = Predictor(place.bundle).predict(place.rows).values
    found = content(scores.uri).set_index("sender").loc[place.rows["sender"]]
    assert scores.rows == len(place.rows)
    assert set(found["_version"]) == {3}
    if objective == "multiclass":
        assert list(found) == ["sent", "_version", "_class", "_probabilities"]
        assert np.array_equal(np.stack(found["_probabilities"]), expected.astype(float))
        assert list(found["_class"]) == ["abc"[i] for i in expected.argmax(axis=1)]
    else:
        assert list(found) == ["sent", "_version", "_prediction"]
        assert np.array_equal(found["_prediction"], expected.astype(float))


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet", "table", "folder", "*.parquet"])
def test_files_folders_globs_and_delta_tables_give_the_same_predictions(
    place: Place, name: str
) -> None:
    direct = Predictor(place.bundle).predict(place.rows).values
    if name == "table":
        write_deltalake(place.root / name, pa.Table.from_pandas(place.rows, preserve_index=False))
    elif name == "folder":
        (place.root / name).mkdir()
        place.write("folder/a.parquet", place.rows[:150])
        place.write("folder/b.parquet", place.rows[150:])
    else:
        place.write(name.replace("*", "rows"), place.rows)

    scores = place.run(name)

    found = content(scores.uri).set_index("sender").loc[place.rows["sender"]]
    assert np.array_equal(found["_prediction"], direct.astype(float))


@pytest.mark.parametrize("name", ["rows.TSV", "rows.tsv.gz", "*.tsv", "in/x.tsv_old/rows.csv"])
def test_values_are_separated_as_the_name_of_the_file_says(place: Place, name: str) -> None:
    path = place.root / name.replace("*", "rows")
    path.parent.mkdir(parents=True, exist_ok=True)
    place.rows.to_csv(path, index=False, sep="," if name.endswith(".csv") else "\t")
    assert place.run(name).rows == len(place.rows)


def test_files_with_the_decimal_commas_of_the_model_are_scored(place: Place) -> None:
    source = place.bundle.spec.source.model_copy(update={"decimal": ",", "delimiter": ";"})
    spec = place.bundle.spec.model_copy(update={"source": source})
    ref = write_bundle(place.root / "commas", replace(place.made.content, spec=spec))
    place.bundle = open_bundle(Path(ref.uri), ref.digest)
    place.rows.to_csv(place.root / "rows.csv", index=False, sep=";", decimal=",")
    assert "," in (place.root / "rows.csv").read_text()

    scores = place.run("rows.csv")

    found = content(scores.uri).set_index("sender").loc[place.rows["sender"]]
    direct = Predictor(place.bundle).predict(place.rows).values
    assert np.array_equal(found["_prediction"], direct.astype(float))


def test_the_same_rows_and_version_again_change_nothing(place: Place) -> None:
    uri = place.write("rows.csv", place.rows)
    first = place.run(uri)

    again = place.run(uri)
    job = place.job(uri)
    repeated = scored.publish(job, place.score(job))  # as a task that is tried again

    assert again == first.model_copy(update={"changed": False})
    assert repeated.version == first.version == DeltaTable(first.uri).version()


def test_new_rows_another_version_or_other_columns_take_the_place_of_the_old(place: Place) -> None:
    place.run(place.write("rows.csv", place.rows))
    place.run(place.write("rows.csv", place.rows[:100]))
    assert len(content(place.root / "out")) == 100

    other = place.version.model_copy(update={"version": 4})
    scores = place.run("rows.csv", version=other, columns=["depot", "sender"])

    found = content(scores.uri)
    assert list(found) == ["depot", "sender", "_version", "_prediction"]
    assert set(found["_version"]) == {4}
    assert len(found) == 100
    assert len(DeltaTable(scores.uri, version=0).to_pyarrow_table()) == len(place.rows)


def test_going_back_to_an_earlier_version_scores_anew(place: Place) -> None:
    """The numbers of commits say what the table holds, not what it ever held."""
    uri = place.write("rows.csv", place.rows)
    place.run(uri)
    place.run(uri, version=place.version.model_copy(update={"version": 4}))

    assert place.run(uri).changed
    assert set(content(place.root / "out")["_version"]) == {3}


def test_a_commit_says_which_version_scored_which_rows(place: Place) -> None:
    scores = place.run(place.write("rows.parquet", place.rows))

    commit = DeltaTable(scores.uri).history(1)[0]
    source = place.job("rows.parquet").source
    told = {name: value for name, value in commit.items() if name.startswith("perennial.")}
    assert told == {
        "perennial.model": "parcels",
        "perennial.version": "3",
        "perennial.digest": place.version.digest,
        "perennial.source": str(place.root / "rows.parquet"),
        "perennial.source_kind": "parquet",
        "perennial.source_fingerprint": source.fingerprint,
        "perennial.rows": str(len(place.rows)),
        "perennial.bad_rows": "0",
    }


def test_the_version_of_a_delta_source_is_read_whatever_comes_after_it(place: Place) -> None:
    rows = pa.Table.from_pandas(place.rows, preserve_index=False)
    write_deltalake(place.root / "table", rows.slice(0, 100))
    job = place.job("table")
    write_deltalake(place.root / "table", rows.slice(100), mode="append")

    scores = scored.publish(job, place.score(job))

    assert scores.rows == 100
    commit = DeltaTable(scores.uri).history(1)[0]
    assert commit["perennial.source_fingerprint"].startswith("version 0 of ")


def test_rows_that_cannot_be_scored_are_in_quarantine_with_all_their_reasons(place: Place) -> None:
    rows = place.rows.astype(object)
    rows.loc[4, "weight_kg"] = "heavy"
    rows.loc[4, "items"] = None
    rows.loc[7, "sent"] = "yesterday"
    rows.loc[9, "items"] = -1  # the weight of an item is then infinite
    uri = place.write("rows.csv", rows)

    scores = place.run(uri)

    assert (scores.rows, scores.bad_rows) == (len(rows) - 3, 3)
    assert len(content(scores.uri)) == len(rows) - 3
    bad = content(f"{place.root}/out_quarantine").sort_values("place").to_dict("records")
    assert [(row["place"], row["reason"]) for row in bad[1:]] == [
        (
            "rows.csv row 6",
            "column weight_kg: 'heavy' is not a number; column items: empty, but nullable is false",
        ),
        (
            "rows.csv row 9",
            "column sent: 'yesterday' is not a time (ISO 8601 such as 2013-07-01 06:00:00; epochs "
            "are not guessed)",
        ),
    ]
    assert bad[0]["place"] == "rows.csv row 11"
    assert bad[0]["reason"] == (
        "features: 'weight_per_item' is inf, which float32 can't hold (give NaN for a value that "
        "can't be computed)"
    )
    assert json.loads(bad[0]["row"])["items"] == "-1"


def test_rows_beside_one_that_cannot_be_scored_keep_their_own_predictions(place: Place) -> None:
    rows = place.rows.copy()
    rows.loc[[0, 200, 399], "items"] = -1
    place.write("rows.parquet", rows)

    found = content(place.run("rows.parquet").uri).set_index("sender")["_prediction"]

    good = rows.drop(index=[0, 200, 399])
    expected = Predictor(place.bundle).predict(good).values.astype(float)
    assert np.array_equal(found.loc[good["sender"]], expected)


def test_too_many_bad_rows_change_nothing(place: Place) -> None:
    place.run(place.write("rows.csv", place.rows))
    rows = place.rows.astype(object)
    rows.loc[:20, "items"] = "many"
    uri = place.write("rows.csv", rows)

    with pytest.raises(InputError) as refused:
        place.run(uri)

    first, second, *_ = refused.value.message.splitlines()
    assert first == (
        f"{place.root}/rows.csv: 21 of 400 rows (5.25 %) break a rule, above quarantine.max_share "
        "(2 %)"
    )
    assert second.startswith("  column items, type: 21 rows, such as rows.csv row 2, ")
    assert DeltaTable(str(place.root / "out")).version() == 0
    assert not (place.root / "out_quarantine").exists()


def test_quarantine_is_emptied_when_no_row_is_bad_any_more(place: Place) -> None:
    rows = place.rows.astype(object)
    rows.loc[3, "items"] = None
    place.run(place.write("rows.csv", rows))
    assert len(content(f"{place.root}/out_quarantine")) == 1

    place.run(place.write("rows.csv", place.rows))

    assert len(content(f"{place.root}/out_quarantine")) == 0


def test_a_kill_between_quarantine_and_predictions_is_made_good_by_the_next_run(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = place.rows.astype(object)
    rows.loc[3, "items"] = None
    job = place.job(place.write("rows.csv", rows))
    staged = place.score(job)
    real = scored.lake.write

    def killed(uri: str, *args: Any, **options: Any) -> None:
        if uri == job.output:
            raise KeyboardInterrupt
        real(uri, *args, **options)

    monkeypatch.setattr(scored.lake, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        scored.publish(job, staged)
    monkeypatch.undo()
    assert scored.find(job) is None

    scores = scored.publish(job, staged)

    assert (scores.rows, scores.bad_rows) == (399, 1)
    assert len(content(job.quarantine)) == 1
    assert scored.find(job) == scores.model_copy(update={"changed": False})


def test_two_runs_at_once_of_one_job_make_one_version(place: Place) -> None:
    job = place.job(place.write("rows.csv", place.rows))
    staged = place.score(job)
    barrier = threading.Barrier(2)

    def publish(_: int) -> ScoresRef:
        barrier.wait()
        return scored.publish(job, staged)

    with ThreadPoolExecutor(2) as pool:
        assert {scores.version for scores in pool.map(publish, range(2))} == {0}
    assert len(content(job.output)) == len(place.rows)


def test_what_a_killed_writer_left_in_a_new_output_is_no_obstacle(place: Place) -> None:
    (place.root / "out" / "_delta_log").mkdir(parents=True)
    (place.root / "out" / "part-00000-1a2b-c000.zstd.parquet").write_bytes(b"half")

    scores = place.run(place.write("rows.csv", place.rows))

    assert len(content(scores.uri)) == len(place.rows)


@pytest.mark.parametrize("what", ["a file", "files", "another table", "another model"])
def test_what_is_not_ours_at_the_output_is_never_replaced(place: Place, what: str) -> None:
    out = place.root / "out"
    uri = place.write("rows.csv", place.rows)
    if what == "a file":
        out.write_text("precious")
    elif what == "files":
        out.mkdir()
        (out / "notes.txt").write_text("precious")
    elif what == "another table":
        write_deltalake(out, pa.table({"x": [1]}))
    else:
        place.run(uri)
    other = place.version.model_copy(update={"model": "letters"})

    with pytest.raises(InputError) as refused:
        place.run(uri, version=other)

    there = "something else" if "file" in what else (
        "a table that doesn't hold predictions of 'letters'"
    )  # fmt: skip
    assert refused.value.message == f"{out}: there is {there} (name another place)"


def test_files_missing_from_the_output_are_written_again(place: Place) -> None:
    uri = place.write("rows.csv", place.rows)
    first = place.run(uri)
    next(Path(first.uri).glob("part-*.parquet")).unlink()

    assert place.run(uri).changed
    assert len(content(first.uri)) == len(place.rows)


def append_untold(table: DeltaTable) -> None:
    """Append the rows of the first version again, by a writer that tells nothing of its commit."""
    log = Path(table.table_uri.removeprefix("file://")) / "_delta_log"
    actions = [json.loads(line) for line in (log / f"{0:020}.json").read_text().splitlines()]
    (add,) = [action for action in actions if "add" in action]
    (log / f"{table.version() + 1:020}.json").write_text(json.dumps(add))


CHANGES: dict[str, Callable[[DeltaTable], object]] = {
    "rows deleted": lambda table: table.delete("sender < 's2'"),
    "values changed": lambda table: table.update({"_prediction": "0.0"}),
    "a version put back": lambda table: table.restore(0),
    "rows added": lambda table: write_deltalake(table, table.to_pyarrow_table(), mode="append"),
    "a column added": lambda table: table.alter.add_columns([Field("note", "string")]),
    "rows added by a writer that says nothing of it": append_untold,
}


@pytest.mark.parametrize("again", ["a run", "a task"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_somebody_else_changed_since_is_made_what_the_job_says(
    place: Place, change: str, again: str
) -> None:
    place.run(place.write("rows.csv", place.rows))
    job = place.job(place.write("rows.csv", place.rows[:300]))
    staged = place.score(job)
    scored.publish(job, staged)
    expected = content(job.output)
    CHANGES[change](DeltaTable(job.output))
    assert not content(job.output).equals(expected)

    scores = place.run("rows.csv") if again == "a run" else scored.publish(job, staged)

    assert (scores.rows, scores.changed) == (300, True)
    assert content(job.output).equals(expected)
    assert scored.find(job) == scores.model_copy(update={"changed": False})


def test_upkeep_by_others_leaves_a_job_done(place: Place) -> None:
    place.run(place.write("rows.csv", place.rows[:100]))
    uri = place.write("rows.csv", place.rows)
    done = place.run(uri)
    expected = content(done.uri).sort_values("sender", ignore_index=True)
    table = DeltaTable(done.uri)
    table.optimize.z_order(["sender"])
    table.alter.set_table_properties({"delta.logRetentionDuration": "interval 7 days"})
    table.vacuum(0, dry_run=False, enforce_retention_duration=False)
    assert table.version() > done.version

    assert place.run(uri) == done.model_copy(update={"version": table.version(), "changed": False})
    assert content(done.uri).sort_values("sender", ignore_index=True).equals(expected)


@pytest.mark.parametrize("change", ["removed", "emptied", "of another job"])
def test_a_quarantine_that_is_no_longer_the_jobs_is_made_again(place: Place, change: str) -> None:
    rows = place.rows.astype(object)
    rows.loc[3, "items"] = None
    place.run(place.write("rows.csv", rows))
    rows.loc[4, "items"] = None
    job = place.job(place.write("rows.csv", rows))
    done = scored.publish(job, place.score(job))
    expected = content(job.quarantine)
    quarantine = DeltaTable(job.quarantine)
    if change == "removed":
        shutil.rmtree(job.quarantine)
    elif change == "emptied":
        quarantine.delete()
    else:
        quarantine.restore(0)

    scores = place.run("rows.csv")

    assert (scores.rows, scores.bad_rows, scores.changed) == (398, 2, True)
    assert content(job.quarantine).equals(expected)
    assert scores.version == done.version, "the predictions were right"
    assert not place.run("rows.csv").changed


def test_entity_and_event_time_are_carried_along_as_far_as_they_are_there(place: Place) -> None:
    place.write("with.parquet", place.rows)

    assert scoring.look(place.bundle, place.root, "with.parquet", None)[1] == ("sent",)


def test_all_columns_can_be_carried_in_types_a_delta_table_has(place: Place) -> None:
    rows = pa.Table.from_pandas(place.rows[INPUTS][:3], preserve_index=False)
    also = {
        "small": pa.array([1, 2, None], pa.int8()),
        "large": pa.array([2**64 - 1, 0, 1], pa.uint64()),
        "level": pa.array(["a", "b", "a"]).dictionary_encode(),
        "half": pa.array([0.5, None, 1.5], pa.float32()),
        "naive": pa.array([0, 1, 2], pa.timestamp("ns")),
        "day": pa.array([0, 1, 2], pa.date32()),
        "clock": pa.array([0, 1, 2], pa.time64("us")),
        "nothing": pa.nulls(3),
        **{name: pa.array(RAW, kind) for name, kind in BINARY.items()},
        "identity": pa.array(RAW, pa.uuid()),
    }
    for name, values in also.items():
        rows = rows.append_column(name, values)
    pq.write_table(rows, place.root / "rows.parquet")

    scores = place.run("rows.parquet", columns="all")

    found = DeltaTable(scores.uri).to_pyarrow_table()
    assert found.column_names == [*INPUTS, *also, "_version", "_prediction"]
    assert found["large"].to_pylist() == [2**64 - 1, 0, 1]
    assert found["level"].to_pylist() == ["a", "b", "a"]
    for name in BINARY:
        assert found.schema.field(name).type == pa.binary()
        assert found[name].to_pylist() == RAW
    zeros = "00000000-0000-0000-0000-000000000000"
    assert found["identity"].to_pylist() == [zeros.replace("0", "f"), zeros, None]
    assert found["nothing"].null_count == 3


@pytest.mark.parametrize("empty", ["a.parquet", "b.parquet"])
def test_a_column_that_is_empty_in_one_file_is_of_the_type_it_has_in_another(
    place: Place, empty: str
) -> None:
    also = {
        "size": pa.array([7] * 200, pa.int32()),
        "when": pa.array([0] * 200, pa.timestamp("ms")),
        "raw": pa.array([b"x"] * 200),
        "note": pa.nulls(200),
    }
    (place.root / "folder").mkdir()
    for name, part in (("a.parquet", place.rows[:200]), ("b.parquet", place.rows[200:])):
        rows = pa.Table.from_pandas(part[INPUTS], preserve_index=False)
        for column, values in also.items():
            rows = rows.append_column(column, pa.nulls(200) if name == empty else values)
        pq.write_table(rows, place.root / "folder" / name)

    scores = place.run("folder", columns="all")

    found = DeltaTable(scores.uri).to_pyarrow_table()
    types = [pa.int64(), pa.timestamp("us", "UTC"), pa.binary(), pa.string()]
    assert [found.schema.field(name).type for name in also] == types
    assert [found[name].null_count for name in also] == [200, 200, 200, 400]
    assert set(found["size"].drop_null().to_pylist()) == {7}


def test_a_column_of_two_types_is_told(place: Place) -> None:
    (place.root / "folder").mkdir()
    place.write("folder/a.parquet", place.rows[:100].assign(size=7, note=None))
    place.write("folder/b.parquet", place.rows[100:200].assign(size=None, note="x"))
    place.write("folder/c.parquet", place.rows[200:].assign(size="seven", note=None))

    with pytest.raises(InputError) as refused:
        place.run("folder", columns="all")

    assert refused.value.message == (
        "column 'size': is int64 in one file and string in another (carry the other columns only)"
    )


@pytest.mark.parametrize("lacking", ["a", "b"])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("columns", ["all", ["sender"]])
def test_a_column_that_only_some_files_have_is_told_whichever_comes_first(
    place: Place, lacking: str, ending: str, columns: Any
) -> None:
    (place.root / "folder").mkdir()
    for n, name in enumerate(["a", "b"]):
        rows = place.rows[:100].drop(columns=["sender"] if name == lacking else [])
        os.utime(place.root / place.write(f"folder/{name}.{ending}", rows), (n, n))

    with pytest.raises(InputError) as refused:
        place.job("folder", columns=columns)

    assert refused.value.message == (
        f"{place.root}/folder/{lacking}.{ending}: column 'sender' is not there, though in other "
        "files (carry the other columns only)"
    )
    assert len(content(place.run("folder", columns=["sent"]).uri)) == 200


def test_a_column_the_version_reads_is_missed_in_any_file_before_any_work(place: Place) -> None:
    (place.root / "folder").mkdir()
    place.write("folder/a.parquet", place.rows[:100])
    place.write("folder/b.parquet", place.rows[100:].drop(columns="depot"))

    with pytest.raises(InputError) as refused:
        place.job("folder")

    assert refused.value.message == (
        f"{place.root}/folder/b.parquet: column 'depot' is not there, though in other files "
        "(every file must have it)"
    )


def test_a_duration_is_refused_as_it_would_lose_its_unit(place: Place) -> None:
    rows = pa.Table.from_pandas(place.rows[INPUTS], preserve_index=False)
    lasted = pa.array([86_400] * len(rows), pa.duration("s"))
    pq.write_table(rows.append_column("lasted", lasted), place.root / "rows.parquet")

    with pytest.raises(InputError) as refused:
        place.run("rows.parquet", columns="all")

    assert refused.value.message == (
        "column 'lasted': holds duration[s], and tables have no durations "
        "(make it a number of seconds, or carry the other columns only)"
    )
    assert not (place.root / "out").exists()


def test_columns_that_are_absent_or_ours_are_told_at_once(place: Place) -> None:
    uri = place.write("rows.parquet", place.rows.drop(columns="depot").assign(_version=1))

    with pytest.raises(InputError) as refused:
        place.job(uri, columns=["sendr", "_version"])

    path = f"{place.root}/rows.parquet"
    columns = "weight_kg, items, insured, sent, sender, _version"
    assert refused.value.message.splitlines() == [
        f"{path}: column 'depot' is not there (its columns: {columns})",
        f"{path}: column 'sendr' is not there; did you mean 'sender'? (its columns: {columns})",
        "column '_version': is a name of Perennial's own (carry the other columns only)",
    ]


def test_names_that_differ_in_capitals_only_are_told_before_any_work(place: Place) -> None:
    uri = place.write("rows.parquet", place.rows.assign(Sender="x", _VERSION=1))

    with pytest.raises(InputError) as refused:
        place.job(uri, columns="all")

    assert refused.value.message.splitlines() == [
        f"column {name!r}: differs from {other!r} in capitals only, which tables don't tell apart "
        "(carry the other columns only)"
        for name, other in [("Sender", "sender"), ("_VERSION", "_version")]
    ]
    assert place.run(uri).rows == len(place.rows)  # what isn't carried is no obstacle


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("in", "in"),
        ("in", "in/scored"),
        ("in", "in/./deep/../scored/"),
        ("in", "link/scored"),
        ("link", "in/scored"),
        ("out/in", "out"),
        ("in/**/*.parquet", "in/scored"),
        ("i?/*/*.parquet", "link/scored"),
        ("in/*.parquet", "in"),
        ("out/in/*.parquet", "out"),
        ("s3://bucket/in", "s3://bucket/in/"),
        ("s3://bucket/in/", "s3://bucket/in/scored"),
        ("s3://bucket/out/in", "s3://bucket/out"),
        ("s3://bucket/in/**/*.parquet", "s3://bucket/in/scored"),
    ],
)
def test_an_output_whose_predictions_the_source_would_read_is_refused_before_any_work(
    tmp_path: Path, source: str, output: str
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to("in")

    with pytest.raises(InputError) as refused:
        scoring.plan(Project(tmp_path), "parcels", source, output, None, None)

    place = output if "://" in output else (tmp_path / output).absolute()
    assert refused.value.message == (
        f"{place}: overlaps the source {source}: predictions would be read as rows to score "
        "(name another output)"
    )


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("in/*.parquet", "in/scored"),
        ("in/rows.parquet", "in/scored"),
        ("in/[2026-01].parquet", "in/scored"),
        ("in", "in_scored"),
        ("in", "elsewhere/in"),
        ("s3://bucket/in", "s3://bucket/in_scored"),
        ("s3://bucket/in", "s3://other/in/scored"),
        ("s3://bucket/in", "bucket/in/scored"),
    ],
)
def test_an_output_beside_the_source_is_no_overlap(
    tmp_path: Path, source: str, output: str
) -> None:
    assert not sources.overlaps(source, tmp_path, output)


@pytest.mark.parametrize(
    ("storage", "output", "own"),
    [
        ("", ".perennial/predictions/parcels", ".perennial"),
        ("", ".perennial", ".perennial"),
        ("", ".", ".perennial"),
        ("", "link/labels/parcels", ".perennial"),
        ("", ".perennial/../.perennial/scores/parcels", ".perennial"),
        ("kept", "kept/failures/parcels", "kept"),
        ("kept", "kept/anything", "kept"),
        ("kept", ".perennial/anything", ".perennial"),
        ("s3://bucket/team/kept", "s3://bucket/team/kept/predictions/parcels", ""),
        ("s3://bucket/team/kept", "s3a://bucket/team/kept/labels/parcels/", ""),
        ("s3://bucket/team/kept", "s3://bucket/team", ""),
        ("s3://bucket/team/kept", ".perennial/anything", ".perennial"),
    ],
)
def test_an_output_among_what_the_project_keeps_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str, output: str, own: str
) -> None:
    """Serving would log to it, and the next scoring replace what was logged."""
    monkeypatch.setenv("PERENNIAL_STORAGE", storage)
    (tmp_path / ".perennial").mkdir()
    (tmp_path / "link").symlink_to(".perennial")

    with pytest.raises(InputError) as refused:
        scoring.plan(Project(tmp_path), "parcels", "in", output, None, None)

    place = output if "://" in output else (tmp_path / output).absolute()
    assert refused.value.message == (
        f"{place}: overlaps {tmp_path / own if own else storage}, where the project keeps what is "
        "its own (name another output)"
    )


@pytest.mark.parametrize(
    "output", ["kept_scores", "s3://bucket/team/kept2", "s3://other/team/kept"]
)
@pytest.mark.parametrize("storage", ["kept", "s3://bucket/team/kept"])
def test_an_output_beside_the_storage_is_none_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str, output: str
) -> None:
    monkeypatch.setenv("PERENNIAL_STORAGE", storage)
    assert Project(tmp_path).owner_of(sources.address(output, tmp_path)) is None


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ("s3://bucket/day#2", "no tables can be kept in a folder whose path has '#' in it"),
        ("s3://bucket/day?x", "no tables can be kept in a folder whose path has '?' in it"),
        ("s3://bucket/day%202", "no tables can be kept in a folder whose path has '%20' in it"),
        ("s3://bucket/[day]", "no tables can be kept in a folder whose path has '[' in it"),
        ("c#/scored", "no tables can be kept in a folder whose path has '#' in it"),
        ("s3://bucket/a//b", "is neither a folder nor s3://bucket/prefix"),
        ("s3://bucket/a/../b", "is neither a folder nor s3://bucket/prefix"),
        ("s3://bucket/./b", "is neither a folder nor s3://bucket/prefix"),
        ("s3:///b", "is neither a folder nor s3://bucket/prefix"),
        ("gs://bucket/b", "is neither a folder nor s3://bucket/prefix"),
        ("https://name:hidden@host/b", "is neither a folder nor s3://bucket/prefix"),
        ("s3://name:hidden@bucket/b", "is neither a folder nor s3://bucket/prefix"),
        ("s3://bucket/", "is a whole bucket"),
        ("file://host/scored", "names a host"),
    ],
)
def test_an_output_that_would_be_another_place_is_refused_before_any_work(
    tmp_path: Path, output: str, problem: str
) -> None:
    with pytest.raises(InputError) as refused:
        scoring.plan(Project(tmp_path), "parcels", "in", output, None, None)

    place = output if "://" in output else str(tmp_path / output)
    assert f"{place.replace('name:hidden@', '')}: {problem}" in refused.value.message
    assert "hidden" not in refused.value.message


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ("x" * 300, "the folder can't be made: File name too long"),
        ("file/scored", "the folder can't be made in {root}/file"),
        ("nowhere", "the folder can't be made in {root}/nowhere"),
        ("circle/scored", "the folder can't be made: Too many levels of symbolic links"),
    ],
)
def test_an_output_whose_folder_cannot_be_made_is_told_before_rows_are_scored(
    place: Place, output: str, problem: str
) -> None:
    (place.root / "file").touch()
    (place.root / "nowhere").symlink_to("gone")
    (place.root / "circle").symlink_to("circle")
    uri, where = place.write("rows.csv", place.rows), str(place.root / output)

    with pytest.raises(InputError) as refused:
        scored.find(place.job(uri, output=where))

    told = problem.format(root=place.root)
    assert refused.value.message == f"{where}: {told} (name another place)"
    assert Project(place.root).owner_of(where) is None


@pytest.mark.parametrize("name", ["folder", "folder/**/*.parquet", "folder/*/*.parquet"])
def test_former_rows_of_a_delta_table_among_the_files_are_not_read_as_rows(
    place: Place, name: str
) -> None:
    (place.root / "folder").mkdir()
    place.write("folder/a.parquet", place.rows)
    table = place.root / "folder" / "table"
    write_deltalake(table, pa.Table.from_pandas(place.rows, preserve_index=False))

    with pytest.raises(InputError) as refused:
        place.job(name)

    assert refused.value.message == (
        f"{table}: a Delta table, whose files also hold rows that it no longer has "
        "(name the table itself, or other files only, such as data/*.parquet)"
    )
    assert place.run("folder/*.parquet").rows == len(place.rows)


def test_a_delta_table_may_be_named_like_a_parquet_file(place: Place) -> None:
    rows = pa.Table.from_pandas(place.rows, preserve_index=False)
    for part in (rows, rows.slice(0, 100)):
        write_deltalake(place.root / "table.parquet", part, mode="overwrite")

    assert place.run("table.parquet").rows == 100


@pytest.mark.parametrize(
    ("make_input", "message"),
    [
        (Path.exists, "no such file (name a CSV or Parquet file, or a Delta table)"),
        (
            lambda root: (root / "in.xlsx").write_bytes(b"x"),
            "neither CSV, Parquet nor a Delta table (give the file its usual ending)",
        ),
    ],
)
def test_an_input_of_no_known_kind_is_told(
    place: Place, make_input: Callable[[Path], object], message: str
) -> None:
    make_input(place.root)

    with pytest.raises(InputError) as refused:
        place.job("in.xlsx")

    assert refused.value.message == f"{place.root}/in.xlsx: {message}"


def test_a_folder_of_both_kinds_is_refused(place: Place) -> None:
    (place.root / "mixed").mkdir()
    place.write("mixed/a.csv", place.rows)
    place.write("mixed/b.parquet", place.rows)

    with pytest.raises(InputError, match=r"both CSV and Parquet files \(name one kind, such as"):
        place.job("mixed")
    assert place.job("mixed/*.csv").source.kind == "csv"


def test_no_rows_are_nothing_to_score(place: Place) -> None:
    job = place.job(place.write("rows.csv", place.rows[:0]))

    with pytest.raises(InputError, match=r"rows.csv: no rows to score$"):
        place.score(job)
    assert not any((place.root / "scores").iterdir())


def test_a_file_that_changes_while_it_is_scored_is_not_published(place: Place) -> None:
    job = place.job(place.write("rows.csv", place.rows))

    def change(rows: int) -> None:
        place.write("rows.csv", place.rows[:10])

    with pytest.raises(PerennialError, match="has changed while it was scored; run again"):
        scoring.score(
            place.bundle, 3, place.root, job.source, job.columns, place.root / "scores", 1, change
        )
    assert not any((place.root / "scores").iterdir())


def test_features_that_fail_for_a_thousand_rows_are_at_fault_themselves(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "_MOST_UNFIT", 10)
    job = place.job(place.write("rows.parquet", place.rows.assign(items=-1)))

    with pytest.raises(InputError, match=r"^features can't be computed: more than 10 of 65,536"):
        place.score(job)


def test_batches_and_slices_make_no_difference(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = place.job(place.write("rows.parquet", place.rows))
    whole = place.score(job)
    monkeypatch.setattr(columnar, "ROWS", 90)
    monkeypatch.setattr(scoring, "_SLICE", 7)

    assert scored.publish(job, place.score(job)).rows == whole.rows
    found = content(job.output)
    expected = Predictor(place.bundle).predict(place.rows).values.astype(float)
    assert np.array_equal(
        found.set_index("sender").loc[place.rows["sender"], "_prediction"], expected
    )


def test_what_holds_lists_under_another_name_is_told_before_any_row_is_scored(place: Place) -> None:
    rows = pa.Table.from_pandas(place.rows[INPUTS], preserve_index=False)
    points = pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.float32(), [2]),
        pa.array([[0.0, 1.0]] * len(rows), pa.list_(pa.float32(), 2)),
    )
    pq.write_table(rows.append_column("point", points), place.root / "rows.parquet")

    with pytest.raises(InputError, match=r"rows.parquet, column 'point': holds .* \(flatten it\)$"):
        place.run("rows.parquet", columns="all")
