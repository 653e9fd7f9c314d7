"""Folders of pages: removed with their matrix, or by the next when their process was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from perennial.learning.pages import PageFolder

KILLED = """
import os, signal
from perennial.learning.pages import PageFolder
folder = PageFolder()
(folder.path / "rows.page").write_bytes(b"1")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def left_by_a_kill(tmp_path: Path) -> Path:
    done = subprocess.run(
        [sys.executable, "-c", KILLED], env={**os.environ, "TMPDIR": str(tmp_path)}, check=False
    )
    assert done.returncode == -signal.SIGKILL
    (folder,) = tmp_path.iterdir()
    assert (folder / "rows.page").exists()
    return folder


def test_what_a_killed_process_left_goes_with_the_next_folder(tmp_path: Path) -> None:
    orphan = left_by_a_kill(tmp_path)
    young = PageFolder()
    assert orphan.exists(), "it may be one that is just being made"
    os.utime(orphan, (0, 0))
    other = PageFolder()
    assert {*tmp_path.iterdir()} == {young.path, other.path}
    young.remove()
    other.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_in_use_stays_however_old_it_is(tmp_path: Path) -> None:
    used = PageFolder()
    os.utime(used.path, (0, 0))
    strange = tmp_path / "perennial-pages-of-somebody"
    strange.mkdir()
    os.utime(strange, (0, 0))
    PageFolder().remove()
    assert {*tmp_path.iterdir()} == {used.path, strange}
    used.remove()
