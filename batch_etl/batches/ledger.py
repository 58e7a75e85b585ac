"""The ledger: which transforms and batches there are, how far each is, and what it cost.

Small tables (``tables.py``) on SQLAlchemy Core: in SQLite by default, in PostgreSQL where a server
is to keep them (``database.py`` says what differs). Everything per request is in Parquet beside it.
Every change of status is one conditional UPDATE in a transaction that also writes the event and
checks that the caller still holds the transform's lease:

    UPDATE batches SET status = after ... WHERE id = ? AND status = before

so two processes cannot both move a row, and a holder that was paused past its lease (its ``fence``
is then too old) can write nothing any more.

Transforms are created one after the other, each with a later time than all before it: whoever
creates one sees every older one, and so of two that ask the same at once only the newer gives way.

The schema is brought up to date on opening (``migrations.py``); a ledger newer than the program is
refused.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
import uuid
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import sqlalchemy as sa
import sqlalchemy.exc

from batch_etl.batches import database, holder, reservations
from batch_etl.batches.budget import Limit, Reservation, Standing
from batch_etl.batches.errors import LeaseLost, LedgerError
from batch_etl.batches.lifecycle import BATCH_MOVES, TRANSFORM_MOVES, check_move
from batch_etl.batches.migrations import MIGRATIONS, Migration, migrate
from batch_etl.batches.pricing import usd
from batch_etl.batches.reservations import Written
from batch_etl.batches.tables import (
    BATCHES,
    EVENTS,
    TRANSFORMS,
    BatchRow,
    TransformRow,
    read_batch,
    read_transform,
)
from batch_etl.effects import effect

__all__ = ["BatchRow", "Lease", "Ledger", "TransformRow"]

log = logging.getLogger("batch_etl.ledger")


def utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True)
class Lease:
    """The right to advance one transform, until it expires or another takes it over."""

    transform_id: str
    owner: str
    fence: int


class Ledger:
    """Opens (and, where needed, creates or migrates) the ledger at ``url``.

    Raises ``LedgerError`` when the database cannot be reached or is newer than this program. The
    password of a URL never shows in an error. A call to a database that fails later raises
    ``LedgerError`` too.

    ``clock`` tells the time where the database's server has none of its own (SQLite).
    """

    def __init__(
        self,
        url: str,
        *,
        lease_s: float = 120.0,
        clock: Callable[[], dt.datetime] = utc_now,
        migrations: Sequence[Migration] = MIGRATIONS,
    ) -> None:
        self._lease = dt.timedelta(seconds=lease_s)
        self._owner = holder.this_process()
        self._clock = clock
        parsed = database.parsed(url)
        self.place = parsed.render_as_string(hide_password=True)
        try:
            self._engine = database.connect(parsed, idle_s=lease_s)
            self._migrate(migrations)
        except ImportError as error:
            raise LedgerError(
                f"the ledger at {self.place} cannot be opened: {error}; install the driver that "
                "the URL names"
            ) from None
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise LedgerError(
                f"the ledger at {self.place} cannot be opened: {database.plain(error)}; "
                "check that the path or server exists and can be written"
            ) from None

    def _migrate(self, migrations: Sequence[Migration]) -> None:
        try:
            with effect("ledger migrated"), self._engine.begin() as tx:
                migrate(tx, migrations)
        except BaseException:
            self._engine.dispose()
            raise

    def close(self) -> None:
        self._engine.dispose()

    # transforms ---------------------------------------------------------------------------------

    def create_transform(
        self,
        *,
        pipeline: str,
        endpoint: str,
        scope: Sequence[str | None],
        fingerprint: str,
        records_digest: str,
        task: Mapping[str, Any],
    ) -> str:
        """A new transform in ``planning``; returns its id."""
        with effect("transform created"), self._begin() as tx:
            now = self._later_than_all(tx)
            identity = f"{now:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
            tx.execute(
                TRANSFORMS.insert().values(
                    id=identity,
                    pipeline=pipeline,
                    endpoint=endpoint,
                    scope=_json(list(scope)),
                    fingerprint=fingerprint,
                    records_digest=records_digest,
                    task=_json(task),
                    status="planning",
                    attempt=1,
                    counts="{}",
                    created_at=now,
                    updated_at=now,
                    fence=0,
                )
            )
            _event(tx, identity, None, "transform created", {"scope": list(scope)}, at=now)
        return identity

    def _later_than_all(self, tx: sa.Connection) -> dt.datetime:
        """Now, or just after the newest transform if the clock has been put back since."""
        database.lock(tx, "transforms")
        newest = tx.execute(sa.select(sa.func.max(TRANSFORMS.c.created_at))).scalar()
        now = self._now(tx)
        return now if newest is None else max(now, newest + dt.timedelta(microseconds=1))

    def transform(self, transform_id: str) -> TransformRow:
        with self._begin() as tx:
            row = tx.execute(sa.select(TRANSFORMS).where(TRANSFORMS.c.id == transform_id)).first()
        if row is None:
            raise LedgerError(f"the ledger at {self.place} has no transform {transform_id!r}")
        return read_transform(row)

    def transforms(
        self,
        *,
        pipeline: str | None = None,
        endpoint: str | None = None,
        statuses: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> list[TransformRow]:
        """Transforms, newest first."""
        query = sa.select(TRANSFORMS).order_by(TRANSFORMS.c.created_at.desc(), TRANSFORMS.c.id)
        if pipeline is not None:
            query = query.where(TRANSFORMS.c.pipeline == pipeline)
        if endpoint is not None:
            query = query.where(TRANSFORMS.c.endpoint == endpoint)
        if statuses is not None:
            query = query.where(TRANSFORMS.c.status.in_(statuses))
        with self._begin() as tx:
            return [read_transform(row) for row in tx.execute(query.limit(limit))]

    def pipelines(self) -> list[str]:
        """All that have a transform, in alphabetical order."""
        query = sa.select(TRANSFORMS.c.pipeline).distinct().order_by(TRANSFORMS.c.pipeline)
        with self._begin() as tx:
            return list(tx.execute(query).scalars())

    def move_transform(
        self,
        lease: Lease,
        before: str,
        after: str,
        *,
        attempt: int | None = None,
        counts: Mapping[str, int] | None = None,
    ) -> None:
        """Change a transform's status; ``LedgerError`` where it is not in ``before``."""
        check_move(TRANSFORM_MOVES, before, after)
        values: dict[str, Any] = {"status": after, "reserved_pico_usd": None, "reserved_at": None}
        if attempt is not None:
            values["attempt"] = attempt
        if counts is not None:
            values["counts"] = _json(counts)
        with effect(f"transform {before} to {after}"), self._held(lease) as (tx, now):
            moved = tx.execute(
                TRANSFORMS.update()
                .where(TRANSFORMS.c.id == lease.transform_id, TRANSFORMS.c.status == before)
                .values(updated_at=now, **values)
            )
            if moved.rowcount != 1:
                raise LedgerError(f"transform {lease.transform_id} is no longer {before}")
            _event(tx, lease.transform_id, None, f"transform {after}", dict(counts or {}), at=now)

    def await_batches(self, lease: Lease, tokens: Sequence[str]) -> None:
        """Note which batches of other transforms hold requests of this one."""
        with effect("batches awaited"), self._held(lease) as (tx, now):
            tx.execute(
                TRANSFORMS.update()
                .where(TRANSFORMS.c.id == lease.transform_id)
                .values(awaits=_json(list(tokens)) if tokens else None, updated_at=now)
            )
            if tokens:
                detail = {"batches": list(tokens)}
                _event(tx, lease.transform_id, None, "batches awaited", detail, at=now)

    # leases -------------------------------------------------------------------------------------

    def acquire(self, transform_id: str) -> Lease | None:
        """Take or renew the lease; None while another process holds it.

        The lease of a process of this machine that is no more need not expire first.
        """
        with effect("lease taken"), self._begin() as tx:
            now = self._now(tx)
            held_by = tx.execute(
                sa.select(TRANSFORMS.c.lease_owner).where(TRANSFORMS.c.id == transform_id)
            ).scalar()
            takable = [self._owner, *([held_by] if held_by and holder.is_gone(held_by) else [])]
            free = sa.or_(
                TRANSFORMS.c.lease_owner.is_(None),
                TRANSFORMS.c.lease_owner.in_(takable),
                TRANSFORMS.c.lease_expires_at < now,
            )
            taken = tx.execute(
                TRANSFORMS.update()
                .where(TRANSFORMS.c.id == transform_id, free)
                .values(
                    lease_owner=self._owner,
                    lease_expires_at=now + self._lease,
                    fence=sa.case(
                        (TRANSFORMS.c.lease_owner == self._owner, TRANSFORMS.c.fence),
                        else_=TRANSFORMS.c.fence + 1,
                    ),
                )
            )
            if taken.rowcount != 1:
                return None
            fence = tx.execute(
                sa.select(TRANSFORMS.c.fence).where(TRANSFORMS.c.id == transform_id)
            ).scalar_one()
        return Lease(transform_id, self._owner, fence)

    def release(self, lease: Lease) -> None:
        """Give the lease back; nothing happens where it was already lost."""
        with effect("lease released"), self._begin() as tx:
            tx.execute(
                TRANSFORMS.update()
                .where(
                    TRANSFORMS.c.id == lease.transform_id,
                    TRANSFORMS.c.lease_owner == lease.owner,
                    TRANSFORMS.c.fence == lease.fence,
                )
                .values(lease_owner=None, lease_expires_at=None)
            )

    def renew(self, lease: Lease) -> None:
        """Push the lease's end into the future. Raises ``LeaseLost``."""
        with effect("lease renewed"), self._held(lease):
            pass

    @contextmanager
    def keeping(self, lease: Lease) -> Generator[None]:
        """Renew the lease from a thread for as long as the body runs, however long a call takes.

        A lease that is lost all the same is noticed by the next write, which raises ``LeaseLost``.
        """
        done = threading.Event()
        thread = threading.Thread(target=self._keep, args=(lease, done), name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    @contextmanager
    def holding(self, transform_id: str) -> Generator[Lease | None]:
        """A transform's lease, renewed for as long as the body runs; None while another has it."""
        lease = self.acquire(transform_id)
        if lease is None:
            yield None
            return
        try:
            with self.keeping(lease):
                yield lease
        finally:
            self.release(lease)

    def _keep(self, lease: Lease, done: threading.Event) -> None:
        while not done.wait(self._lease.total_seconds() / 4):
            try:
                self.renew(lease)
            except LeaseLost:
                return
            except LedgerError as error:
                log.warning("a lease could not be renewed: %s", error)

    # batches ------------------------------------------------------------------------------------

    def add_batch(
        self,
        lease: Lease,
        *,
        token: str,
        endpoint: str,
        attempt: int,
        requests: int,
        payload_bytes: int,
        claude_model: str,
        aware_of: Collection[str] | None = None,
        reservation: Reservation | None = None,
    ) -> list[str]:
        """A planned batch whose manifest is already on disk.

        Where other transforms of the endpoint have batches that are not among ``aware_of`` (None:
        all are), which may hold the same requests, nothing is added and those are returned.
        ``reservation`` is its part of what is reserved for the transform; where it is more than is
        left of that, the rest is reserved with it. Raises ``BudgetExceeded``.
        """
        with effect("batch planned"), self._held(lease) as (tx, now):
            unseen = _unseen(tx, lease.transform_id, endpoint, aware_of)
            if unseen:
                return unseen
            if reservation is not None:
                reservations.move_to_batch(tx, lease.transform_id, endpoint, reservation, now)
            tx.execute(
                BATCHES.insert().values(
                    id=token,
                    transform_id=lease.transform_id,
                    endpoint=endpoint,
                    attempt=attempt,
                    status="planned",
                    requests=requests,
                    payload_bytes=payload_bytes,
                    claude_model=claude_model,
                    planned_at=now,
                    reserved_pico_usd=reservation.pico_usd if reservation else None,
                )
            )
            detail = {"requests": requests, "bytes": payload_bytes, "attempt": attempt}
            _event(tx, lease.transform_id, token, "batch planned", detail, at=now)
        return []

    def move_batch(
        self,
        lease: Lease,
        token: str,
        before: str,
        after: str,
        detail: Mapping[str, Any] | None = None,
        **values: Any,
    ) -> None:
        """Change a batch's status and columns; ``LedgerError`` where it is not in ``before``."""
        check_move(BATCH_MOVES, before, after)
        if isinstance(values.get("outcomes"), dict):
            values["outcomes"] = _json(values["outcomes"])
        with effect(f"batch {before} to {after}"), self._held(lease) as (tx, now):
            moved = tx.execute(
                BATCHES.update()
                .where(BATCHES.c.id == token, BATCHES.c.status == before)
                .values(status=after, **values)
            )
            if moved.rowcount != 1:
                raise LedgerError(f"batch {token} is no longer {before}")
            _event(tx, lease.transform_id, token, f"batch {after}", dict(detail or {}), at=now)

    def batches(
        self,
        *,
        transform_id: str | None = None,
        endpoint: str | None = None,
        statuses: Sequence[str] | None = None,
        ids: Sequence[str] | None = None,
    ) -> list[BatchRow]:
        """Batches, in the order they were planned; ``ids`` are tokens."""
        query = sa.select(BATCHES).order_by(BATCHES.c.planned_at, BATCHES.c.id)
        if ids is not None:
            query = query.where(BATCHES.c.id.in_(list(ids)))
        if transform_id is not None:
            query = query.where(BATCHES.c.transform_id == transform_id)
        if endpoint is not None:
            query = query.where(BATCHES.c.endpoint == endpoint)
        if statuses is not None:
            query = query.where(BATCHES.c.status.in_(statuses))
        with self._begin() as tx:
            return [read_batch(row) for row in tx.execute(query)]

    def to_delete(self, pipeline: str, endpoint: str) -> list[BatchRow]:
        """A pipeline's collected batches that are not noted as deleted at the API."""
        query = (
            sa.select(BATCHES)
            .join(TRANSFORMS, TRANSFORMS.c.id == BATCHES.c.transform_id)
            .where(
                TRANSFORMS.c.pipeline == pipeline,
                BATCHES.c.endpoint == endpoint,
                BATCHES.c.status == "collected",
                BATCHES.c.deleted_at.is_(None),
            )
            .order_by(BATCHES.c.planned_at, BATCHES.c.id)
        )
        with self._begin() as tx:
            return [read_batch(row) for row in tx.execute(query)]

    def mark_deleted(self, lease: Lease, token: str) -> None:
        """Note that a collected batch was deleted at the API."""
        with effect("deletion noted"), self._held(lease) as (tx, now):
            tx.execute(BATCHES.update().where(BATCHES.c.id == token).values(deleted_at=now))
            _event(tx, lease.transform_id, token, "batch deleted at the API", {}, at=now)

    def knows(self, batch_ids: Sequence[str]) -> set[str]:
        """Those of the vendor's batch ids that belong to a batch of this ledger."""
        query = sa.select(BATCHES.c.batch_id).where(BATCHES.c.batch_id.in_(list(batch_ids)))
        with self._begin() as tx:
            return set(tx.execute(query).scalars())

    def note(self, lease: Lease, batch: str | None, event: str, detail: Mapping[str, Any]) -> None:
        """Write an event that changes no status."""
        with effect("event noted"), self._held(lease) as (tx, now):
            _event(tx, lease.transform_id, batch, event, detail, at=now)

    def events(
        self, transform_id: str
    ) -> list[tuple[dt.datetime, str | None, str, dict[str, Any]]]:
        """What happened to a transform, oldest first: time, batch, event, detail."""
        query = sa.select(EVENTS).where(EVENTS.c.transform_id == transform_id)
        with self._begin() as tx:
            return [
                (row.at, row.batch, row.event, msgspec.json.decode(row.detail))
                for row in tx.execute(query.order_by(EVENTS.c.id))
            ]

    # budgets ------------------------------------------------------------------------------------

    def reserve(self, lease: Lease, endpoint: str, reservation: Reservation) -> None:
        """Set money aside for a transform, in place of what it had. Raises ``BudgetExceeded``."""
        with effect("money reserved"), self._held(lease) as (tx, now):
            refused = reservations.reserve(tx, lease.transform_id, endpoint, reservation, now)
            detail = {
                "usd": str(usd(reservation.pico_usd)),
                **({"refused": str(refused)} if refused else {}),
            }
            _event(tx, lease.transform_id, None, "money reserved", detail, at=now)
        if refused is not None:
            raise refused

    def release_reserved(self, lease: Lease) -> None:
        """Give back what is reserved for a transform and in no batch."""
        with effect("reservation released"), self._held(lease) as (tx, _):
            reservations.release(tx, lease.transform_id)

    def standings(
        self, endpoint: str, limits: Sequence[Limit], transform_id: str | None = None
    ) -> list[Standing]:
        """How budgets stand now; one of a run, for this transform (None: for a new one)."""
        with self._begin() as tx:
            return reservations.standings(tx, transform_id, endpoint, limits, self._now(tx))

    def written(self, pipeline: str, endpoint: str, claude_model: str) -> list[Written]:
        """What a pipeline's latest collected batches of a model wrote, newest first."""
        with self._begin() as tx:
            return reservations.written(tx, pipeline, endpoint, claude_model)

    # connections --------------------------------------------------------------------------------

    @contextmanager
    def begin(self) -> Generator[tuple[sa.Connection, dt.datetime]]:
        """A transaction and its time, for what has tables or questions of its own here."""
        with self._begin() as tx:
            yield tx, self._now(tx)

    @contextmanager
    def _begin(self) -> Generator[sa.Connection]:
        try:
            with self._engine.begin() as tx:
                yield tx
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise LedgerError(
                f"the ledger at {self.place} could not be used: {database.plain(error)}; "
                "the next run goes on from what is written"
            ) from error

    @contextmanager
    def _held(self, lease: Lease) -> Generator[tuple[sa.Connection, dt.datetime]]:
        """A transaction in which the lease is renewed, and its time.

        ``LeaseLost`` where the lease is another's.
        """
        with self._begin() as tx:
            now = self._now(tx)
            renewed = tx.execute(
                TRANSFORMS.update()
                .where(
                    TRANSFORMS.c.id == lease.transform_id,
                    TRANSFORMS.c.lease_owner == lease.owner,
                    TRANSFORMS.c.fence == lease.fence,
                )
                .values(lease_expires_at=now + self._lease)
            )
            if renewed.rowcount != 1:
                raise LeaseLost(lease.transform_id)
            yield tx, now

    def _now(self, tx: sa.Connection) -> dt.datetime:
        return database.now(tx, self._clock)


def _unseen(
    tx: sa.Connection, transform_id: str, endpoint: str, aware_of: Collection[str] | None
) -> list[str]:
    """Other transforms' batches of the endpoint that are not among ``aware_of``.

    From here to the end of the transaction nobody else adds a batch.
    """
    database.lock(tx, f"batches of {endpoint}")
    if aware_of is None:
        return []
    others = sa.select(BATCHES.c.id).where(
        BATCHES.c.endpoint == endpoint,
        BATCHES.c.transform_id != transform_id,
        BATCHES.c.status != "dropped",
    )
    return sorted(set(tx.execute(others).scalars()) - set(aware_of))


def _event(
    tx: sa.Connection,
    transform_id: str,
    batch: str | None,
    event: str,
    detail: Mapping[str, Any],
    *,
    at: dt.datetime,
) -> None:
    tx.execute(
        EVENTS.insert().values(
            at=at, transform_id=transform_id, batch=batch, event=event, detail=_json(detail)
        )
    )


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
