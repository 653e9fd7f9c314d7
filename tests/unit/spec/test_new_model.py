"""Writing the files of a new model: all of them or none."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from perennial.contracts.errors import InputError
from perennial.spec import load_spec
from perennial.spec.publish import NewModel, json_schema_text, write_model

MODEL = """\
# yaml-language-server: $schema=../model.schema.json
name: late-payment
objective: binary
source: {kind: csv, uri: rows.csv, event_time: at}
label: {column: late}
columns: {amount: {type: float}}
"""
NEW = NewModel("late-payment", MODEL, '"""No features."""\n')


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_new_model_is_a_folder_with_the_schema_for_editors_beside_it(tmp_path: Path) -> None:
    models = tmp_path / "models"
    written = write_model(models, NEW)
    folder = models / "late_payment"
    assert written == [models / "model.schema.json", folder / "features.py", folder / "model.yaml"]
    assert files(models) == [
        "late_payment/features.py",
        "late_payment/model.yaml",
        "model.schema.json",
    ]
    assert load_spec(folder / "model.yaml").name == "late-payment"
    assert (folder / "model.yaml").read_text() == MODEL
    schema = (folder / MODEL.split("$schema=")[1].split("\n", maxsplit=1)[0]).resolve()
    assert schema.read_text() == json_schema_text()


def test_a_second_model_does_not_write_the_schema_again(tmp_path: Path) -> None:
    write_model(tmp_path, NEW)
    other = NewModel("other", MODEL, "")
    assert [p.name for p in write_model(tmp_path, other)] == ["features.py", "model.yaml"]


def test_a_model_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    write_model(tmp_path, NEW)
    with pytest.raises(InputError) as error:
        write_model(tmp_path, NewModel("late-payment", "name: x\n", ""))
    folder = tmp_path / "late_payment"
    assert error.value.message == (
        f"{folder}: the model 'late-payment' has features.py and model.yaml already "
        "(choose another name, or remove them first)"
    )
    assert (folder / "model.yaml").read_text() == MODEL


def test_data_that_lies_in_the_folder_already_stays(tmp_path: Path) -> None:
    data = tmp_path / "late_payment" / "data" / "rows.csv"
    data.parent.mkdir(parents=True)
    data.write_text("a,b\n")
    write_model(tmp_path, NEW)
    assert data.read_text() == "a,b\n"


@pytest.mark.parametrize("before", [True, False])
def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    folder = tmp_path / "late_payment"
    if before:
        (folder / "data").mkdir(parents=True)
    real = Path.write_text

    def full(path: Path, text: str, **options: str) -> int:
        if "model.yaml" in path.name:
            real(path, text[:10], **options)
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, text, **options)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(InputError) as error:
        write_model(tmp_path, NEW)
    assert error.value.message == f"{folder}: can't be written: No space left on device"
    assert files(tmp_path) == []
    assert folder.exists() == before
