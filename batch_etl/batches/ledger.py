"""The ledger: which transforms and batches there are, how far each is, and what it cost.

Small tables on SQLAlchemy Core: SQLite in WAL mode by default, PostgreSQL where several machines
share one. Everything per request is in Parquet beside it. Every change of status is one conditional
UPDATE in a transaction that also writes the event and checks that the caller still holds the
transform's lease:

    UPDATE batches SET status = after ... WHERE id = ? AND status = before

so two processes cannot both move a row, and a holder that was paused past its lease (its ``fence``
is then too old) can write nothing any more.

Schema changes are numbered migrations, applied on open inside one transaction; a ledger newer than
the program is refused.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
import uuid
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import msgspec
import sqlalchemy as sa
import sqlalchemy.event
import sqlalchemy.exc

from batch_etl.batches import holder
from batch_etl.batches.errors import LeaseLost, LedgerError
from batch_etl.batches.lifecycle import BATCH_MOVES, TRANSFORM_MOVES, check_move

SCHEMA_VERSION = 1

log = logging.getLogger("batch_etl.ledger")


class UtcTime(sa.TypeDecorator[dt.datetime]):
    """An aware UTC datetime; SQLite, which has no time zones, keeps it as UTC."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: sa.Dialect) -> Any:  # noqa: ARG002
        return None if value is None else value.astimezone(dt.UTC)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> dt.datetime | None:  # noqa: ARG002
        if value is None:
            return None
        return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)


_META = sa.MetaData()

_VERSION = sa.Table("schema_version", _META, sa.Column("version", sa.Integer, nullable=False))

_TRANSFORMS = sa.Table(
    "transforms",
    _META,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("pipeline", sa.Text, nullable=False),
    sa.Column("endpoint", sa.Text, nullable=False),
    sa.Column("scope", sa.Text, nullable=False),  # JSON list of partition keys, in order
    sa.Column("fingerprint", sa.Text, nullable=False),  # of the task
    sa.Column("records_digest", sa.Text, nullable=False),
    sa.Column("task", sa.Text, nullable=False),  # JSON: the task's definition, to say what changed
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("counts", sa.Text, nullable=False),  # JSON: records, new, reused, ... and outcomes
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("updated_at", UtcTime, nullable=False),
    sa.Column("lease_owner", sa.Text),
    sa.Column("lease_expires_at", UtcTime),
    sa.Column("fence", sa.BigInteger, nullable=False),
)
sa.Index(
    "ix_transforms_scope", _TRANSFORMS.c.pipeline, _TRANSFORMS.c.endpoint, _TRANSFORMS.c.status
)

_BATCHES = sa.Table(
    "batches",
    _META,
    sa.Column("id", sa.Text, primary_key=True),  # the token its custom_ids begin with
    sa.Column("transform_id", sa.Text, sa.ForeignKey("transforms.id"), nullable=False),
    sa.Column("endpoint", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("requests", sa.Integer, nullable=False),
    sa.Column("payload_bytes", sa.BigInteger, nullable=False),
    sa.Column("claude_model", sa.Text, nullable=False),
    sa.Column("batch_id", sa.Text, unique=True),  # the vendor's
    sa.Column("planned_at", UtcTime, nullable=False),
    sa.Column("submitting_at", UtcTime),  # by the server's clock where it is known
    sa.Column("submitted_at", UtcTime),  # the vendor's created_at
    sa.Column("expires_at", UtcTime),
    sa.Column("ended_at", UtcTime),
    sa.Column("collected_at", UtcTime),
    sa.Column("outcomes", sa.Text),  # JSON: count by kind, duplicates, unreadable lines
    sa.Column("input_tokens", sa.BigInteger),
    sa.Column("output_tokens", sa.BigInteger),
    sa.Column("cache_read_tokens", sa.BigInteger),
    sa.Column("cache_write_tokens", sa.BigInteger),
    sa.Column("cost_pico_usd", sa.BigInteger),  # 1e-12 dollars; null where a price is unknown
    sa.Column("standard_pico_usd", sa.BigInteger),  # the same at the standard price
)
sa.Index("ix_batches_transform", _BATCHES.c.transform_id)
sa.Index("ix_batches_status", _BATCHES.c.endpoint, _BATCHES.c.status)

_EVENTS = sa.Table(
    "events",
    _META,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at", UtcTime, nullable=False),
    sa.Column("transform_id", sa.Text, nullable=False),
    sa.Column("batch", sa.Text),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),  # JSON
)
sa.Index("ix_events_transform", _EVENTS.c.transform_id)


