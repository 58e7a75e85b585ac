"""The queue's tables, and the numbered steps that make them.

    queue_deliveries   what was enqueued by one call, from one file: all of it or nothing
    queue_blocks       the items' content: Arrow, compressed, up to a few thousand items a row
    queue_items        one row an item: which block it is in, and which drain it is of (null: waits)
    queue_drains       one row a drain: how many items, and how far it is

That an id waits once at most is a unique index over the items that wait, so no program can break
it. A step that has been released is frozen; to change the schema, append one to ``STEPS``. The
names begin with ``queue_``: the tables may share a database with the ledger's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import sqlalchemy as sa

from batch_etl.batches import database
from batch_etl.batches.tables import UtcTime
from batch_etl.errors import QueueError

META = sa.MetaData()

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")

VERSION = sa.Table("queue_version", META, sa.Column("version", sa.Integer, nullable=False))

DELIVERIES = sa.Table(
    "queue_deliveries",
    META,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("pipeline", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),  # the same key is the same delivery
    sa.Column("digest", sa.Text, nullable=False),  # of the content
    sa.Column("origin", sa.Text, nullable=False),  # in words: a file's path
    sa.Column("items", sa.Integer, nullable=False),
    sa.Column("passed_over", sa.Integer, nullable=False),  # their ids waited already
    sa.Column("enqueued_at", UtcTime, nullable=False),
    sa.UniqueConstraint("pipeline", "key"),
)

BLOCKS = sa.Table(
    "queue_blocks",
    META,
    sa.Column("id", _NUMBER, primary_key=True, autoincrement=True),
    sa.Column("delivery", sa.Text, sa.ForeignKey("queue_deliveries.id"), nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.Integer, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)

ITEMS = sa.Table(
    "queue_items",
    META,
    sa.Column("id", _NUMBER, primary_key=True, autoincrement=True),
    sa.Column("pipeline", sa.Text, nullable=False),
    sa.Column("item_id", sa.Text, nullable=False),
    sa.Column("block", _NUMBER, sa.ForeignKey("queue_blocks.id"), nullable=False),
    sa.Column("row", sa.Integer, nullable=False),  # within the block
    sa.Column("enqueued_at", UtcTime, nullable=False),
    sa.Column("drain", sa.Text),
)
sa.Index("ix_queue_items_drain", ITEMS.c.pipeline, ITEMS.c.drain, ITEMS.c.id)
_WAITING = sa.DDL(  # as text: to be asked for as an index, it would load both databases' dialects
    "CREATE UNIQUE INDEX ix_queue_items_waiting ON queue_items (pipeline, item_id) "
    "WHERE drain IS NULL"
)

DRAINS = sa.Table(
    "queue_drains",
    META,
    sa.Column("pipeline", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),  # the partition
    sa.Column("number", sa.Integer, nullable=False),  # 1, 2, 3 within the pipeline
    sa.Column("items", sa.Integer, nullable=False),
    sa.Column("drained_at", UtcTime, nullable=False),
    sa.Column("asked_at", UtcTime),  # when a run was last asked for
    sa.Column("loaded_at", UtcTime),  # when its rows were seen in the table
)


def _version_1(tx: sa.Connection) -> None:
    META.create_all(tx, checkfirst=False)
    tx.execute(_WAITING)
    tx.execute(VERSION.insert().values(version=1))


STEPS: Sequence[Callable[[sa.Connection], None]] = (_version_1,)


def prepare(tx: sa.Connection) -> None:
    """Bring the queue of this transaction's database to the newest version.

    Raises ``QueueError`` where it is newer than this program.
    """
    database.lock(tx, "queue schema")
    known = sa.inspect(tx).has_table(VERSION.name)
    version = tx.execute(sa.select(VERSION.c.version)).scalar_one() if known else 0
    if version > len(STEPS):
        raise QueueError(
            f"the queue has schema version {version}, and this batch_etl knows {len(STEPS)}; "
            "upgrade batch_etl, or point BATCH_ETL_QUEUE elsewhere"
        )
    for number, step in enumerate(STEPS[version:], version + 1):
        step(tx)
        tx.execute(VERSION.update().values(version=number))
