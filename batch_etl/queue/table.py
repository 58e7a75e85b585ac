"""The durable queue: items wait in a table until a drain takes all that wait.

    enqueue    one transaction: the delivery is noted with its key, and all its items wait
    drain      one transaction: the drain is noted, and every item that waits becomes its own
    open       drains whose rows have not been seen in the table yet
    claim      the right to ask for a drain's run, for a while
    loaded     their rows are in the table

An item is in one drain, for ever: ``drain`` of its row goes from null to a key once, in the
transaction that makes the drain, before anybody is told of it. Whoever dies before the run is asked
for leaves a drain that is open, and the next look at the queue finds it. Of several that look at
once one makes the drain (the others find nothing waiting), and one at a time may ask for its run.
Nothing is remembered outside of these tables.

The clock is the database server's where it has one. Reading takes short transactions, each of a
page of items: SQLite has one writer, and a reader of a million items must not keep it out.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
import sqlalchemy.exc

from batch_etl.batches import database
from batch_etl.batches.errors import LedgerError
from batch_etl.errors import QueueError, SourceError
from batch_etl.queue.delivery import Block, Delivery, decoded
from batch_etl.queue.tables import BLOCKS, DELIVERIES, DRAINS, ITEMS, prepare
from batch_etl.sources.source import OnDuplicate

WAITING = "waiting"
"""In the place of a drain's key: what waits, to look at without draining it."""

_ITEMS_PER_PAGE = 2_000
_PAGE_BYTES = 8 * 2**20
_MOST_NAMED = 3
_IDLE_S = 120.0


def utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True)
class Enqueued:
    """What became of one delivery."""

    origin: str
    items: int
    passed_over: int
    """Items whose id waited already, and was kept."""
    replaced: int
    """Items that waited, and gave way to one of the same id."""
    already: dt.datetime | None = None
    """When the same delivery had been enqueued before: nothing was done now."""


@dataclass(frozen=True)
class Drain:
    """One drain: the items that were taken together; ``key`` is its partition."""

    key: str
    items: int
    drained_at: dt.datetime
    asked_at: dt.datetime | None
    loaded_at: dt.datetime | None


@dataclass(frozen=True)
class Waiting:
    """How many items wait, and since when the oldest does."""

    items: int
    oldest_at: dt.datetime | None
    now: dt.datetime

    @property
    def age_s(self) -> float:
        return (self.now - self.oldest_at).total_seconds() if self.oldest_at else 0.0

    def is_due(self, count: int | None, age_s: float | None) -> bool:
        """Whether a drain is due that shall be made at this count or this age."""
        if not self.items:
            return False
        return (count is not None and self.items >= count) or (
            age_s is not None and self.age_s >= age_s
        )


