"""Who may ask for what: bearer tokens with roles, and who may ask where there are none.

Without tokens the server answers its own machine only. Even there a page in a browser could ask in
its user's name: by another site's form, or by a name of its own that it makes point here (DNS
rebinding). So a request must then be addressed to this machine by its own name, and nothing may be
sent to it from another site's page.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from perennial.contracts.errors import InputError, Problem
from perennial.serving.replies import Refusal, Scope
from perennial.serving.requests import Headers
from perennial.stores.stamps import stamp
from perennial.stores.tokens import Role, Token, read_tokens

log = logging.getLogger(__name__)

_OPEN = frozenset({"/v2/health/live", "/v2/health/ready"})
_LOOK_EVERY_SECONDS = 1.0
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def role_for(path: str) -> Role | None:
    """The role that a path asks for; None: nobody needs to say who they are.

    What is not named here belongs to admin, so that a new path is closed until it is given away.
    """
    if path in _OPEN:
        return None
    first, *rest = path.removeprefix("/").split("/")
    if first == "models":
        return "label" if rest[1:] == ["labels"] else "predict"
    return "predict" if first == "v2" else "admin"


def must_be_loopback(host: str) -> None:
    """Raises InputError when a server without tokens would answer other machines at ``host``."""
    if is_loopback(host):
        return
    what = f"{host!r} can be reached by others, and there are no tokens to tell them apart"
    fix = "perennial tokens add NAME --role predict makes one; or serve at 127.0.0.1"
    raise InputError(Problem("--host", what, fix))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address, or localhost."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


@dataclass(frozen=True, slots=True)
class _Known:
    token: Token
    digest: bytes


class Access:
    """Checks requests against a file of tokens, or, without one, that they come from this machine.

    The file is looked at once a second at most, and read again when it has changed. A new one that
    can't be read is told in the log, once, and the old tokens stay valid.

    Raises InputError when the file can't be read at the start.
    """

    def __init__(self, tokens: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = tokens
        self._clock = clock
        self._known: tuple[_Known, ...] = ()
        self._next_look = clock() + _LOOK_EVERY_SECONDS
        self._gone = False
        if tokens is not None:
            found, self._stamp = read_tokens(tokens)
            self._take(found)

    def check(self, scope: Scope, headers: Headers) -> str:
        """The name of who asks; "" where no token is needed. Costs a few microseconds.

        Raises Refusal: 401 without a valid token, 403 when its roles don't allow it, or, without a
        file of tokens, when the request was not meant for this machine by its user.
        """
        if self._path is None:
            _check_local(scope, headers)
            return ""
        role = role_for(path_of(scope))
        if role is None:
            return ""
        if self._clock() >= self._next_look:
            self._look()
        given = _token(scope, headers)
        if given is None:
            raise Refusal(401, "no_token", "send a token: 'Authorization: Bearer <token>'")
        token = self._find(given)
        if token is None:
            raise Refusal(401, "unknown_token", "the token is not valid, or not any more")
        if role not in token.roles and "admin" not in token.roles:
            has = " and ".join(token.roles)
            what = f"this needs the role {role}; the token of {token.name!r} has {has}"
            raise Refusal(403, "missing_role", what)
        return token.name

    def _find(self, given: bytes) -> Token | None:
        """Takes equally long whichever it is, so that time tells nothing."""
        asked = hashlib.sha256(given).digest()
        found = None
        for known in self._known:
            if hmac.compare_digest(known.digest, asked):
                found = known.token
        return found

    def _look(self) -> None:
        assert self._path is not None
        self._next_look = self._clock() + _LOOK_EVERY_SECONDS
        try:
            now = stamp(self._path)
        except OSError as error:
            if not self._gone:
                log.error("%s: %s; the tokens read before stay valid", self._path, error.strerror)
            self._gone = True
            return
        self._gone = False
        if now == self._stamp:
            return
        self._stamp = now
        try:
            found, self._stamp = read_tokens(self._path)
        except InputError as error:
            log.error("%s; the tokens read before stay valid", error.message)
            return
        self._take(found)
        log.info("%s: read again, %d tokens", self._path, len(found))

    def _take(self, tokens: tuple[Token, ...]) -> None:
        self._known = tuple(_Known(token, bytes.fromhex(token.sha256)) for token in tokens)


def path_of(scope: Scope) -> str:
    """The path below the address that the service is mounted at, as its routes see it."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(root + "/") else path


def challenge(scope: Scope, headers: Headers) -> tuple[tuple[bytes, bytes], ...]:
    """What a 401 must carry. A browser that opens a page is told to ask for a password, too."""
    bearer = (b"www-authenticate", b'Bearer realm="perennial"')
    if scope["method"] == "GET" and b"text/html" in headers.get(b"accept", b""):
        return bearer, (b"www-authenticate", b'Basic realm="perennial", charset="UTF-8"')
    return (bearer,)


def _token(scope: Scope, headers: Headers) -> bytes | None:
    """The token that a request brings. As a password it counts only where nothing is changed: a
    browser sends a password by itself, also when another site's page asks for it."""
    scheme, _, value = headers.get(b"authorization", b"").partition(b" ")
    value = value.strip()
    if scheme.lower() == b"bearer":
        return value
    if scheme.lower() == b"basic" and scope["method"] in ("GET", "HEAD"):
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except binascii.Error:
            return None
    return None


def _check_local(scope: Scope, headers: Headers) -> None:
    host = headers.get(b"host", b"")
    if not _names_this_machine(host):
        what = "without tokens this server answers to localhost, 127.0.0.1, [::1] and the like only"
        raise Refusal(403, "wrong_host", what)
    origin = headers.get(b"origin")
    if scope["method"] in _SAFE or origin is None:
        return
    if origin.partition(b"://")[2] != host:
        raise Refusal(403, "cross_site", "without tokens other sites' pages can't send anything")


@lru_cache(maxsize=64)
def _names_this_machine(given: bytes) -> bool:
    """Whether a Host header is this machine's own name or address, with a port or without. Only a
    name can be made to point here by others, so every loopback address is."""
    host = given.decode("latin-1")
    try:
        parts = urlsplit(f"//{host}")
        own = parts.netloc == host and "@" not in host
        return own and is_loopback(parts.hostname or "")
    except ValueError:
        return False
