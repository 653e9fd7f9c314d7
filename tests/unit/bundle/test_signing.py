"""Signatures: what is not signed by somebody who is trusted is not opened."""

from __future__ import annotations

import builtins
import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from perennial.bundle.read import open_bundle
from perennial.bundle.signing import KEY_VARIABLE, SIGNATURE, TRUST_VARIABLE, new_key
from perennial.bundle.write import write_bundle
from perennial.contracts.errors import InputError, IntegrityError
from perennial.contracts.refs import BundleRef


class Keys:
    """Two keys, and an environment that signs with one and trusts one."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.ids = {name: new_key(folder / name) for name in ("ours", "theirs")}
        self._patch = monkeypatch

    def sign_with(self, name: str | None) -> None:
        self._set(KEY_VARIABLE, name)

    def trust(self, *names: str) -> None:
        trusted = self.folder / "trusted.pem"
        texts = [(self.folder / f"{name}.pub").read_text() for name in names]
        trusted.write_text("# of the trainers\n".join(texts))
        self._set(TRUST_VARIABLE, trusted.name)

    def _set(self, variable: str, name: str | None) -> None:
        if name is None:
            self._patch.delenv(variable, raising=False)
        else:
            self._patch.setenv(variable, str(self.folder / name))


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keys:
    folder = tmp_path / "keys"
    folder.mkdir()
    return Keys(folder, monkeypatch)


def _open(ref: BundleRef) -> str:
    return open_bundle(Path(ref.uri), ref.digest).digest


def _refusal(ref: BundleRef) -> str:
    with pytest.raises(IntegrityError) as error:
        _open(ref)
    return error.value.message


def _signature(ref: BundleRef) -> Path:
    return Path(ref.uri) / SIGNATURE


def test_a_signature_changes_neither_digest_nor_content(
    made: Any, tmp_path: Path, keys: Keys
) -> None:
    plain = write_bundle(tmp_path / "plain", made.content)
    keys.sign_with("ours")
    signed, again = (write_bundle(tmp_path / name, made.content) for name in ("a", "b"))

    assert signed.digest == plain.digest
    assert not _signature(plain).exists()
    assert _signature(signed).read_bytes() == _signature(again).read_bytes()
    assert json.loads(_signature(signed).read_text())["key"] == keys.ids["ours"]
    assert _open(signed) == signed.digest  # also where nobody asks for signatures


def test_what_a_trusted_key_signed_opens(made: Any, tmp_path: Path, keys: Keys) -> None:
    keys.sign_with("ours")
    keys.trust("theirs", "ours")

    ref = write_bundle(tmp_path / "b", made.content)

    assert _open(ref) == ref.digest


def test_what_is_not_signed_is_refused(made: Any, tmp_path: Path, keys: Keys) -> None:
    ref = write_bundle(tmp_path / "b", made.content)
    keys.trust("ours")

    assert _refusal(ref) == (
        f"bundle {ref.uri}, signature.json: not signed, and PERENNIAL_TRUSTED_KEYS_FILE asks for a "
        "signature (perennial keys sign NAME@V signs it, where the key is)"
    )


def test_what_somebody_else_signed_is_refused_with_their_key(
    made: Any, tmp_path: Path, keys: Keys
) -> None:
    keys.sign_with("theirs")
    keys.trust("ours")
    ref = write_bundle(tmp_path / "b", made.content)

    assert _refusal(ref) == (
        f"bundle {ref.uri}, signature.json: signed by the key '{keys.ids['theirs']}', which "
        f"{keys.folder}/trusted.pem does not have (it has {keys.ids['ours']}) "
        "(add its public key there if you trust it)"
    )


def test_a_bundle_that_was_made_whole_again_after_a_change_is_refused(
    made: Any, tmp_path: Path, keys: Keys
) -> None:
    """Who may write files and registry can give changed content its own right digest, but not the
    signature: neither the old one, nor one under the trusted key's name by another key."""
    import dataclasses

    keys.sign_with("ours")
    keys.trust("ours")
    good = write_bundle(tmp_path / "b", made.content)
    keys.sign_with("theirs")
    evil = write_bundle(
        tmp_path / "b", dataclasses.replace(made.content, features_source="import os\n")
    )

    renamed = json.loads(_signature(evil).read_text()) | {"key": keys.ids["ours"]}
    for forged in (_signature(good).read_bytes(), json.dumps(renamed).encode()):
        _signature(evil).write_bytes(forged)
        assert f"not what the key {keys.ids['ours']} made for the digest {evil.digest}" in (
            _refusal(evil)
        )
    assert _open(good) == good.digest


