"""Which transforms can go on, found out for all open ones with one list of batches.

A sensor that looks after hundreds of open batches asks the API once a tick, not once a batch: the
list is newest first, and is read as far back as the oldest batch that is open. Only
``processing_status`` "ended" is believed; a batch that the list does not show at all lets its
transform go on too, and ``advance`` then says what is wrong with it.

How long a batch may still take is learned from those that have ended: the API's own counts stay at
zero until the end, so a share of what is done cannot be told.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa

from batch_etl.batches.exchange import Exchange
from batch_etl.batches.ledger import BatchRow, Ledger, TransformRow
from batch_etl.batches.lifecycle import OPEN_BATCH
from batch_etl.batches.tables import TRANSFORMS, read_transform

_HISTORY = 200
"""So many ended batches, the newest, tell how long one takes."""

_ENOUGH = 3
"""Fewer than these tell nothing."""


def due(exchange: Exchange, pipelines: Collection[str] | None = None) -> list[TransformRow]:
    """Open transforms (of these pipelines) that wait for no batch any more, oldest first.

    Raises ``ApiError`` when the list cannot be read.
    """
    name = exchange.endpoint.name
    rows = exchange.ledger.transforms(endpoint=name, statuses=["planning", "open"])
    mine = [row for row in reversed(rows) if pipelines is None or row.pipeline in pipelines]
    batches = exchange.ledger.batches(endpoint=name, statuses=sorted(OPEN_BATCH))
    waited = {row.id: _waited(row, batches) for row in mine}
    running = _in_progress(exchange, {one.id: one for some in waited.values() for one in some})
    return [row for row in mine if not any(one.batch_id in running for one in waited[row.id])]


def done(ledger: Ledger, ids: Collection[str]) -> list[TransformRow]:
    """Those of these transforms whose results are there, newest first."""
    query = (
        sa.select(TRANSFORMS)
        .where(TRANSFORMS.c.id.in_(sorted(ids)), TRANSFORMS.c.status == "done")
        .order_by(TRANSFORMS.c.updated_at.desc(), TRANSFORMS.c.id)
    )
    with ledger.begin() as (tx, _):
        return [read_transform(row) for row in tx.execute(query)]


def _waited(row: TransformRow, batches: Sequence[BatchRow]) -> list[BatchRow]:
    """The submitted batches that a transform waits for: its own, and those it awaits."""
    return [
        batch
        for batch in batches
        if batch.status == "submitted" and (batch.transform_id == row.id or batch.id in row.awaits)
    ]


def _in_progress(exchange: Exchange, waited: dict[str, BatchRow]) -> set[str]:
    """The ids of those that the API's list shows as not ended."""
    names = {batch.batch_id for batch in waited.values() if batch.batch_id}
    if not names:
        return set()
    oldest = min(batch.submitted_at or batch.planned_at for batch in waited.values())
    running: set[str] = set()
    for batch in exchange.client.iter_batches():
        if batch.id in names:
            names.discard(batch.id)
            if not batch.ended:
                running.add(batch.id)
        if not names or batch.created_at < oldest:
            break
    return running


@dataclass(frozen=True)
class Duration:
    """How long batches have taken: half of them up to ``median_s``, nine of ten up to ``p90_s``."""

    median_s: float
    p90_s: float
    batches: int


def usual_duration(exchange: Exchange, pipeline: str) -> Duration | None:
    """How long a batch of this pipeline usually takes, or, while too few have ended, of any.

    None while that is not known either.
    """
    name = exchange.endpoint.name
    ended = exchange.ledger.batches(endpoint=name, statuses=["collected"])
    ours = {row.id for row in exchange.ledger.transforms(pipeline=pipeline, endpoint=name)}
    own = [batch for batch in ended if batch.transform_id in ours]
    for some in (own, ended):
        seconds = [_took_s(batch) for batch in some[-_HISTORY:]]
        known = [one for one in seconds if one is not None]
        if len(known) >= _ENOUGH:
            return Duration(
                float(np.quantile(known, 0.5)), float(np.quantile(known, 0.9)), len(known)
            )
    return None


def _took_s(batch: BatchRow) -> float | None:
    if batch.submitted_at is None or batch.ended_at is None:
        return None
    return max((batch.ended_at - batch.submitted_at).total_seconds(), 0.0)


def expected_end(submitted_at: dt.datetime, usual: Duration | None, now: dt.datetime) -> str | None:
    """What can honestly be said of a batch's end, as a clause; None where nothing can."""
    if usual is None:
        return None
    waited_s = (now - submitted_at).total_seconds()
    if waited_s > usual.p90_s:
        return f"longer than nine of the last ten ({spoken(usual.p90_s)})"
    earliest = (submitted_at + dt.timedelta(seconds=usual.median_s)).strftime("%H:%M")
    latest = (submitted_at + dt.timedelta(seconds=usual.p90_s)).strftime("%H:%M")
    return f"likely from {earliest} to {latest} UTC, as {usual.batches} before it"


def spoken(seconds: float) -> str:
    """A duration as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
