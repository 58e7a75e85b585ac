"""What the ledger tells of batches and transforms that may be worth somebody's attention.

Questions of a sensor that asks them every minute: each is one query, of the newest rows only where
there may be many, and :func:`last_event` tells whether any of them can have a new answer.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa

from batch_etl.batches.ledger import BatchRow, Ledger, TransformRow
from batch_etl.batches.lifecycle import OPEN_BATCH
from batch_etl.batches.tables import BATCHES, EVENTS, TRANSFORMS, read_transform

_HISTORY = 200
"""So many batches or transforms, the newest, are the past that others are compared with."""


def last_event(ledger: Ledger) -> int:
    """A number that grows with each change of the ledger's transforms and batches."""
    with ledger.begin() as (tx, _):
        return tx.execute(sa.select(sa.func.max(EVENTS.c.id))).scalar() or 0


@dataclass(frozen=True)
class OpenBatch:
    """A batch that may still bring answers, and its transform."""

    batch: BatchRow
    transform: TransformRow

    @property
    def since(self) -> dt.datetime:
        """When the API took it, or else when it was to be sent."""
        batch = self.batch
        return batch.submitted_at or batch.submitting_at or batch.planned_at


def open_batches(ledger: Ledger, pipelines: Collection[str]) -> list[OpenBatch]:
    """Those of these pipelines, oldest first, of all endpoints."""
    batches = ledger.batches(statuses=sorted(OPEN_BATCH))
    if not batches:
        return []
    rows = {row.id: row for row in ledger.transforms(statuses=["planning", "open"])}
    return [
        OpenBatch(batch, rows[batch.transform_id])
        for batch in batches
        if batch.transform_id in rows and rows[batch.transform_id].pipeline in pipelines
    ]


def took_s(ledger: Ledger, pipeline: str, endpoint: str) -> list[float]:
    """How many seconds the API took for each of the pipeline's newest batches."""
    query = (
        sa.select(BATCHES.c.submitted_at, BATCHES.c.ended_at)
        .join(TRANSFORMS, TRANSFORMS.c.id == BATCHES.c.transform_id)
        .where(
            TRANSFORMS.c.pipeline == pipeline,
            BATCHES.c.endpoint == endpoint,
            BATCHES.c.status == "collected",
            BATCHES.c.submitted_at.is_not(None),
            BATCHES.c.ended_at.is_not(None),
        )
        .order_by(BATCHES.c.collected_at.desc())
        .limit(_HISTORY)
    )
    with ledger.begin() as (tx, _):
        rows = tx.execute(query).all()
    return [max((row.ended_at - row.submitted_at).total_seconds(), 0.0) for row in rows]


def finished(ledger: Ledger, pipelines: Collection[str], since: dt.datetime) -> list[TransformRow]:
    """Transforms of these pipelines that became done then or later, oldest first."""
    query = (
        sa.select(TRANSFORMS)
        .where(
            TRANSFORMS.c.status == "done",
            TRANSFORMS.c.updated_at >= since,
            TRANSFORMS.c.pipeline.in_(sorted(pipelines)),
        )
        .order_by(TRANSFORMS.c.updated_at, TRANSFORMS.c.id)
    )
    with ledger.begin() as (tx, _):
        return [read_transform(row) for row in tx.execute(query)]


def before(ledger: Ledger, row: TransformRow) -> list[TransformRow]:
    """The pipeline's newest done transforms of the endpoint before this one, newest first."""
    query = (
        sa.select(TRANSFORMS)
        .where(
            TRANSFORMS.c.status == "done",
            TRANSFORMS.c.pipeline == row.pipeline,
            TRANSFORMS.c.endpoint == row.endpoint,
            TRANSFORMS.c.updated_at < row.updated_at,
        )
        .order_by(TRANSFORMS.c.updated_at.desc())
        .limit(_HISTORY)
    )
    with ledger.begin() as (tx, _):
        return [read_transform(one) for one in tx.execute(query)]