@pytest.mark.parametrize(
    "junk",
    [b"", b"{", b"[]", b"null", b'{"key": "x"}', b"\xff" * 99, b'{"key": "k", "signature": "*"}',
     b'{"algorithm": "none", "key": "k", "signature": ""}'],
)  # fmt: skip
def test_a_signature_that_is_none_is_refused(
    made: Any, tmp_path: Path, keys: Keys, junk: bytes
) -> None:
    ref = write_bundle(tmp_path / "b", made.content)
    keys.trust("ours")
    _signature(ref).write_bytes(junk)

    assert "signature.json: not a signature that can be read" in _refusal(ref)


def test_a_bundle_that_is_there_is_signed_when_it_is_made_again(
    made: Any, tmp_path: Path, keys: Keys
) -> None:
    unsigned = write_bundle(tmp_path / "b", made.content)
    keys.sign_with("ours")
    keys.trust("ours")
    inode = (Path(unsigned.uri) / "booster.ubj").stat().st_ino

    signed = write_bundle(tmp_path / "b", made.content)

    assert _open(signed) == unsigned.digest
    assert (Path(signed.uri) / "booster.ubj").stat().st_ino == inode  # reused, not written again


def test_a_private_key_is_its_owners_alone_and_is_never_replaced(
    tmp_path: Path, keys: Keys
) -> None:
    ours = keys.folder / "ours"

    assert stat.S_IMODE(ours.stat().st_mode) == 0o600
    with pytest.raises(InputError, match=r"ours\.pub: is there already"):
        new_key(ours)
    (keys.folder / "ours.pub").unlink()
    with pytest.raises(InputError, match=r"ours: is there already"):
        new_key(ours)


def test_a_key_that_is_not_written_whole_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60, 60)); "
        "from perennial.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, "keys", "new", str(tmp_path / "key.pem")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr == f"{tmp_path}/key.pem: can't be written: File too large\n"
    assert list(tmp_path.iterdir()) == []


def test_a_key_whose_public_half_has_no_place_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "key.pem.pub").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"key.pem.pub: is there already"):
        new_key(tmp_path / "key.pem")
    assert not (tmp_path / "key.pem").exists()


@pytest.mark.parametrize(
    ("mode", "text"),
    [(0o644, "others may read it or write to it (mode 0644) (chmod g-w,o-rwx "),
     (0o620, "others may read it or write to it (mode 0620) (chmod g-w,o-rwx ")],
)  # fmt: skip
def test_a_key_that_others_can_get_at_signs_nothing(
    made: Any, tmp_path: Path, keys: Keys, mode: int, text: str
) -> None:
    keys.sign_with("ours")
    (keys.folder / "ours").chmod(mode)

    with pytest.raises(InputError) as error:
        write_bundle(tmp_path / "b", made.content)

    assert text in error.value.message
    assert not (tmp_path / "b").exists()


def test_trusted_keys_that_others_may_change_are_no_trusted_keys(
    made: Any, tmp_path: Path, keys: Keys
) -> None:
    ref = write_bundle(tmp_path / "b", made.content)
    keys.trust("ours")
    (keys.folder / "trusted.pem").chmod(0o666)

    with pytest.raises(InputError, match=r"others may write to it \(mode 0666\)"):
        _open(ref)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "no public key in it"),
     ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "key 1 can't be read")],
)  # fmt: skip
def test_no_trusted_keys_trust_nobody(
    made: Any, tmp_path: Path, keys: Keys, text: str, message: str
) -> None:
    ref = write_bundle(tmp_path / "b", made.content)
    keys.trust("ours")
    (keys.folder / "trusted.pem").write_text(text)

    with pytest.raises(InputError, match=message):
        _open(ref)


def test_a_public_key_does_not_sign_and_the_error_does_not_quote_it(
    made: Any, tmp_path: Path, keys: Keys
) -> None:
    keys.sign_with("ours.pub")
    (keys.folder / "ours.pub").chmod(0o600)

    with pytest.raises(InputError) as error:
        write_bundle(tmp_path / "b", made.content)

    assert error.value.message == (
        f"PERENNIAL_SIGNING_KEY_FILE, {keys.folder}/ours.pub: not a private key in PEM that can be "
        "read without a password (perennial keys new makes one)"
    )


def test_where_cryptography_is_not_installed_trust_refuses_and_nothing_else_needs_it(
    made: Any, tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "cryptography":
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    ref = write_bundle(tmp_path / "b", made.content)
    assert _open(ref) == ref.digest

    monkeypatch.setenv(TRUST_VARIABLE, str(keys.folder / "ours.pub"))
    with pytest.raises(InputError, match=r"pip install 'perennial-ml\[signing\]'"):
        _open(ref)
