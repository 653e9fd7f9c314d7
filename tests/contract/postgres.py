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


def binaries() -> Path | None:
    """The folder of initdb and pg_ctl; None where PostgreSQL's server is not installed."""
    found = [Path(p).parent for p in [shutil.which("pg_ctl")] if p]
    found += sorted(p.parent for p in Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    return next((p.resolve() for p in reversed(found) if (p / "initdb").exists()), None)


@contextmanager
def server() -> Iterator[str]:
    """Run a server on a socket of its own folder. Yields the URL of its maintenance database.

    PostgreSQL refuses to run as root, so root gives the folder to an unprivileged user.
    """
    tools = binaries()
    assert tools is not None
    user = _unprivileged() if os.geteuid() == 0 else None
    home = Path(tempfile.mkdtemp(prefix="pg-"))
    if user:
        shutil.chown(home, user)
    name = user or getpass.getuser()

    def run(tool: str, *arguments: str) -> None:
        command = [str(tools / tool), *arguments]
        subprocess.run(
            command, user=user, cwd=home, check=True, stdout=subprocess.DEVNULL, timeout=60
        )

    data = str(home / "data")
    try:
        run("initdb", "-D", data, "-A", "trust", "-U", name, "--no-sync", "-E", "UTF8")
        options = f"-k {home} -c listen_addresses='' -c fsync=off -c max_connections=200"
        run("pg_ctl", "start", "-D", data, "-w", "-l", str(home / "log"), "-o", options)
        try:
            yield f"postgresql+psycopg://{name}@/postgres?host={home}"
        finally:
            run("pg_ctl", "stop", "-D", data, "-m", "immediate")
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def database(maintenance_url: str, name: str) -> Iterator[str]:
    """A new, empty database on the server, dropped afterwards. Yields its URL."""
    engine = sa.create_engine(maintenance_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
        yield sa.make_url(maintenance_url).set(database=name).render_as_string(hide_password=False)
        connection.exec_driver_sql(f'DROP DATABASE "{name}" WITH (FORCE)')
    engine.dispose()


def _unprivileged() -> str:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise RuntimeError("no unprivileged user to run PostgreSQL as")
