"""The ledger's tables as they are now, and their rows as values.

How a ledger of an earlier version comes to be like this is said in ``migrations.py``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import sqlalchemy as sa


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


META = sa.MetaData()

TRANSFORMS = sa.Table(
    "transforms",
    META,
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
    sa.Column("reserved_pico_usd", sa.BigInteger),  # of a budget, for what is in no batch yet
    sa.Column("reserved_at", UtcTime),
    sa.Column("awaits", sa.Text),  # JSON list of other transforms' batches that hold its requests
)
sa.Index("ix_transforms_scope", TRANSFORMS.c.pipeline, TRANSFORMS.c.endpoint, TRANSFORMS.c.status)

BATCHES = sa.Table(
    "batches",
    META,
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
    sa.Column("reserved_pico_usd", sa.BigInteger),  # of a budget, until the cost is known
    sa.Column("deleted_at", UtcTime),  # at the API, where that was asked for
)
sa.Index("ix_batches_transform", BATCHES.c.transform_id)
sa.Index("ix_batches_status", BATCHES.c.endpoint, BATCHES.c.status)

EVENTS = sa.Table(
    "events",
    META,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at", UtcTime, nullable=False),
    sa.Column("transform_id", sa.Text, nullable=False),
    sa.Column("batch", sa.Text),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),  # JSON
)
sa.Index("ix_events_transform", EVENTS.c.transform_id)

ALERTS = sa.Table(
    "alerts",
    META,
    sa.Column("event", sa.Text, primary_key=True),  # what happened, to what: told once
    sa.Column("destination", sa.Text, primary_key=True),  # a digest of the URL, which is a secret
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("level", sa.Text, nullable=False),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),  # due, claimed, sent, unsure, given_up
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("noted_at", UtcTime, nullable=False),
    sa.Column("due_at", UtcTime, nullable=False),  # not to be sent before
    sa.Column("claimed_at", UtcTime),
    sa.Column("sent_at", UtcTime),
)
sa.Index("ix_alerts_status", ALERTS.c.destination, ALERTS.c.status)


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
    reserved_pico_usd: int | None = None
    reserved_at: dt.datetime | None = None
    awaits: tuple[str, ...] = ()


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
    reserved_pico_usd: int | None = None
    deleted_at: dt.datetime | None = None


def read_transform(row: Any) -> TransformRow:
    values = {name: getattr(row, name) for name in TransformRow.__dataclass_fields__}
    values["scope"] = tuple(msgspec.json.decode(row.scope))
    values["task"] = msgspec.json.decode(row.task)
    values["counts"] = msgspec.json.decode(row.counts)
    values["awaits"] = tuple(msgspec.json.decode(row.awaits)) if row.awaits else ()
    return TransformRow(**values)


def read_batch(row: Any) -> BatchRow:
    values = {name: getattr(row, name) for name in BatchRow.__dataclass_fields__}
    values["outcomes"] = msgspec.json.decode(row.outcomes) if row.outcomes else None
    return BatchRow(**values)


def hit_rate(batches: Sequence[BatchRow]) -> float | None:
    """The share of all prompt tokens that was read from the cache; None where there are none."""
    reads = sum(batch.cache_read_tokens or 0 for batch in batches)
    rest = sum((b.input_tokens or 0) + (b.cache_write_tokens or 0) for b in batches)
    return reads / (reads + rest) if reads + rest else None