class Queue:
    """The queue at an SQLAlchemy URL, of SQLite or PostgreSQL; made where it is not there yet.

    Raises ``QueueError``, which never shows the URL's password. ``clock`` tells the time where the
    database's server has none of its own (SQLite).
    """

    def __init__(self, url: str, *, clock: Callable[[], dt.datetime] = utc_now) -> None:
        self._clock = clock
        try:
            parsed = database.parsed(url)
            self.place = parsed.render_as_string(hide_password=True)
            self._engine = database.connect(parsed, idle_s=_IDLE_S)
        except LedgerError as error:
            raise QueueError(str(error).replace("the ledger", "the queue")) from None
        except ImportError as error:
            raise QueueError(f"the queue cannot be opened: {error}; install the driver") from None
        try:
            with self._begin() as tx:
                prepare(tx)
        except BaseException:
            self._engine.dispose()
            raise

    def close(self) -> None:
        self._engine.dispose()

    # enqueue ------------------------------------------------------------------------------------

    def enqueue(
        self,
        pipeline: str,
        deliveries: Sequence[Delivery],
        *,
        id_name: str,
        on_duplicate: OnDuplicate = "refuse",
    ) -> list[Enqueued]:
        """Have all items of these deliveries wait, or none.

        A delivery that is here already, by its key, is passed over. Raises ``QueueError`` for a key
        that stands for other content, and for an id that waits already where that is refused.
        """
        with self._begin() as tx:
            database.lock(tx, f"queue {pipeline}")
            now = database.now(tx, self._clock)
            arrival = _Arrival(tx, pipeline, id_name, on_duplicate, now)
            return [arrival.take(delivery) for delivery in deliveries]

    def waiting(self, pipeline: str) -> Waiting:
        with self._begin() as tx:
            return _waiting(tx, pipeline, database.now(tx, self._clock))

    def pipelines(self) -> list[str]:
        """All for which something was enqueued, in alphabetical order."""
        query = sa.select(DELIVERIES.c.pipeline).distinct().order_by(DELIVERIES.c.pipeline)
        with self._begin() as tx:
            return list(tx.execute(query).scalars())

    # drains -------------------------------------------------------------------------------------

    def drain(
        self, pipeline: str, *, count: int | None = None, age_s: float | None = 0.0
    ) -> Drain | None:
        """Make a drain of all that waits, if a drain is due; by default if anything waits."""
        with self._begin() as tx:
            database.lock(tx, f"queue {pipeline}")
            now = database.now(tx, self._clock)
            if not _waiting(tx, pipeline, now).is_due(count, age_s):
                return None
            mine = DRAINS.c.pipeline == pipeline
            last = tx.execute(sa.select(sa.func.max(DRAINS.c.number)).where(mine)).scalar() or 0
            key = f"{now:%Y%m%dT%H%M%S}-{last + 1:04d}"
            taken = tx.execute(
                ITEMS.update()
                .where(ITEMS.c.pipeline == pipeline, ITEMS.c.drain.is_(None))
                .values(drain=key)
            ).rowcount
            values = {"pipeline": pipeline, "key": key, "number": last + 1, "items": taken}
            tx.execute(DRAINS.insert().values(**values, drained_at=now))
        return Drain(key, taken, now, None, None)

    def drains(self, pipeline: str, limit: int | None = None) -> list[Drain]:
        """The pipeline's drains, newest first."""
        query = sa.select(DRAINS).where(DRAINS.c.pipeline == pipeline)
        return self._drains(query.order_by(DRAINS.c.number.desc()).limit(limit))

    def open_drains(self, pipeline: str) -> list[Drain]:
        """Those whose rows have not been seen in the table yet, oldest first."""
        query = sa.select(DRAINS).where(DRAINS.c.pipeline == pipeline, DRAINS.c.loaded_at.is_(None))
        return self._drains(query.order_by(DRAINS.c.number))

    def _drains(self, query: Any) -> list[Drain]:
        with self._begin() as tx:
            return [
                Drain(row.key, row.items, row.drained_at, row.asked_at, row.loaded_at)
                for row in tx.execute(query)
            ]

    def claim(self, pipeline: str, key: str, *, lost_after_s: float) -> bool:
        """Whether the caller may ask for the drain's run now; nobody else may for a while."""
        with self._begin() as tx:
            now = database.now(tx, self._clock)
            lost = DRAINS.c.asked_at <= now - dt.timedelta(seconds=lost_after_s)
            claimed = tx.execute(
                DRAINS.update()
                .where(DRAINS.c.pipeline == pipeline, DRAINS.c.key == key)
                .where(DRAINS.c.asked_at.is_(None) | lost, DRAINS.c.loaded_at.is_(None))
                .values(asked_at=now)
            )
        return claimed.rowcount == 1

    def loaded(self, pipeline: str, keys: Sequence[str]) -> None:
        """Note that these drains' rows are in the table."""
        if not keys:
            return
        with self._begin() as tx:
            tx.execute(
                DRAINS.update()
                .where(DRAINS.c.pipeline == pipeline, DRAINS.c.key.in_(keys))
                .where(DRAINS.c.loaded_at.is_(None))
                .values(loaded_at=database.now(tx, self._clock))
            )

    def items_of(self, pipeline: str) -> Items:
        """The pipeline's items, for a source to read."""
        return Items(self, pipeline)

    @contextmanager
    def begin(self) -> Generator[sa.Connection]:
        """One transaction on the queue's tables."""
        with self._begin() as tx:
            yield tx

    @contextmanager
    def _begin(self) -> Generator[sa.Connection]:
        try:
            with self._engine.begin() as tx:
                yield tx
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise QueueError(
                f"the queue at {self.place} could not be used: {database.plain(error)}"
            ) from error


