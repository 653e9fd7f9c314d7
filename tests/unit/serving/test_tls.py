"""TLS: which files are taken, what a real client then gets, and a renewal under way."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from perennial.contracts.errors import InputError
from perennial.serving import run
from perennial.serving import tls as serving_tls
from perennial.serving.tls import Tls
from tests.certificates import HANDSHAKE, client_hello, make_certificate

Kind = Literal["ECDSA", "RSA"]


LOOPS = [run._Loop, asyncio.SelectorEventLoop]
"""uvloop's, which the server runs on, and asyncio's own."""


class _HangUp(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


@contextmanager
def _answering(
    tls: Tls, loop: Callable[[], asyncio.AbstractEventLoop] = run._Loop
) -> Iterator[int]:
    """A server that shakes hands and hangs up, on a loop of its own; yields its port."""
    listening = socket.create_server(("127.0.0.1", 0))
    ends = threading.Event()

    async def answer() -> None:
        running = asyncio.get_running_loop()
        server = await running.create_server(_HangUp, sock=listening, ssl=tls.context)
        await running.run_in_executor(None, ends.wait)
        server.close()

    def run_loop() -> None:
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(answer())

    thread = threading.Thread(target=run_loop, daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        ends.set()
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


def test_a_key_that_goes_while_it_is_read_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = make_certificate(tmp_path, "server")
    renewed, new_key = make_certificate(tmp_path, "renewed")
    served = Tls(certificate, key)
    load = ssl.SSLContext.load_cert_chain

    def exchanged(context: ssl.SSLContext, *files: Any) -> None:
        key.unlink()
        load(context, *files)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(ssl.SSLContext, "load_cert_chain", exchanged)
        key.touch()
        served.look()
    (told,) = caplog.messages
    assert told.startswith(f"--key: {certificate} and {key} can't be used")
    assert told.endswith("; the certificate read before stays in use")
    renewed.replace(certificate)
    new_key.replace(key)
    served.look()
    with _answering(served) as port:
        assert _shake(port, certificate)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(("kind", "other"), [("ECDSA", "RSA"), ("RSA", "ECDSA")])
def test_a_certificate_renewed_with_another_kind_of_key_is_all_that_is_served(
    tmp_path: Path, kind: Kind, other: Kind, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    certificate, key = make_certificate(tmp_path, "server", kind=kind)
    renewed, new_key = make_certificate(tmp_path, "renewed", kind=other)
    tls = Tls(certificate, key)
    with _answering(tls, loop) as port:
        assert _shown(port) == _der(certificate)
        renewed.replace(certificate)
        new_key.replace(key)
        tls.look()
        for name in ("localhost", None):  # who connects to an address sends no name
            for most in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                assert _shown(port, name, most) == _der(certificate)
        with pytest.raises((ssl.SSLError, OSError)):
            _shown(port, most=ssl.TLSVersion.TLSv1_2, ciphers=f"ECDHE+{_AUTHENTICATION[kind]}")


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("most", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_that_asks_for_a_name_that_is_not_ascii_is_answered_as_any_other(
    tmp_path: Path, most: ssl.TLSVersion, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    certificate, key = make_certificate(tmp_path, "server")

    with _answering(Tls(certificate, key), loop) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            client.sendall(client_hello("l\xfccalhost".encode("latin-1"), most))
            assert client.recv(1) == HANDSHAKE  # not an alert, nor the end
        assert _shown(port) == _der(certificate)


_AUTHENTICATION = {"ECDSA": "aECDSA", "RSA": "aRSA"}


def _der(certificate: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificate.read_text())


def _shown(
    port: int,
    name: str | None = "localhost",
    most: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    ciphers: str = "DEFAULT",
) -> bytes | None:
    """The certificate that a client gets, who would take any."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = most
    context.set_ciphers(ciphers)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname=name) as secure,
    ):
        return secure.getpeercert(binary_form=True)


@pytest.mark.parametrize("kind", ["ECDSA", "RSA"])
def test_of_a_certificate_that_ends_soon_and_of_one_that_has_ended_the_log_warns_once(
    tmp_path: Path, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = make_certificate(tmp_path, "server", kind=kind)
    tls = Tls(certificate, key)
    end = tls.not_after
    assert end is not None
    assert abs(end - datetime.now(UTC) - timedelta(days=365)) < timedelta(minutes=10)
    for now in (end - timedelta(days=15), end - timedelta(days=13), end - timedelta(days=1)):
        tls.warn(now)
    for hours in (0, 1):
        tls.warn(end + timedelta(hours=hours))
    at = f"{end:%Y-%m-%d %H:%M:%S} UTC; renew it: clients refuse it from then on"
    assert caplog.messages == [
        f"{certificate}: the certificate ends at {at}",
        f"{certificate}: the certificate ended at {at}",
    ]


def test_a_server_says_when_its_certificate_ends_also_of_one_that_has_and_of_a_renewed_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_tls, "LOOK_EVERY_SECONDS", 0.01)
    certificate, key = make_certificate(tmp_path, "server", days=-2)
    renewed, new_key = make_certificate(tmp_path, "renewed", kind="RSA")
    tls = Tls(certificate, key)
    ends: list[float] = []

    def told(end: datetime | None) -> None:
        assert end is not None
        ends.append((end - datetime.now(UTC)) / timedelta(days=1))
        if len(ends) == 1:
            renewed.replace(certificate)
            new_key.replace(key)
        if ends[-1] > 0:
            following.cancel()

    async def follow() -> None:
        nonlocal following
        following = asyncio.ensure_future(tls.follow(told))
        await asyncio.wait([following], timeout=60)

    following: asyncio.Future[None]
    asyncio.run(follow())
    assert [round(ends[0]), round(ends[-1])] == [-2, 365]
    assert "the certificate ended at" in caplog.messages[0]


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
