"""A matrix beyond memory: trained on in pages, to the same bytes."""

from __future__ import annotations

import gc
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perennial.contracts.errors import InputError
from perennial.contracts.features import Feature, FeatureSchema
from perennial.learning.matrices import Matrices, quantile_matrix, quantised
from perennial.learning.pages import PageFolder
from perennial.learning.training import booster_bytes, train_booster
from perennial.learning.tuning import tune
from perennial.spec import parse_spec
from tests.workplace import MODEL_YAML

MIB = 2**20
SPEC = parse_spec(MODEL_YAML)
PARAMS = {"max_depth": 5, "learning_rate": 0.3, "subsample": 0.8}


def make(memory: int | None) -> Matrices:
    random = np.random.default_rng(5)
    x = random.standard_normal((20_000, 4), np.float32)
    x[:, 3] = random.integers(0, 12, len(x))
    x[random.random(x.shape) < 0.1] = np.nan
    y = (np.nan_to_num(x[:, 0]) + np.nan_to_num(x[:, 3]) / 6 > 1).astype(np.float32)
    levels = tuple(f"level {i:02}" for i in range(12))
    features = (*(Feature(name=f"x{i}") for i in range(3)), Feature(name="x3", levels=levels))
    schema = FeatureSchema(inputs=(), features=features, classes=("0", "1"))
    return Matrices(x[:15_000], y[:15_000], x[15_000:], y[15_000:], schema, memory)


def test_boosters_trained_in_pages_are_those_trained_in_memory_to_the_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    whole = train_booster(make(None), SPEC, PARAMS, 12, 2, "train+validation")
    assert not list(tmp_path.iterdir())
    paged = train_booster(make(40_000), SPEC, PARAMS, 12, 2, "train+validation")
    assert booster_bytes(paged) == booster_bytes(whole)


def test_pages_lie_on_disk_while_the_matrix_lives_and_not_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rows, validation = quantised(make(40_000), 256, 2)
    assert (rows.num_row(), validation.num_row()) == (15_000, 5_000)
    assert len(list(tmp_path.rglob("*.page"))) == 2
    del rows, validation
    gc.collect()
    assert list(tmp_path.iterdir()) == []


class Disk:
    """The temporary folder's, as full as is told, whatever is on it."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = 2**40
        self.place = place
        monkeypatch.setattr("tempfile.tempdir", str(place))
        monkeypatch.setattr("shutil.disk_usage", self._usage)

    def _usage(self, path: Path) -> shutil._ntuple_diskusage:
        assert path.parent == self.place
        return shutil._ntuple_diskusage(2**40, 2**40 - self.free, self.free)

    def needed(self, part: np.ndarray, schema: FeatureSchema, max_bin: int) -> int:
        """MiB that are said to be needed for these rows when nothing is free."""
        self.free = 0
        with pytest.raises(InputError) as refused:
            paged(part, schema, max_bin)
        found = re.search(r"may take ([0-9,]+) MiB, and 0 MiB are free", refused.value.message)
        assert found is not None
        return int(found[1].replace(",", ""))

    def taken(self, part: np.ndarray, schema: FeatureSchema, max_bin: int) -> int:
        """Bytes of the pages."""
        self.free = 2**40
        rows = paged(part, schema, max_bin)
        assert rows.num_row() == len(part)
        return sum(page.stat().st_size for page in self.place.rglob("*.page"))


def paged(part: np.ndarray, schema: FeatureSchema, max_bin: int) -> Any:
    y = np.zeros(len(part), np.float32)
    return quantile_matrix(schema, [(part, y)], max_bin, 2, memory=part.nbytes // 2)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(tmp_path, monkeypatch)


@pytest.mark.parametrize("missing", [0.0, 1e-4, 0.3, 0.95])
@pytest.mark.parametrize(("max_bin", "levels"), [(2, 3), (256, 256), (256, 300), (300, 70_000)])
def test_the_room_that_is_asked_for_is_what_pages_take_and_not_much_more(
    disk: Disk, missing: float, max_bin: int, levels: int
) -> None:
    random = np.random.default_rng(3)
    x = random.standard_normal((100_000, 20), np.float32)
    x[:, 0] = random.integers(0, levels, len(x))
    x[random.random(x.shape) < missing] = np.nan
    names = tuple(f"{level:05}" for level in range(levels))
    category = Feature(name="x0", levels=names)
    features = (category, *(Feature(name=f"x{i}") for i in range(1, x.shape[1])))
    schema = FeatureSchema(inputs=(), features=features, classes=("0", "1"))
    needed, taken = disk.needed(x, schema, max_bin), disk.taken(x, schema, max_bin)
    spare = 16 * MIB
    assert taken + spare <= needed * MIB
    if missing < 0.01:
        assert needed * MIB <= 1.15 * taken + spare + MIB


def test_two_do_not_count_on_the_same_room(disk: Disk) -> None:
    x = np.random.default_rng(3).standard_normal((50_000, 8), np.float32)
    schema = FeatureSchema(
        inputs=(), features=tuple(Feature(name=f"x{i}") for i in range(8)), classes=("0", "1")
    )
    disk.free = disk.needed(x, schema, 256) * MIB + MIB
    other = PageFolder()
    other.claim(3 * MIB)
    with pytest.raises(InputError, match="are free"):
        paged(x, schema, 256)
    (other.path / "rows.page").write_bytes(b"1" * 3 * MIB)  # from now on the disk knows of them
    assert paged(x, schema, 256).num_row() == len(x)
    rows = paged(x, schema, 256)  # pages that are written are not counted twice
    assert rows.num_row() == len(x)
    other.remove()


def test_without_room_for_pages_nothing_is_written_and_no_trial_has_failed(
    disk: Disk, tmp_path: Path
) -> None:
    disk.free = 9 * MIB
    matrices, url = make(40_000), f"sqlite:///{tmp_path / 'studies.db'}"
    with pytest.raises(InputError) as refused:
        tune(SPEC, matrices, study_name="s", storage_url=url)
    assert refused.value.message == (
        f"{tmp_path}: pages of 15,000 rows by 4 features may take 18 MiB, and 9 MiB are free "
        "(free some space, or name a folder on a larger disk in TMPDIR, and run again: finished "
        "stages are not repeated)"
    )
    assert not list(tmp_path.glob("perennial-pages-*"))
    disk.free = 2**40
    assert tune(SPEC, matrices, study_name="s", storage_url=url).failed == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "perennial-small", str(place)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting takes root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


ON_A_SMALL_DISK = """
from perennial.contracts.errors import InputError
from perennial.learning.matrices import quantised
from tests.unit.learning.test_external_memory import make
from dataclasses import replace
import numpy as np
whole = make(40_000)
x, y = np.tile(whole.x_train, (10, 1)), np.tile(whole.y_train, 10)
try:
    quantised(replace(whole, x_train=x, y_train=y), 256, 2)
except InputError as error:
    print(error.message)
"""


def test_a_disk_that_is_really_too_small_ends_no_process(small_disk: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ON_A_SMALL_DISK],
        env={**os.environ, "TMPDIR": str(small_disk)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{small_disk}: pages of 150,000 rows by 4 features may take ")
    assert list(small_disk.iterdir()) == []