def _waiting(tx: sa.Connection, pipeline: str, now: dt.datetime) -> Waiting:
    found = tx.execute(
        sa.select(sa.func.count(), sa.func.min(ITEMS.c.enqueued_at)).where(
            ITEMS.c.pipeline == pipeline, ITEMS.c.drain.is_(None)
        )
    ).one()
    return Waiting(found[0], found[1], now)


@dataclass(frozen=True)
class _Arrival:
    """The taking in of deliveries, within one transaction."""

    tx: sa.Connection
    pipeline: str
    id_name: str
    on_duplicate: OnDuplicate
    now: dt.datetime

    def take(self, delivery: Delivery) -> Enqueued:
        before = self._before(delivery)
        if before is not None:
            return Enqueued(delivery.origin, delivery.items, 0, 0, already=before)
        identity = uuid.uuid4().hex
        values = {
            "id": identity,
            "pipeline": self.pipeline,
            "key": delivery.key or identity,
            "digest": delivery.digest,
            "origin": delivery.origin,
            "items": delivery.items,
            "passed_over": 0,
            "enqueued_at": self.now,
        }
        self.tx.execute(DELIVERIES.insert().values(values))
        passed_over = replaced = 0
        for block in delivery.blocks():
            kept, gone = self._block(identity, block, delivery.origin)
            passed_over += kept
            replaced += gone
        mine = DELIVERIES.c.id == identity
        self.tx.execute(DELIVERIES.update().where(mine).values(passed_over=passed_over))
        return Enqueued(delivery.origin, delivery.items - passed_over, passed_over, replaced)

    def _before(self, delivery: Delivery) -> dt.datetime | None:
        """When the same delivery was taken, if it was."""
        if delivery.key is None:
            return None
        same = sa.select(DELIVERIES).where(
            DELIVERIES.c.pipeline == self.pipeline, DELIVERIES.c.key == delivery.key
        )
        row = self.tx.execute(same).first()
        if row is None:
            return None
        if row.digest != delivery.digest:
            raise QueueError(
                f"{delivery.origin}: the key {delivery.key!r} stands for other content, that of "
                f"{row.origin}, enqueued at {row.enqueued_at:%Y-%m-%d %H:%M:%S} UTC; give another"
            )
        return row.enqueued_at

    def _block(self, delivery: str, block: Block, origin: str) -> tuple[int, int]:
        """How many of its items were passed over, and how many replaced others."""
        waiting = self._waiting(block.ids)
        if waiting and self.on_duplicate == "refuse":
            raise self._refused(origin, list(waiting))
        replaced = 0
        pairs = list(zip(block.ids, block.rows, strict=True))
        if self.on_duplicate == "last":
            replaced = self._remove(list(waiting))
        else:
            pairs = [(name, row) for name, row in pairs if name not in waiting]
            waiting = {}
        if pairs:
            self._insert(delivery, block, pairs, waiting)
        return len(block.ids) - len(pairs), replaced

    def _insert(
        self,
        delivery: str,
        block: Block,
        pairs: Sequence[tuple[str, int]],
        since: dict[str, dt.datetime],
    ) -> None:
        """One that replaces another has waited since that one came."""
        size = len(block.data)
        values = {"delivery": delivery, "kind": block.kind, "size_bytes": size, "data": block.data}
        number = self.tx.execute(BLOCKS.insert().values(values)).inserted_primary_key
        assert number is not None  # noqa: S101 - a single insert has one
        rows = [
            {
                "pipeline": self.pipeline,
                "item_id": name,
                "block": number[0],
                "row": row,
                "enqueued_at": since.get(name, self.now),
            }
            for name, row in pairs
        ]
        self.tx.execute(ITEMS.insert(), rows)

    def _waiting(self, ids: Sequence[str]) -> dict[str, dt.datetime]:
        """Those of these ids that wait already, and since when."""
        found = self.tx.execute(
            sa.select(ITEMS.c.item_id, ITEMS.c.enqueued_at).where(
                ITEMS.c.pipeline == self.pipeline,
                ITEMS.c.drain.is_(None),
                ITEMS.c.item_id.in_(ids),
            )
        )
        return {row.item_id: row.enqueued_at for row in found}

    def _remove(self, ids: Sequence[str]) -> int:
        if not ids:
            return 0
        mine = ITEMS.delete().where(ITEMS.c.pipeline == self.pipeline, ITEMS.c.drain.is_(None))
        return self.tx.execute(mine.where(ITEMS.c.item_id.in_(ids))).rowcount

    def _refused(self, origin: str, ids: Sequence[str]) -> QueueError:
        named = ", ".join(map(repr, ids[:_MOST_NAMED])) + (" ..." if len(ids) > _MOST_NAMED else "")
        return QueueError(
            f"{origin}: items with the {self.id_name} {named} wait in the queue of "
            f"{self.pipeline!r} already; nothing was enqueued. Drain first, or set "
            "source.on_duplicate to first or last"
        )


