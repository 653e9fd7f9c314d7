"""``perennial publish`` where there is nothing to publish to."""

from __future__ import annotations

from tests.workplace import Workplace


def test_without_a_destination_it_says_which_settings_name_one(project: Workplace) -> None:
    done = project.command("publish")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "nothing to publish to: set PERENNIAL_MLFLOW_URI, or WANDB_API_KEY "
        "(docs/mlflow.md, wandb.md)\n"
    )


def test_a_model_that_is_not_there_is_told(project: Workplace) -> None:
    done = project.command("publish", "demnd")
    assert done.returncode == 2
    assert "no model 'demnd'; did you mean 'demand'?" in done.stderr