@dataclass(frozen=True)
class TransformRow:
    """One transform as the ledger has it."""

    id: str
    pipeline: str
    endpoint: str
    scope: tuple[str | None, ...]
    fingerprint: str
    records_digest: str
    task: Mapping[str, Any]
    status: str
    attempt: int
    counts: Mapping[str, int]
    created_at: dt.datetime
    updated_at: dt.datetime


@dataclass(frozen=True)
class BatchRow:
    """One batch as the ledger has it; ``id`` is our token, ``batch_id`` the vendor's name."""

    id: str
    transform_id: str
    endpoint: str
    attempt: int
    status: str
    requests: int
    payload_bytes: int
    claude_model: str
    batch_id: str | None
    planned_at: dt.datetime
    submitting_at: dt.datetime | None
    submitted_at: dt.datetime | None
    expires_at: dt.datetime | None
    ended_at: dt.datetime | None
    collected_at: dt.datetime | None
    outcomes: Mapping[str, int] | None
    input_tokens: int | None
    output_tokens: int | None
    cache_read_tokens: int | None
    cache_write_tokens: int | None
    cost_pico_usd: int | None
    standard_pico_usd: int | None


@dataclass(frozen=True)
class Lease:
    """The right to advance one transform, until it expires or another takes it over."""

    transform_id: str
    owner: str
    fence: int