@dataclass(frozen=True)
class Items:
    """One pipeline's items, as ``sources.queue.Queued`` wants them."""

    queue: Queue
    pipeline: str

    def _mine(self, drain: str) -> Any:
        """SQL: the drain's items; those that wait are drained by nobody."""
        drained = ITEMS.c.drain.is_(None) if drain == WAITING else ITEMS.c.drain == drain
        return (ITEMS.c.pipeline == self.pipeline) & drained

    def kinds(self, drain: str) -> list[str]:
        query = (
            sa.select(BLOCKS.c.kind)
            .join(ITEMS, ITEMS.c.block == BLOCKS.c.id)
            .where(self._mine(drain))
            .group_by(BLOCKS.c.kind)
            .order_by(sa.func.min(ITEMS.c.id))
        )
        with self.queue.begin() as tx:
            found = list(tx.execute(query).scalars())
        if not found:
            raise SourceError(
                f"the queue at {self.queue.place} has no drain {drain!r} of pipeline "
                f"{self.pipeline!r}; `batch-etl queue {self.pipeline}` shows those that there are"
            )
        return found

    def batches(self, drain: str, kind: str) -> Iterator[pa.RecordBatch]:
        after = 0
        while page := self._page(drain, kind, after):
            after = page[-1].id
            for blocks in _bounded(page):
                yield from self._read(blocks)

    def _page(self, drain: str, kind: str, after: int) -> list[Any]:
        query = (
            sa.select(ITEMS.c.id, ITEMS.c.block, ITEMS.c.row, BLOCKS.c.size_bytes)
            .join(BLOCKS, BLOCKS.c.id == ITEMS.c.block)
            .where(self._mine(drain))
            .where(BLOCKS.c.kind == kind, ITEMS.c.id > after)
            .order_by(ITEMS.c.id)
            .limit(_ITEMS_PER_PAGE)
        )
        with self.queue.begin() as tx:
            return list(tx.execute(query))

    def _read(self, rows: Sequence[Any]) -> Iterator[pa.RecordBatch]:
        wanted = sorted({row.block for row in rows})
        with self.queue.begin() as tx:
            query = sa.select(BLOCKS.c.id, BLOCKS.c.data).where(BLOCKS.c.id.in_(wanted))
            data = {row.id: row.data for row in tx.execute(query)}
        batches = [
            decoded(data[block]).take(pa.array([row.row for row in own]))
            for block, own in groupby(rows, key=lambda row: row.block)
        ]
        table = pa.Table.from_batches(batches).combine_chunks()
        yield from table.to_batches()


def _bounded(page: Sequence[Any]) -> Iterator[list[Any]]:
    """A page's rows in runs whose blocks together are not too large (or are one block)."""
    run: list[Any] = []
    size_bytes, last = 0, None
    for row in page:
        if row.block != last:
            if run and size_bytes + row.size_bytes > _PAGE_BYTES:
                yield run
                run, size_bytes = [], 0
            size_bytes += row.size_bytes
            last = row.block
        run.append(row)
    yield run
