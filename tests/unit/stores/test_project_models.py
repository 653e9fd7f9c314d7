"""What defines a model: its folder below models/, or the version that is kept in one."""

from __future__ import annotations

import pytest

from perennial.contracts.errors import InputError
from perennial.spec import parse_spec
from perennial.stores.project import KEPT_SPEC, load_model
from tests.workplace import Workplace


def test_a_version_that_is_made_once_more_is_defined_by_the_spec_it_was_made_of(
    project: Workplace,
) -> None:
    today = (project.model / "model.yaml").read_text()
    then = today.replace("{rounds: 60}", "{rounds: 60, params: {tree_method: approx}}")
    with pytest.raises(InputError, match="this is always hist"):
        parse_spec(then)
    folder = project.root / "reproductions"
    folder.mkdir()
    (folder / KEPT_SPEC).write_text(then)
    (folder / "features.py").write_text((project.model / "features.py").read_text())
    ref, spec = load_model(folder)
    assert spec.training.params == {"tree_method": "approx"}
    assert (ref.name, ref.directory) == ("demand", str(folder))
    assert ref.spec_digest != load_model(project.model)[0].spec_digest
