"""A throw-away PostgreSQL server for tests, from the packages of the system."""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

_START_SECONDS = 240


def binaries() -> Path | None:
    """The folder of initdb and pg_ctl; None where PostgreSQL's server is not installed."""
    found = [Path(p).parent for p in [shutil.which("pg_ctl")] if p]
    found += sorted(p.parent for p in Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    return next((p.resolve() for p in reversed(found) if (p / "initdb").exists()), None)


class Server:
    """A server with a socket in its own folder, where everybody is trusted, and at a loopback
    ``port``, if it is given one, where passwords are asked for.

    PostgreSQL refuses to run as root, so root gives the folder to an unprivileged user.
    """

    def __init__(self, home: Path, port: int | None = None) -> None:
        self._home = home
        self._user = _unprivileged() if os.geteuid() == 0 else None
        self.owner = self._user or getpass.getuser()
        self._listens = "" if port is None else "127.0.0.1"
        self.port = port or 5432
        if self._user:
            shutil.chown(home, self._user)
        self._run("initdb", "-D", self._data, "-A", "trust", "-U", self.owner, "--no-sync", "-E",
                  "UTF8", "--locale=C")  # fmt: skip
        rules = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        (home / "data" / "pg_hba.conf").write_text(rules)

    @property
    def url(self) -> str:
        """Its maintenance database, as a superuser."""
        return f"postgresql+psycopg://{self.owner}@/postgres?host={self._home}&port={self.port}"

    def start(self) -> None:
        options = (
            f"-k {self._home} -p {self.port} -c listen_addresses='{self._listens}' "
            "-c fsync=off -c max_connections=200"
        )
        self._run("pg_ctl", "start", "-D", self._data, "-w", "-t", str(_START_SECONDS),
                  "-l", str(self._home / "log"), "-o", options)  # fmt: skip

    def stop(self) -> None:
        """End at once, in the middle of whatever is under way."""
        self._run("pg_ctl", "stop", "-D", self._data, "-m", "immediate")

    @property
    def _data(self) -> str:
        return str(self._home / "data")

    def _run(self, tool: str, *arguments: str) -> None:
        tools = binaries()
        assert tools is not None
        environment = {**os.environ, "PGPORT": str(self.port)}
        subprocess.run(
            [str(tools / tool), *arguments], user=self._user, cwd=self._home, env=environment,
            check=True, stdout=subprocess.DEVNULL, timeout=_START_SECONDS,
        )  # fmt: skip


@contextmanager
def running(port: int | None = None) -> Iterator[Server]:
    """A server that may be stopped and started again."""
    home = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        server = Server(home, port)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def server() -> Iterator[str]:
    """Run a server. Yields the URL of its maintenance database."""
    with running() as found:
        yield found.url


@contextmanager
def database(maintenance_url: str, name: str) -> Iterator[str]:
    """A new, empty database on the server, dropped afterwards. Yields its URL."""
    engine = sa.create_engine(
        maintenance_url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool
    )  # the server may be another one in the end
    with engine.connect() as connection:
        connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
    yield sa.make_url(maintenance_url).set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.exec_driver_sql(f'DROP DATABASE "{name}" WITH (FORCE)')


def _unprivileged() -> str:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise RuntimeError("no unprivileged user to run PostgreSQL as")
