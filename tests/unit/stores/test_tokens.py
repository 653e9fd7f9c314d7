"""The file of tokens."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.contracts.errors import InputError
from perennial.stores.tokens import add_token, digest, read_tokens, remove_tokens

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "tokens.yaml"


def test_a_token_is_printed_once_and_only_its_hash_is_kept(path: Path) -> None:
    token = add_token(path, "app", ["predict", "label", "predict"], NOW)

    (kept,), _ = read_tokens(path)

    assert token not in path.read_text()
    assert len(token) == len("perennial_") + 43
    assert (kept.name, kept.roles, kept.sha256) == ("app", ("predict", "label"), digest(token))


def test_a_new_file_is_its_owners_alone_and_a_given_mode_stays(path: Path) -> None:
    add_token(path, "app", ["predict"], NOW)
    first = stat.S_IMODE(path.stat().st_mode)
    path.chmod(0o640)
    add_token(path, "app", ["predict"], NOW)

    assert (first, stat.S_IMODE(path.stat().st_mode)) == (0o600, 0o640)
    assert [p.name for p in path.parent.iterdir()] == ["tokens.yaml"]


def test_a_link_to_the_file_stays_a_link(path: Path, tmp_path: Path) -> None:
    add_token(path, "app", ["predict"], NOW)
    link = tmp_path / "link.yaml"
    link.symlink_to(path)

    add_token(link, "other", ["label"], NOW)

    assert link.is_symlink()
    assert [token.name for token in read_tokens(path)[0]] == ["app", "other"]


def test_one_of_two_tokens_of_a_name_is_removed_by_its_id(path: Path) -> None:
    old, new = (add_token(path, "app", ["predict"], NOW) for _ in range(2))

    gone = remove_tokens(path, "app", digest(old)[:8])

    assert [token.sha256 for token in gone] == [digest(old)]
    assert [token.sha256 for token in read_tokens(path)[0]] == [digest(new)]


def test_all_tokens_of_a_name_are_removed_and_others_stay(path: Path) -> None:
    for name in ("app", "app", "person"):
        add_token(path, name, ["predict"], NOW)

    assert len(remove_tokens(path, "app", None)) == 2
    assert [token.name for token in read_tokens(path)[0]] == ["person"]


def test_a_name_or_id_that_is_not_there_is_told_with_those_that_are(path: Path) -> None:
    token = add_token(path, "app", ["predict"], NOW)

    with pytest.raises(InputError) as name:
        remove_tokens(path, "ap", None)
    with pytest.raises(InputError) as identity:
        remove_tokens(path, "app", "12345678")

    assert name.value.message == f"{path}: no token of 'ap' (names here: app)"
    assert identity.value.message == (
        f"{path}: no token of 'app' with id '12345678' (its ids here: {digest(token)[:8]})"
    )


def test_tokens_added_at_the_same_time_are_all_kept(path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(lambda i: add_token(path, f"n{i}", ["label"], NOW), range(24)))

    assert {token.sha256 for token in read_tokens(path)[0]} == set(map(digest, given))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "",
            "the file is empty (remove it; perennial tokens add NAME --role predict makes one)",
        ),
        ("tokens: [", "not valid YAML"),
        ("tokens: 3", "tokens: Input should be a valid tuple"),
        ("tokens: [{name: a, roles: [root], sha256: ''}]", "tokens.0.roles.0: Input should be"),
        ("tokens: [{name: a, roles: [], sha256: ''}]", "tokens.0.roles: Tuple should have at"),
        ("tokens: [{name: a, roles: [label], sha256: abc}]", "tokens.0.sha256: String should"),
        ("tokens: []\nmore: 1", "more: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(path: Path, text: str, message: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    path.chmod(0o600)

    with pytest.raises(InputError) as error:
        read_tokens(path)

    assert message in error.value.message
    assert str(path) in error.value.message


def test_json_is_read_as_well(path: Path) -> None:
    path.parent.mkdir()
    entry = f'{{"name": "a", "roles": ["admin"], "sha256": "{digest("x")}"}}'
    path.write_text(f'{{"tokens": [{entry}]}}')
    path.chmod(0o444)

    assert read_tokens(path)[0][0].roles == ("admin",)


def test_the_same_token_for_two_holders_is_refused(path: Path) -> None:
    path.parent.mkdir()
    entry = f"{{name: a, roles: [label], sha256: '{digest('x')}'}}"
    path.write_text(f"tokens: [{entry}, {entry}]")
    path.chmod(0o600)

    with pytest.raises(InputError, match="the same token is there twice"):
        read_tokens(path)


@pytest.mark.parametrize("mode", [0o660, 0o602, 0o666])
def test_a_file_that_others_may_write_to_is_refused(path: Path, mode: int) -> None:
    add_token(path, "app", ["predict"], NOW)
    path.chmod(mode)

    with pytest.raises(InputError) as error:
        read_tokens(path)

    assert error.value.message == (
        f"{path}: others may write to it (mode {mode:04o}) (chmod go-w {path})"
    )


def test_a_missing_file_says_how_one_is_made(path: Path) -> None:
    with pytest.raises(InputError) as error:
        read_tokens(path)

    fix = "perennial tokens add NAME --role predict makes one"
    assert error.value.message == f"{path}: no such file ({fix})"


@pytest.mark.parametrize("name", ["", "a b", "-a", "a" * 65, "a\n", "ä"])
def test_a_name_that_a_log_could_not_show_is_refused(path: Path, name: str) -> None:
    with pytest.raises(InputError, match="is not a name"):
        add_token(path, name, ["predict"], NOW)

    assert not path.exists()


@settings(deadline=None, max_examples=100)
@given(hashes=st.lists(st.text("0123456789e", min_size=64, max_size=64), unique=True, max_size=4))
def test_a_hash_that_looks_like_a_number_is_read_back_as_text(
    tmp_path_factory: pytest.TempPathFactory, hashes: list[str]
) -> None:
    from perennial.spec.documents import document_text

    path = tmp_path_factory.mktemp("tokens") / "tokens.yaml"
    tokens = [{"name": "a", "roles": ["label"], "sha256": sha256} for sha256 in hashes]
    path.write_text(document_text({"tokens": tokens}))
    path.chmod(0o600)

    assert [token.sha256 for token in read_tokens(path)[0]] == hashes
