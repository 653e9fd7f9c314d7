"""The whole loop under faults, for a short time: everything that was promised holds."""

from __future__ import annotations

from pathlib import Path

from tests.faults.running import run

SEED = 6
SECONDS = 15.0


def test_whatever_goes_wrong_nothing_acknowledged_is_lost_and_one_champion_answers(
    tmp_path: Path,
) -> None:
    result = run(tmp_path, SEED, SECONDS, settle_seconds=12.0)
    assert result.violations == [], result.told()
    assert len(result.story.answers) > 20, result.told()
    assert len(result.story.versions) > 1, result.told()
    assert sum(result.faults.values()) > 8
