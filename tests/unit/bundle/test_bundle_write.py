"""Writing a bundle: whole or not at all, and the same content always the same digest."""

from __future__ import annotations

import dataclasses
import os
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from perennial.bundle.manifest import FILES, MANIFEST
from perennial.bundle.read import open_bundle
from perennial.bundle.write import write_bundle
from perennial.contracts.errors import InputError


def files_of(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def shown_in(parent: Path) -> list[str]:
    return [path.name for path in parent.iterdir() if path.name != ".lock"]


def test_a_written_bundle_opens_to_what_was_given(made: Any, tmp_path: Path) -> None:
    ref = write_bundle(tmp_path / "bundles" / "parcels", made.content)
    assert ref.uri == str(tmp_path / "bundles" / "parcels" / ref.digest)
    assert set(files_of(ref.uri)) == {*FILES, MANIFEST}
    bundle = open_bundle(Path(ref.uri), ref.digest)
    assert (bundle.model, bundle.objective, bundle.digest) == ("parcels", "binary", ref.digest)
    for name in ("spec", "schema", "booster", "features_source", "state"):
        assert getattr(bundle, name) == getattr(made.content, name), name
    for name in ("profile", "metrics", "lineage"):
        assert getattr(bundle, name) == getattr(made.content, name), name
    assert bundle.reference().equals(made.rows.head(50))


def test_the_same_content_gives_the_same_bytes_and_digest_anywhere_at_any_time(
    made: Any, tmp_path: Path
) -> None:
    first = write_bundle(tmp_path / "a", made.content)
    time.sleep(0.01)
    reordered = dataclasses.replace(
        made.content, lineage=dict(reversed(list(made.content.lineage.items())))
    )
    second = write_bundle(tmp_path / "b", reordered)
    assert first.digest == second.digest
    assert files_of(first.uri) == files_of(second.uri)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("booster", b"other trees"),
        ("features_source", "# a comment\n"),
        ("state", {"depot_share": {}}),
        ("reference", b"other rows"),
        ("profile", {"rows": 1}),
        ("metrics", {}),
        ("lineage", {"seed": 4}),
    ],
)
def test_any_other_content_gives_another_digest(
    made: Any, tmp_path: Path, field: str, value: object
) -> None:
    other = dataclasses.replace(made.content, **{field: value})
    assert write_bundle(tmp_path, other).digest != write_bundle(tmp_path, made.content).digest


def test_a_bundle_that_is_there_is_reused(made: Any, tmp_path: Path) -> None:
    first = write_bundle(tmp_path, made.content)
    before = {path.name: path.stat().st_ino for path in Path(first.uri).iterdir()}
    assert write_bundle(tmp_path, made.content) == first
    assert {path.name: path.stat().st_ino for path in Path(first.uri).iterdir()} == before


def test_a_damaged_bundle_is_replaced_by_what_should_be_there(made: Any, tmp_path: Path) -> None:
    ref = write_bundle(tmp_path, made.content)
    (Path(ref.uri) / "state.json").write_text("{}")
    (Path(ref.uri) / "stray.txt").touch()
    assert write_bundle(tmp_path, made.content) == ref
    assert open_bundle(Path(ref.uri), ref.digest).state == made.content.state


def test_writers_of_the_same_bundle_at_once_make_one(made: Any, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        refs = list(pool.map(lambda _: write_bundle(tmp_path, made.content), range(16)))
    assert len(set(refs)) == 1
    assert shown_in(tmp_path) == [refs[0].digest]
    open_bundle(Path(refs[0].uri), refs[0].digest)


def test_values_that_are_not_json_are_refused_before_anything_is_written(
    made: Any, tmp_path: Path
) -> None:
    content = dataclasses.replace(made.content, metrics={"logloss": float("nan")})
    with pytest.raises(InputError) as refused:
        write_bundle(tmp_path / "new", content)
    assert str(refused.value).startswith("bundle, metrics.json: not JSON: Out of range float")
    assert not (tmp_path / "new").exists()


def test_a_folder_that_can_not_be_made_is_told(made: Any, tmp_path: Path) -> None:
    (tmp_path / "bundles").write_text("a file")
    with pytest.raises(InputError) as refused:
        write_bundle(tmp_path / "bundles" / "parcels", made.content)
    assert "can't be written: Not a directory; nothing was kept" in str(refused.value)


# Writes a bundle whose booster is 200 kB in a process of its own; the given line runs first.
_WRITE = """
import os, resource, signal, sys
from pathlib import Path
from perennial.bundle import write
from perennial.contracts.errors import PerennialError
from perennial.contracts.features import FeatureSchema
from perennial.spec import parse_spec

content = write.BundleContent(
    spec=parse_spec(
        "{name: m, objective: regression, source: {kind: csv, uri: x}, label: {column: y},"
        " columns: {a: {type: float}}, split: {kind: random, validation: 0.2, test: 0.2}}"
    ),
    schema=FeatureSchema(inputs=(), features=(), classes=None), booster=os.urandom(1) * 200_000,
    features_source="", state={}, reference=b"", profile={}, metrics={}, lineage={},
)
exec(sys.argv[2])
try:
    write.write_bundle(Path(sys.argv[1]), content)
except PerennialError as error:
    print(error.message)
    sys.exit(error.exit_code)
"""


def run_writer(parent: Path, first: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _WRITE, str(parent), first]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=240)


def test_a_full_disk_is_one_clear_message_and_leaves_nothing(tmp_path: Path) -> None:
    limit = f"resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, {resource.RLIM_INFINITY}))"
    done = run_writer(tmp_path, limit)
    assert done.returncode == 2
    assert done.stderr == ""
    assert done.stdout.startswith(f"bundle {tmp_path}/")
    assert ": no space for its 201," in done.stdout
    assert done.stdout.endswith(
        " bytes (File too large); nothing was kept "
        "(free some space or check the folder's permissions, then run again)\n"
    )
    assert shown_in(tmp_path) == []


@pytest.mark.parametrize("moment", ["canonical_json", "_intact", "Path.rename"])
def test_a_killed_writer_leaves_no_bundle_and_the_next_one_cleans_up(
    made: Any, tmp_path: Path, moment: str
) -> None:
    kill = f"write.{moment} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)"
    assert run_writer(tmp_path, kill).returncode == -signal.SIGKILL
    assert [name for name in shown_in(tmp_path) if not name.startswith(".")] == []
    assert (tmp_path / ".writing").exists() == (moment == "Path.rename")
    ref = write_bundle(tmp_path, made.content)
    assert shown_in(tmp_path) == [ref.digest]
    assert os.access(ref.uri, os.R_OK)
