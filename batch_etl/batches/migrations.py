"""The ledger's schema, one numbered step after the other: version n is what step n leaves behind.

Opening a ledger runs the steps that it lacks, in one transaction and under a lock: of several
processes that open it at once, one does it and the others find it done, and a process that dies
half way leaves the ledger as it was. A ledger newer than the program is refused.

A step that has been released is frozen: it says in full what its version was, and shares nothing
with ``tables.py``, which is always the newest. To change the schema, append a step to
``MIGRATIONS``, change ``tables.py`` to what it leaves behind (a test compares the two), and keep
dumps of the version before for the tests (``batch_etl_tests/batches/ledgers``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

from batch_etl.batches import database
from batch_etl.batches.errors import LedgerError

Migration = Callable[[sa.Connection], None]

log = logging.getLogger("batch_etl.ledger")

_VERSION = sa.Table("schema_version", sa.MetaData(), sa.Column("version", sa.Integer))


def _version_1(tx: sa.Connection) -> None:
    """Transforms, their batches, and what happened to them."""
    meta = sa.MetaData()
    time = sa.DateTime(timezone=True)
    sa.Table("schema_version", meta, sa.Column("version", sa.Integer, nullable=False))
    sa.Table(
        "transforms",
        meta,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("pipeline", sa.Text, nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("records_digest", sa.Text, nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("counts", sa.Text, nullable=False),
        sa.Column("created_at", time, nullable=False),
        sa.Column("updated_at", time, nullable=False),
        sa.Column("lease_owner", sa.Text),
        sa.Column("lease_expires_at", time),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Index("ix_transforms_scope", "pipeline", "endpoint", "status"),
    )
    sa.Table(
        "batches",
        meta,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("transform_id", sa.Text, sa.ForeignKey("transforms.id"), nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("requests", sa.Integer, nullable=False),
        sa.Column("payload_bytes", sa.BigInteger, nullable=False),
        sa.Column("claude_model", sa.Text, nullable=False),
        sa.Column("batch_id", sa.Text, unique=True),
        sa.Column("planned_at", time, nullable=False),
        sa.Column("submitting_at", time),
        sa.Column("submitted_at", time),
        sa.Column("expires_at", time),
        sa.Column("ended_at", time),
        sa.Column("collected_at", time),
        sa.Column("outcomes", sa.Text),
        sa.Column("input_tokens", sa.BigInteger),
        sa.Column("output_tokens", sa.BigInteger),
        sa.Column("cache_read_tokens", sa.BigInteger),
        sa.Column("cache_write_tokens", sa.BigInteger),
        sa.Column("cost_pico_usd", sa.BigInteger),
        sa.Column("standard_pico_usd", sa.BigInteger),
        sa.Index("ix_batches_transform", "transform_id"),
        sa.Index("ix_batches_status", "endpoint", "status"),
    )
    sa.Table(
        "events",
        meta,
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("at", time, nullable=False),
        sa.Column("transform_id", sa.Text, nullable=False),
        sa.Column("batch", sa.Text),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Index("ix_events_transform", "transform_id"),
    )
    meta.create_all(tx, checkfirst=False)  # a table of another program's is not taken for ours
    tx.execute(_VERSION.insert().values(version=1))


def _version_2(tx: sa.Connection) -> None:
    """Money reserved of a budget; batches waited for; batches deleted at the API."""
    time = sa.DateTime(timezone=True)
    columns: list[tuple[str, sa.Column[Any]]] = [
        ("transforms", sa.Column("reserved_pico_usd", sa.BigInteger)),
        ("transforms", sa.Column("reserved_at", time)),
        ("transforms", sa.Column("awaits", sa.Text)),
        ("batches", sa.Column("reserved_pico_usd", sa.BigInteger)),
        ("batches", sa.Column("deleted_at", time)),
    ]
    for table, column in columns:
        kind = column.type.compile(tx.dialect)
        tx.execute(sa.DDL(f"ALTER TABLE {table} ADD COLUMN {column.name} {kind}"))


def _version_3(tx: sa.Connection) -> None:
    """Alerts: each event once for each place that is told of it."""
    meta = sa.MetaData()
    time = sa.DateTime(timezone=True)
    sa.Table(
        "alerts",
        meta,
        sa.Column("event", sa.Text, primary_key=True),
        sa.Column("destination", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("level", sa.Text, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("noted_at", time, nullable=False),
        sa.Column("due_at", time, nullable=False),
        sa.Column("claimed_at", time),
        sa.Column("sent_at", time),
        sa.Index("ix_alerts_status", "destination", "status"),
    )
    meta.create_all(tx, checkfirst=False)


MIGRATIONS: tuple[Migration, ...] = (_version_1, _version_2, _version_3)


def migrate(tx: sa.Connection, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Bring the ledger of this transaction to the newest version.

    Raises ``LedgerError`` where it is newer than the last of ``migrations``.
    """
    database.lock(tx, "schema")
    version = version_of(tx)
    if version > len(migrations):
        place = tx.engine.url.render_as_string(hide_password=True)
        raise LedgerError(
            f"the ledger at {place} has schema version {version}, and this batch_etl "
            f"knows {len(migrations)}; upgrade batch_etl, or point BATCH_ETL_HOME elsewhere"
        )
    for number, migration in enumerate(migrations[version:], version + 1):
        migration(tx)
        tx.execute(_VERSION.update().values(version=number))
        log.debug("the ledger's schema is now version %d", number)


def version_of(tx: sa.Connection) -> int:
    """Of the ledger's schema; 0 where there is none yet."""
    if not sa.inspect(tx).has_table(_VERSION.name):
        return 0
    return tx.execute(sa.select(_VERSION.c.version)).scalar_one()
