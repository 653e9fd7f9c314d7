"""Bringing a database to the present schema."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory

from perennial.stores.registry import Registry
from perennial.stores.registry.schema import REVISIONS

_OPEN = """
import sys
from perennial.stores.registry import Registry
Registry(sys.argv[1]).close()
print("alembic" in sys.modules)
"""


def test_the_revisions_the_code_knows_are_those_of_the_migrations() -> None:
    config = Config()
    config.set_main_option("script_location", "perennial.stores.registry:migrations")
    walked = ScriptDirectory.from_config(config).walk_revisions()
    assert tuple(script.revision for script in walked)[::-1] == REVISIONS


def test_an_up_to_date_registry_opens_without_loading_the_migrations(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _OPEN, f"sqlite:///{tmp_path}/registry.db"]
    loaded = [
        subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        for _ in range(2)
    ]
    assert loaded == ["True", "False"]


def test_a_migration_that_fails_leaves_no_half_made_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alembic.operations import Operations

    real = Operations.create_table

    def failing(self: Operations, name: str, *args: object, **kwargs: object) -> sa.Table:
        if name == "decisions":
            raise OSError("killed here")
        return real(self, name, *args, **kwargs)  # type: ignore[arg-type]

    url = f"sqlite:///{tmp_path}/registry.db"
    with monkeypatch.context() as patch:
        patch.setattr(Operations, "create_table", failing)
        with pytest.raises(OSError, match="killed here"):
            Registry(url)
    engine = sa.create_engine(url)
    assert sa.inspect(engine).get_table_names() == []
    engine.dispose()
    assert Registry(url).models() == []