class Ledger:
    """Opens (and, where needed, creates or migrates) the ledger at ``url``.

    Raises ``LedgerError`` when the database cannot be reached or is newer than this program. The
    password of a URL never shows in an error.
    """

    def __init__(self, url: str, *, lease_s: float = 120.0) -> None:
        self._lease = dt.timedelta(seconds=lease_s)
        self._owner = holder.this_process()
        parsed = _parsed(url)
        self.place = parsed.render_as_string(hide_password=True)
        try:
            self._engine = _engine(parsed)
            self._migrate()
        except ImportError as error:
            raise LedgerError(
                f"the ledger at {self.place} cannot be opened: {error}; install the driver that "
                "the URL names"
            ) from None
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise LedgerError(
                f"the ledger at {self.place} cannot be opened: {_plain(error)}; "
                "check that the path or server exists and can be written"
            ) from None

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
        now = _now()
        identity = f"{now:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
        with self._begin() as tx:
            tx.execute(
                _TRANSFORMS.insert().values(
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
            _event(tx, identity, None, "transform created", {"scope": list(scope)})
        return identity

    def transform(self, transform_id: str) -> TransformRow:
        with self._engine.connect() as tx:
            row = tx.execute(sa.select(_TRANSFORMS).where(_TRANSFORMS.c.id == transform_id)).first()
        if row is None:
            raise LedgerError(f"the ledger at {self.place} has no transform {transform_id!r}")
        return _transform(row)

    def transforms(
        self,
        *,
        pipeline: str | None = None,
        endpoint: str | None = None,
        statuses: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> list[TransformRow]:
        """Transforms, newest first."""
        query = sa.select(_TRANSFORMS).order_by(_TRANSFORMS.c.created_at.desc(), _TRANSFORMS.c.id)
        if pipeline is not None:
            query = query.where(_TRANSFORMS.c.pipeline == pipeline)
        if endpoint is not None:
            query = query.where(_TRANSFORMS.c.endpoint == endpoint)
        if statuses is not None:
            query = query.where(_TRANSFORMS.c.status.in_(statuses))
        with self._engine.connect() as tx:
            return [_transform(row) for row in tx.execute(query.limit(limit))]

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
        values: dict[str, Any] = {"status": after, "updated_at": _now()}
        if attempt is not None:
            values["attempt"] = attempt
        if counts is not None:
            values["counts"] = _json(counts)
        with self._held(lease) as tx:
            moved = tx.execute(
                _TRANSFORMS.update()
                .where(_TRANSFORMS.c.id == lease.transform_id, _TRANSFORMS.c.status == before)
                .values(**values)
            )
            if moved.rowcount != 1:
                raise LedgerError(f"transform {lease.transform_id} is no longer {before}")
            _event(tx, lease.transform_id, None, f"transform {after}", dict(counts or {}))

    # leases -------------------------------------------------------------------------------------

    def acquire(self, transform_id: str) -> Lease | None:
        """Take or renew the lease; None while another process holds it.

        The lease of a process of this machine that is no more need not expire first.
        """
        now = _now()
        with self._begin() as tx:
            held_by = tx.execute(
                sa.select(_TRANSFORMS.c.lease_owner).where(_TRANSFORMS.c.id == transform_id)
            ).scalar()
            takable = [self._owner, *([held_by] if held_by and holder.is_gone(held_by) else [])]
            free = sa.or_(
                _TRANSFORMS.c.lease_owner.is_(None),
                _TRANSFORMS.c.lease_owner.in_(takable),
                _TRANSFORMS.c.lease_expires_at < now,
            )
            taken = tx.execute(
                _TRANSFORMS.update()
                .where(_TRANSFORMS.c.id == transform_id, free)
                .values(
                    lease_owner=self._owner,
                    lease_expires_at=now + self._lease,
                    fence=sa.case(
                        (_TRANSFORMS.c.lease_owner == self._owner, _TRANSFORMS.c.fence),
                        else_=_TRANSFORMS.c.fence + 1,
                    ),
                )
            )
            if taken.rowcount != 1:
                return None
            fence = tx.execute(
                sa.select(_TRANSFORMS.c.fence).where(_TRANSFORMS.c.id == transform_id)
            ).scalar_one()
        return Lease(transform_id, self._owner, fence)

    def release(self, lease: Lease) -> None:
        """Give the lease back; nothing happens where it was already lost."""
        with self._begin() as tx:
            tx.execute(
                _TRANSFORMS.update()
                .where(
                    _TRANSFORMS.c.id == lease.transform_id,
                    _TRANSFORMS.c.lease_owner == lease.owner,
                    _TRANSFORMS.c.fence == lease.fence,
                )
                .values(lease_owner=None, lease_expires_at=None)
            )

    def renew(self, lease: Lease) -> None:
        """Push the lease's end into the future. Raises ``LeaseLost``."""
        with self._held(lease):
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

    def _keep(self, lease: Lease, done: threading.Event) -> None:
        while not done.wait(self._lease.total_seconds() / 4):
            try:
                self.renew(lease)
            except LeaseLost:
                return
            except sqlalchemy.exc.SQLAlchemyError as error:
                log.warning("a lease could not be renewed: %s", _plain(error))

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
    ) -> None:
        """A planned batch whose manifest is already on disk."""
        with self._held(lease) as tx:
            tx.execute(
                _BATCHES.insert().values(
                    id=token,
                    transform_id=lease.transform_id,
                    endpoint=endpoint,
                    attempt=attempt,
                    status="planned",
                    requests=requests,
                    payload_bytes=payload_bytes,
                    claude_model=claude_model,
                    planned_at=_now(),
                )
            )
            detail = {"requests": requests, "bytes": payload_bytes, "attempt": attempt}
            _event(tx, lease.transform_id, token, "batch planned", detail)

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
        with self._held(lease) as tx:
            moved = tx.execute(
                _BATCHES.update()
                .where(_BATCHES.c.id == token, _BATCHES.c.status == before)
                .values(status=after, **values)
            )
            if moved.rowcount != 1:
                raise LedgerError(f"batch {token} is no longer {before}")
            _event(tx, lease.transform_id, token, f"batch {after}", dict(detail or {}))

    def batches(
        self,
        *,
        transform_id: str | None = None,
        endpoint: str | None = None,
        statuses: Sequence[str] | None = None,
    ) -> list[BatchRow]:
        """Batches, in the order they were planned."""
        query = sa.select(_BATCHES).order_by(_BATCHES.c.planned_at, _BATCHES.c.id)
        if transform_id is not None:
            query = query.where(_BATCHES.c.transform_id == transform_id)
        if endpoint is not None:
            query = query.where(_BATCHES.c.endpoint == endpoint)
        if statuses is not None:
            query = query.where(_BATCHES.c.status.in_(statuses))
        with self._engine.connect() as tx:
            return [_batch(row) for row in tx.execute(query)]

    def knows(self, batch_ids: Sequence[str]) -> set[str]:
        """Those of the vendor's batch ids that belong to a batch of this ledger."""
        query = sa.select(_BATCHES.c.batch_id).where(_BATCHES.c.batch_id.in_(list(batch_ids)))
        with self._engine.connect() as tx:
            return set(tx.execute(query).scalars())

    def note(self, lease: Lease, batch: str | None, event: str, detail: Mapping[str, Any]) -> None:
        """Write an event that changes no status."""
        with self._held(lease) as tx:
            _event(tx, lease.transform_id, batch, event, detail)

    def events(
        self, transform_id: str
    ) -> list[tuple[dt.datetime, str | None, str, dict[str, Any]]]:
        """What happened to a transform, oldest first: time, batch, event, detail."""
        query = sa.select(_EVENTS).where(_EVENTS.c.transform_id == transform_id)
        with self._engine.connect() as tx:
            return [
                (row.at, row.batch, row.event, msgspec.json.decode(row.detail))
                for row in tx.execute(query.order_by(_EVENTS.c.id))
            ]

    # connections --------------------------------------------------------------------------------

    @contextmanager
    def _begin(self) -> Generator[sa.Connection]:
        with self._engine.begin() as tx:
            yield tx

    @contextmanager
    def _held(self, lease: Lease) -> Generator[sa.Connection]:
        """A transaction in which the lease is renewed; ``LeaseLost`` where it is another's."""
        with self._begin() as tx:
            renewed = tx.execute(
                _TRANSFORMS.update()
                .where(
                    _TRANSFORMS.c.id == lease.transform_id,
                    _TRANSFORMS.c.lease_owner == lease.owner,
                    _TRANSFORMS.c.fence == lease.fence,
                )
                .values(lease_expires_at=_now() + self._lease)
            )
            if renewed.rowcount != 1:
                raise LeaseLost(lease.transform_id)
            yield tx

    def _migrate(self) -> None:
        with self._begin() as tx:
            if not sa.inspect(tx).has_table(_VERSION.name):
                _META.create_all(tx)
                tx.execute(_VERSION.insert().values(version=SCHEMA_VERSION))
                return
            version = tx.execute(sa.select(_VERSION.c.version)).scalar_one()
        if version > SCHEMA_VERSION:
            raise LedgerError(
                f"the ledger at {self.place} has schema version {version}, and this batch_etl "
                f"knows {SCHEMA_VERSION}; upgrade batch_etl, or point BATCH_ETL_HOME elsewhere"
            )


def _parsed(url: str) -> sa.URL:
    """Raises ``LedgerError``, which does not repeat the URL: it may hold a password."""
    try:
        return sa.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise LedgerError(
            "the ledger's URL cannot be read; it is like sqlite:////path/ledger.db or "
            "postgresql+psycopg2://user:password@host:5432/database, with special characters of "
            "the password percent-encoded"
        ) from None


def _engine(url: sa.URL) -> sa.Engine:
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(url, pool_pre_ping=True)
    engine = sa.create_engine(
        url, connect_args={"timeout": 30, "isolation_level": None, "check_same_thread": False}
    )
    sqlalchemy.event.listen(engine, "connect", _sqlite_settings)
    sqlalchemy.event.listen(engine, "begin", _sqlite_begin)
    return engine


def _sqlite_settings(connection: Any, _record: Any) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
        connection.execute(f"PRAGMA {pragma}").close()


def _sqlite_begin(connection: sa.Connection) -> None:
    """Take the write lock at once: a transaction that reads first could not be upgraded later."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _event(
    tx: sa.Connection,
    transform_id: str,
    batch: str | None,
    event: str,
    detail: Mapping[str, Any],
) -> None:
    tx.execute(
        _EVENTS.insert().values(
            at=_now(), transform_id=transform_id, batch=batch, event=event, detail=_json(detail)
        )
    )


def _transform(row: Any) -> TransformRow:
    values = {name: getattr(row, name) for name in TransformRow.__dataclass_fields__}
    values["scope"] = tuple(msgspec.json.decode(row.scope))
    values["task"] = msgspec.json.decode(row.task)
    values["counts"] = msgspec.json.decode(row.counts)
    return TransformRow(**values)


def _batch(row: Any) -> BatchRow:
    values = {name: getattr(row, name) for name in BatchRow.__dataclass_fields__}
    values["outcomes"] = msgspec.json.decode(row.outcomes) if row.outcomes else None
    return BatchRow(**values)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _plain(error: sqlalchemy.exc.SQLAlchemyError) -> str:
    return str(cast("object", getattr(error, "orig", None)) or error).strip().splitlines()[0]
