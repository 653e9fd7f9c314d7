"""TLS by two files: TLS 1.2 or newer, and a renewed certificate is taken up without a restart.

A context has one certificate for each kind of key, so a renewed one gets a context of its own:
where an RSA certificate follows an ECDSA one, many clients would get the old one for ever.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from perennial.contracts.errors import InputError, Problem
from perennial.stores.stamps import Stamp, stamp_or_none

log = logging.getLogger(__name__)

LOOK_EVERY_SECONDS = 10.0
SOON = timedelta(days=14)
"""How long before its end a certificate is warned of."""
_NO_CHECK_TIME = 0x200000  # OpenSSL's X509_V_FLAG_NO_CHECK_TIME


class _Following(ssl.SSLContext):
    """What an event loop is given for ever: each connection is accepted with the newest context.

    Not by ``sni_callback``: Python first decodes the name that the client asks for, as ASCII, and
    of one that is not it prints a traceback and refuses the connection.
    """

    newest: ssl.SSLContext

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """Called by event loops, asyncio's and uvloop's, once for each connection."""
        return self.newest.wrap_bio(*arguments, **options)


class Tls:
    """A server's certificate and key, both PEM. ``context`` is what an event loop's connections are
    accepted with; each gets the newest certificate, which ends at ``not_after``.

    Raises InputError when a file can't be read or is none, when the key is another certificate's,
    or when it asks for a password.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = certificate, key
        self._stamps = self._seen()
        self.context = _Following(ssl.PROTOCOL_TLS_SERVER)
        self.context.newest = _context(*self._files)
        self.not_after = _not_after(self.context, certificate)
        self._told: tuple[str, datetime | None] = "", None

    async def follow(self, told: Callable[[datetime | None], None]) -> None:
        """Look at the files from time to time, for ever; changed ones are for new connections.
        Files that are wrong are told in the log, once, and the old ones stay. ``told`` gets
        ``not_after``, at once and after each look."""
        while True:
            self.warn(datetime.now(UTC))
            told(self.not_after)
            await asyncio.sleep(LOOK_EVERY_SECONDS)
            self.look()

    def warn(self, now: datetime) -> None:
        """Say in the log, once each, that the certificate ends soon, or has ended."""
        end = self.not_after
        when = "" if end is None or end - now > SOON else "ends" if end > now else "ended"
        if when and (when, end) != self._told:
            what = "%s: the certificate %s at %s; renew it: clients refuse it from then on"
            log.warning(what, self._files[0], when, f"{end:%Y-%m-%d %H:%M:%S} UTC")
        self._told = when, end

    def look(self) -> None:
        """Take up the files if they have changed."""
        now = self._seen()
        if now == self._stamps:
            return
        self._stamps = now
        try:
            newest = _context(*self._files)
        except InputError as error:
            log.error("%s; the certificate read before stays in use", error)
            return
        self.context.newest, self.not_after = newest, _not_after(newest, self._files[0])
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
    except (OSError, ValueError) as error:  # OpenSSL's text is codes, and may quote the file
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


def _not_after(context: ssl.SSLContext, certificate: Path) -> datetime | None:
    """When a context's certificate ends, UTC; None when it is none for a server.

    Python tells it of a certificate that it was shown, not of a file: so here it is shown to a
    client that trusts just this one, at whatever time.
    """
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        trusting.load_verify_locations(certificate)
        trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
        client = trusting.wrap_bio(back, there)
        server = context.wrap_bio(there, back, server_side=True)
        for side in (client, server, client):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
        shown = client.getpeercert() or {}
        return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(shown["notAfter"])), UTC)
    except (OSError, ValueError, KeyError):
        return None


class _PasswordAskedError(ValueError):
    pass


def _no_password() -> str:
    """A server has nobody to ask: OpenSSL would wait at the terminal."""
    raise _PasswordAskedError("the key asks for a password")
