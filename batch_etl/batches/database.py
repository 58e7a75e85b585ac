"""The databases that a ledger can be in, and what differs between them.

==============  =================================  ==============================================
                SQLite (WAL)                       PostgreSQL
==============  =================================  ==============================================
a transaction   has the only write lock from its   is READ COMMITTED whatever the server's
                beginning                          default: what follows a lock sees what the
                                                   lock's last holder committed
:func:`lock`    is that write lock                 is an advisory lock until the transaction ends
:func:`now`     is this machine's clock            is the server's clock, so that machines whose
                                                   clocks differ agree on when a lease ends
a process that  holds up the others, for 30        is disconnected after ``idle_s``, its
stops within a  seconds each                       transaction undone: its machine may be gone,
transaction                                        and nobody else could pass
==============  =================================  ==============================================

On both, tables are created and altered within transactions.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import sqlite3
import time
from collections.abc import Callable
from typing import Any, cast

import sqlalchemy as sa
import sqlalchemy.event
import sqlalchemy.exc

from batch_etl.batches.errors import LedgerError

_BUSY_S = 30
"""How long SQLite waits for another's transaction."""

_LEAST_IDLE_S = 2.0
"""A shorter pause is that of a busy machine."""


def parsed(url: str) -> sa.URL:
    """Raises ``LedgerError``, which does not repeat the URL: it may hold a password."""
    try:
        return sa.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise LedgerError(
            "the ledger's URL cannot be read; it is like sqlite:////path/ledger.db or "
            "postgresql+psycopg2://user:password@host:5432/database, with special characters of "
            "the password percent-encoded"
        ) from None


def connect(url: sa.URL, *, idle_s: float) -> sa.Engine:
    """Connections to the database, made when they are used.

    Raises ``LedgerError`` for one that is neither SQLite nor PostgreSQL, and ``ImportError``
    without the driver that the URL names.
    """
    match url.get_backend_name():
        case "sqlite":
            return _sqlite(url)
        case "postgresql":
            return _postgresql(url, max(idle_s, _LEAST_IDLE_S))
        case other:
            raise LedgerError(
                f"the ledger at {url.render_as_string(hide_password=True)} cannot be opened: it "
                f"can be in SQLite or PostgreSQL, not in {other}"
            )


def _sqlite(url: sa.URL) -> sa.Engine:
    arguments = {"timeout": _BUSY_S, "isolation_level": None, "check_same_thread": False}
    engine = sa.create_engine(url, connect_args=arguments, hide_parameters=True)
    sqlalchemy.event.listen(engine, "connect", _sqlite_settings)
    sqlalchemy.event.listen(engine, "begin", _sqlite_begin)
    return engine


def _sqlite_settings(connection: Any, _record: Any) -> None:
    for pragma in (f"busy_timeout={_BUSY_S * 1000}", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()
    _write_ahead(connection)


def _write_ahead(connection: Any) -> None:
    """Turn WAL mode on; of two processes that do so in a new file, SQLite lets none wait."""
    until = time.monotonic() + _BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
            return
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > until:
                raise
        time.sleep(0.01)


def _sqlite_begin(connection: sa.Connection) -> None:
    """Take the write lock at once: a transaction that reads first could not be upgraded later."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _postgresql(url: sa.URL, idle_s: float) -> sa.Engine:
    engine = sa.create_engine(
        url, pool_pre_ping=True, isolation_level="READ COMMITTED", hide_parameters=True
    )
    idle_ms = round(idle_s * 1000)

    def settings(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(f"SET idle_in_transaction_session_timeout = {idle_ms}")
        cursor.close()
        connection.commit()

    sqlalchemy.event.listen(engine, "connect", settings)
    return engine


def lock(tx: sa.Connection, name: str) -> None:
    """Wait until no other transaction has the lock of this name, and keep it until the end."""
    if tx.dialect.name == "postgresql":
        digest = hashlib.sha256(f"batch_etl ledger: {name}".encode()).digest()
        key = int.from_bytes(digest[:8], signed=True)
        tx.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))


def now(tx: sa.Connection, clock: Callable[[], dt.datetime]) -> dt.datetime:
    """The time by which leases end; ``clock`` is this machine's."""
    if tx.dialect.name == "postgresql":
        told: dt.datetime = tx.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
        return told.astimezone(dt.UTC)
    return clock()


def plain(error: sqlalchemy.exc.SQLAlchemyError) -> str:
    """What the database said, in one line, without statement and values."""
    return str(cast("object", getattr(error, "orig", None)) or error).strip().splitlines()[0]
