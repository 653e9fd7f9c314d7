"""``perennial tokens``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from perennial.cli.app import app
from perennial.contracts.errors import InputError
from perennial.stores.tokens import digest, read_tokens


def _run(root: Path, *arguments: str) -> Result:
    done = CliRunner().invoke(app, ["--project", str(root), "tokens", *arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_a_token_is_printed_alone_so_that_a_script_can_take_it(tmp_path: Path) -> None:
    done = _run(tmp_path, "add", "app", "--role", "predict", "--role", "label")

    path = tmp_path / ".perennial" / "tokens.yaml"
    (token,) = done.stdout.splitlines()
    ((kept,), _) = read_tokens(path)
    assert kept.sha256 == digest(token)
    assert kept.roles == ("predict", "label")
    assert done.stderr == f"kept in {path} as its SHA-256; it is not shown again\n"


def test_tokens_are_listed_without_what_is_kept_of_them(tmp_path: Path) -> None:
    token = _run(tmp_path, "add", "app", "--role", "predict").stdout.strip()
    identity = digest(token)[:8]

    table = _run(tmp_path, "list").stdout
    (entry,) = json.loads(_run(tmp_path, "list", "--json").stdout)

    assert table.splitlines()[1].split()[:3] == ["app", identity, "predict"]
    assert (entry["name"], entry["id"], entry["roles"]) == ("app", identity, ["predict"])
    assert digest(token) not in table + json.dumps(entry)


def test_a_token_is_removed_by_its_id(tmp_path: Path) -> None:
    old, new = (_run(tmp_path, "add", "app", "--role", "predict").stdout.strip() for _ in range(2))

    done = _run(tmp_path, "remove", "app", "--id", digest(old)[:8])

    assert done.stdout == f"removed app {digest(old)[:8]} (predict)\n"
    ((kept,), _) = read_tokens(tmp_path / ".perennial" / "tokens.yaml")
    assert kept.sha256 == digest(new)


def test_another_file_may_be_named(tmp_path: Path) -> None:
    path = tmp_path / "elsewhere" / "t.yaml"

    _run(tmp_path, "add", "app", "--role", "admin", "--file", str(path))

    assert [token.name for token in read_tokens(path)[0]] == ["app"]
    assert not (tmp_path / ".perennial").exists()


def test_an_unknown_role_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        _run(tmp_path, "add", "app", "--role", "root")

    assert error.value.message == "--role: 'root' is not a role (roles: predict, label, admin)"
    assert not (tmp_path / ".perennial").exists()
