"""What is committed of a budget, and the reserving of more: functions on a ledger's transaction.

Money is reserved before it is spent, moves with what it is for, and is settled by what that cost:

    transform   what its plan will send and is in no batch yet
    batch       planned, submitting, submitted, lost: what it may cost. collected: what it did cost
                (what was reserved, where the price was unknown). dropped: nothing, but where the
                API had taken it, or may have: what it may have cost

A day's budget counts batches that the API took on that day, and those that it may yet take. A
transform's reservation counts on the day it was made, and later while somebody holds the
transform: whoever goes on with one that stood still reserves again before anything is sent.

Whoever reserves holds the endpoint's lock of the budgets until the end of the transaction, so of
twenty processes that reserve at once each sees what the others have.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import sqlalchemy as sa

from batch_etl.batches import database
from batch_etl.batches.budget import Limit, Reservation, Standing, overdrawn, refusal
from batch_etl.batches.errors import BudgetExceeded
from batch_etl.batches.tables import BATCHES, TRANSFORMS

_OPEN = ("planned", "submitting", "submitted", "lost")
_UNSENT = ("planned", "submitting")
_RECENT_BATCHES = 50
_MICRO = 1_000_000
"""Sums are made of millionths of a dollar and the rest apart: together they might pass 64 bits."""


def reserve(
    tx: sa.Connection,
    transform_id: str,
    endpoint: str,
    reservation: Reservation,
    now: dt.datetime,
) -> BudgetExceeded | None:
    """Set money aside for a transform, in place of what it had; the refusal where there is none.

    After a refusal nothing is set aside. It is returned, not raised, so that this is committed.
    """
    release(tx, transform_id)
    refused = _refused(tx, transform_id, endpoint, reservation, now)
    if refused is None:
        values = {"reserved_pico_usd": reservation.pico_usd, "reserved_at": now}
        tx.execute(TRANSFORMS.update().where(TRANSFORMS.c.id == transform_id).values(values))
    return refused


def move_to_batch(
    tx: sa.Connection,
    transform_id: str,
    endpoint: str,
    reservation: Reservation,
    now: dt.datetime,
) -> None:
    """Take a new batch's money from its transform; what that has not is reserved as well.

    Raises ``BudgetExceeded``.
    """
    database.lock(tx, f"budgets of {endpoint}")
    own = TRANSFORMS.c.id == transform_id
    held = tx.execute(sa.select(TRANSFORMS.c.reserved_pico_usd).where(own)).scalar_one() or 0
    lacking = reservation.pico_usd - held
    if lacking > 0:
        refused = _refused(tx, transform_id, endpoint, reservation, now, need_pico_usd=lacking)
        if refused is not None:
            raise refused
    rest = max(0, -lacking)
    tx.execute(TRANSFORMS.update().where(own).values(reserved_pico_usd=rest or None))


def release(tx: sa.Connection, transform_id: str) -> None:
    """Give back what is reserved for a transform and in no batch."""
    cleared = {"reserved_pico_usd": None, "reserved_at": None}
    tx.execute(TRANSFORMS.update().where(TRANSFORMS.c.id == transform_id).values(cleared))


def _refused(
    tx: sa.Connection,
    transform_id: str,
    endpoint: str,
    reservation: Reservation,
    now: dt.datetime,
    *,
    need_pico_usd: int | None = None,
) -> BudgetExceeded | None:
    database.lock(tx, f"budgets of {endpoint}")
    need = reservation.pico_usd if need_pico_usd is None else need_pico_usd
    standing = overdrawn(standings(tx, transform_id, endpoint, reservation.limits, now), need)
    if standing is None:
        return None
    return BudgetExceeded(refusal(reservation, standing), budget=standing.limit.name)


def standings(
    tx: sa.Connection,
    transform_id: str | None,
    endpoint: str,
    limits: Sequence[Limit],
    now: dt.datetime,
) -> list[Standing]:
    """How each budget stands; that of a run is of ``transform_id`` (None: of a new one)."""
    return [_standing(tx, transform_id, endpoint, limit, now) for limit in limits]


def _standing(
    tx: sa.Connection, transform_id: str | None, endpoint: str, limit: Limit, now: dt.datetime
) -> Standing:
    mine: list[Any] = [TRANSFORMS.c.endpoint == endpoint]
    if limit.pipeline is not None:
        mine.append(TRANSFORMS.c.pipeline == limit.pipeline)
    if limit.period == "run":
        mine.append(TRANSFORMS.c.id == (transform_id or ""))
    since = limit.since(now)
    spent, reserved, unpriced = _of_batches(tx, mine, since)
    return Standing(limit, spent, reserved + _of_transforms(tx, mine, since, now), unpriced)


def _of_batches(
    tx: sa.Connection, mine: Sequence[Any], since: dt.datetime | None
) -> tuple[int, int, int]:
    """Spent, reserved, and batches of which neither is known."""
    collected = BATCHES.c.status == "collected"
    cost, reserved = BATCHES.c.cost_pico_usd, BATCHES.c.reserved_pico_usd
    known = collected & cost.is_not(None)
    taken = BATCHES.c.submitted_at.is_not(None)  # whatever became of it
    query = (
        sa.select(
            *_sums(sa.case((known, cost), else_=0)),
            *_sums(sa.case((known, 0), else_=reserved)),
            sa.func.sum(sa.case((~known & reserved.is_(None), 1), else_=0)),
        )
        .join(TRANSFORMS, TRANSFORMS.c.id == BATCHES.c.transform_id)
        .where(*mine, collected | BATCHES.c.status.in_(_OPEN) | taken)
    )
    if since is not None:
        sent_at = sa.func.coalesce(BATCHES.c.submitted_at, BATCHES.c.submitting_at)
        query = query.where(BATCHES.c.status.in_(_UNSENT) | (sent_at >= since))
    row = [int(value or 0) for value in tx.execute(query).one()]
    return row[0] * _MICRO + row[1], row[2] * _MICRO + row[3], row[4]


def _of_transforms(
    tx: sa.Connection, mine: Sequence[Any], since: dt.datetime | None, now: dt.datetime
) -> int:
    query = sa.select(*_sums(TRANSFORMS.c.reserved_pico_usd)).where(*mine)
    if since is not None:
        held = TRANSFORMS.c.lease_owner.is_not(None) & (TRANSFORMS.c.lease_expires_at >= now)
        query = query.where(held | (TRANSFORMS.c.reserved_at >= since))
    row = [int(value or 0) for value in tx.execute(query).one()]
    return row[0] * _MICRO + row[1]


def _sums(pico_usd: Any) -> tuple[Any, Any]:
    return sa.func.sum(pico_usd // _MICRO), sa.func.sum(pico_usd % _MICRO)


@dataclass(frozen=True)
class Written:
    """What a collected batch wrote: the history from which an estimate takes its output."""

    fingerprint: str
    """Of the task that asked."""
    outcomes: Mapping[str, int]
    output_tokens: int


def written(tx: sa.Connection, pipeline: str, endpoint: str, claude_model: str) -> list[Written]:
    """The pipeline's latest collected batches of a model, newest first."""
    query = (
        sa.select(TRANSFORMS.c.fingerprint, BATCHES.c.outcomes, BATCHES.c.output_tokens)
        .join(TRANSFORMS, TRANSFORMS.c.id == BATCHES.c.transform_id)
        .where(
            TRANSFORMS.c.pipeline == pipeline,
            BATCHES.c.endpoint == endpoint,
            BATCHES.c.claude_model == claude_model,
            BATCHES.c.status == "collected",
        )
        .order_by(BATCHES.c.collected_at.desc())
        .limit(_RECENT_BATCHES)
    )
    return [
        Written(row.fingerprint, msgspec.json.decode(row.outcomes or "{}"), row.output_tokens or 0)
        for row in tx.execute(query)
    ]
