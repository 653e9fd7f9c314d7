"""TLS: which files are taken, what a real client then gets, and a renewal under way."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from perennial.contracts.errors import InputError
from perennial.serving import run
from perennial.serving import tls as serving_tls
from perennial.serving.tls import Tls
from tests.certificates import make_certificate


@contextmanager
def _answering(tls: Tls) -> Iterator[int]:
    """A server that shakes hands and hangs up; yields its port."""
    listening = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            try:
                plain = listening.accept()[0]
            except OSError:
                return
            try:
                tls.context.wrap_socket(plain, server_side=True).close()
            except (ssl.SSLError, OSError):
                plain.close()

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(60)


def _shake(port: int, certificate: Path, most: ssl.TLSVersion | None = None) -> str | None:
    """The TLS version that a client, who trusts this certificate only, agrees on."""
    context = ssl.create_default_context(cafile=str(certificate))
    if most is not None:
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = most
        context.set_ciphers("ALL:@SECLEVEL=0")
    with (
        socket.create_connection(("127.0.0.1", port), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        return secure.version()


def test_a_client_that_knows_the_certificate_gets_tls_1_3_or_1_2_and_nothing_older(
    tmp_path: Path,
) -> None:
    certificate, key = make_certificate(tmp_path, "server")

    with _answering(Tls(certificate, key)) as port:
        assert _shake(port, certificate) == "TLSv1.3"
        assert _shake(port, certificate, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
        with pytest.raises((ssl.SSLError, OSError)):
            _shake(port, certificate, ssl.TLSVersion.TLSv1_1)


def test_a_renewed_certificate_is_taken_up_and_a_wrong_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = make_certificate(tmp_path, "server")
    renewed, new_key = make_certificate(tmp_path, "renewed")
    tls = Tls(certificate, key)
    first = tmp_path / "first.pem"
    first.write_bytes(certificate.read_bytes())

    with _answering(tls) as port:
        renewed.replace(certificate)  # its key has not come yet
        tls.look()
        assert _shake(port, first)
        (told,) = caplog.messages
        assert told == (
            f"--key: {key} is not the key of {certificate} (name the key it was made with); "
            "the certificate read before stays in use"
        )
        new_key.replace(key)
        tls.look()
        assert _shake(port, certificate)
        with pytest.raises(ssl.SSLCertVerificationError):
            _shake(port, first)
    tls.look()
    assert len(caplog.messages) == 1  # nothing changed, nothing told


def test_a_key_that_is_exchanged_while_it_is_read_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = make_certificate(tmp_path, "server")
    _, locked = make_certificate(tmp_path, "locked", password=b"hidden")
    renewed, new_key = make_certificate(tmp_path, "renewed")
    served = Tls(certificate, key)
    check = serving_tls._context

    def exchanged(*files: Path) -> ssl.SSLContext:
        checked = check(*files)
        locked.replace(key)
        return checked

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(serving_tls, "_context", exchanged)
        key.touch()
        served.look()
    assert caplog.messages == [
        "the key asks for a password; the certificate read before stays in use"
    ]
    renewed.replace(certificate)
    new_key.replace(key)
    served.look()
    with _answering(served) as port:
        assert _shake(port, certificate)


def test_files_that_are_no_certificate_and_key_are_refused_with_the_reason(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "server")
    _, other = make_certificate(tmp_path, "other")
    _, locked = make_certificate(tmp_path, "locked", password=b"hunter2")
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    gone = tmp_path / "gone.pem"

    def refusal(certificate: Path, key: Path) -> str:
        with pytest.raises(InputError) as error:
            Tls(certificate, key)
        return error.value.message

    assert refusal(certificate, other) == (
        f"--key: {other} is not the key of {certificate} (name the key it was made with)"
    )
    assert refusal(gone, key) == f"--certificate: {gone} can't be read: No such file or directory"
    assert refusal(certificate, gone) == f"--key: {gone} can't be read: No such file or directory"
    assert refusal(key, key) == f"--certificate: {key} has none in PEM (-----BEGIN …)"
    assert refusal(certificate, certificate) == (
        f"--key: {certificate} has none in PEM (-----BEGIN …)"
    )
    assert refusal(certificate, locked) == (
        f"--key: {locked} asks for a password (openssl pkey -in OLD -out NEW takes it off)"
    )
    assert refusal(broken, key).startswith(f"--key: {broken} and {key} can't be used (openssl says")


def test_a_handshake_that_never_ends_ends_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "HEADER_SECONDS", 0.3)
    tls = Tls(*make_certificate(tmp_path, "server"))

    async def talk() -> bytes:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=tls.context)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"\x16\x03\x01")  # how a handshake begins
        try:
            async with asyncio.timeout(60):
                return await reader.read()
        finally:
            writer.close()
            server.close()

    with asyncio.Runner(loop_factory=run._Loop) as runner:
        assert runner.run(talk()) == b""  # hung up; TimeoutError if it had stayed
