"""Addresses of databases, as SQLAlchemy has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perennial.contracts.errors import InputError, Problem

if TYPE_CHECKING:
    from sqlalchemy import URL


def database_address(url: str, where: str) -> URL | None:
    """An address taken apart; None for what is none. Raises InputError, without repeating it, for a
    port that is no number: libpq's own form for two hosts, which SQLAlchemy doesn't read."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url)
    except ArgumentError:
        return None
    except ValueError:
        what = "the port in its address is no number"
        fix = "write two hosts as postgresql://USER@/DATABASE?host=HOST1:PORT1&host=HOST2:PORT2"
        raise InputError(Problem(where, what, fix)) from None
