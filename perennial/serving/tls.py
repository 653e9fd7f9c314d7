"""TLS by two files: TLS 1.2 or newer, and a renewed certificate is taken up without a restart."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path

from perennial.contracts.errors import InputError, Problem
from perennial.stores.stamps import Stamp, stamp_or_none

log = logging.getLogger(__name__)

LOOK_EVERY_SECONDS = 10.0


class Tls:
    """A server's certificate and key, both PEM. ``context`` is what connections are made with.

    Raises InputError when a file can't be read or is none, when the key is another certificate's,
    or when it asks for a password.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = certificate, key
        self._stamps = self._seen()
        self.context = _context(*self._files)

    async def follow(self) -> None:
        """Look at the files from time to time, for ever; changed ones are for new connections.
        Files that are wrong are told in the log, once, and the old ones stay."""
        while True:
            await asyncio.sleep(LOOK_EVERY_SECONDS)
            self.look()

    def look(self) -> None:
        """Take up the files if they have changed."""
        now = self._seen()
        if now == self._stamps:
            return
        self._stamps = now
        try:
            _context(*self._files)  # whether they fit each other, before anything is touched
            self.context.load_cert_chain(*self._files, password=_no_password)
        except (InputError, OSError, ValueError) as error:  # they may change under our hands
            log.error("%s; the certificate read before stays in use", error)
            return
        log.info("%s: read again", self._files[0])

    def _seen(self) -> list[Stamp | None]:
        return [stamp_or_none(path) for path in self._files]


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    for option, path, begin in (
        ("--certificate", certificate, b"-----BEGIN CERTIFICATE-----"),
        ("--key", key, b"PRIVATE KEY-----"),
    ):
        try:
            found = path.read_bytes()
        except OSError as error:
            what = f"{path} can't be read: {error.strerror}"
            raise InputError(Problem(option, what)) from None
        if begin not in found:
            raise InputError(Problem(option, f"{path} has none in PEM (-----BEGIN …)"))
    try:
        context.load_cert_chain(certificate, key, _no_password)
    except (ssl.SSLError, ValueError) as error:  # OpenSSL's text is codes, and may quote the file
        reason = getattr(error, "reason", None)
        if reason == "KEY_VALUES_MISMATCH":
            what, fix = f"{key} is not the key of {certificate}", "name the key it was made with"
        elif isinstance(error, _PasswordAskedError):
            what, fix = f"{key} asks for a password", "openssl pkey -in OLD -out NEW takes it off"
        else:
            what = f"{certificate} and {key} can't be used"
            fix = f"openssl says {reason or 'no more'}; look at both with openssl x509 and pkey"
        raise InputError(Problem("--key", what, fix)) from None
    return context


class _PasswordAskedError(ValueError):
    pass


def _no_password() -> str:
    """A server has nobody to ask: OpenSSL would wait at the terminal."""
    raise _PasswordAskedError("the key asks for a password")
