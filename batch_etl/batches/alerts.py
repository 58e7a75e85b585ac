"""Alerts on their way out: each event is told once to each place, whoever notices it.

An alert is noted first and sent later, by whichever process comes first::

    due ──> claimed ──> sent
     ^         │ └────> unsure      (it may have arrived: it is never sent again)
     └─────────┴──────> given_up    (refused for a day)

Its event names what happened, to what (``failed_run:<run id>``), and is the primary key together
with the destination, so noting it again changes nothing. ``claimed`` is committed before anything
is sent: of two daemons one has it, and after a crash in between nobody knows whether it arrived, so
it is not sent again, but told of in the log (:func:`abandoned`). Only what was refused for certain
is due again, each time after a longer pause.

A destination is known here by a digest: its URL holds a secret.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from batch_etl.batches import database
from batch_etl.batches.ledger import Ledger
from batch_etl.batches.tables import ALERTS

Level = Literal["info", "warning", "failure"]
Outcome = Literal["sent", "refused", "unsure"]

_FIRST_PAUSE = dt.timedelta(minutes=1)
_LONGEST_PAUSE = dt.timedelta(hours=1)
_PATIENCE = dt.timedelta(hours=24)
"""An alert that was refused for so long is given up."""

_SENDING = dt.timedelta(minutes=10)
"""A claim older than this is that of a process which is no more: sending takes seconds."""

_KEYS_PER_QUERY = 500


@dataclass(frozen=True)
class Alert:
    """What is told of one event: no secrets, no contents of records."""

    event: str
    kind: str
    level: Level
    title: str
    message: str


def note(ledger: Ledger, alerts: Sequence[Alert], destinations: Collection[str]) -> int:
    """Take in what is not known yet, to be sent to each destination; returns how many were new."""
    if not alerts:
        return 0
    with ledger.begin() as (tx, now):
        database.lock(tx, "alerts")
        known = _known(tx, [one.event for one in alerts])
        new = [
            {**vars(one), "destination": to, "status": "due", "tries": 0}
            | {"noted_at": now, "due_at": now}
            for one in {one.event: one for one in alerts}.values()
            for to in destinations
            if (one.event, to) not in known
        ]
        if new:
            tx.execute(ALERTS.insert(), new)
    return len(new)


def _known(tx: sa.Connection, events: Sequence[str]) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for start in range(0, len(events), _KEYS_PER_QUERY):
        some = events[start : start + _KEYS_PER_QUERY]
        query = sa.select(ALERTS.c.event, ALERTS.c.destination).where(ALERTS.c.event.in_(some))
        found |= {(row.event, row.destination) for row in tx.execute(query)}
    return found


def claim(ledger: Ledger, destination: str, most: int) -> list[Alert]:
    """Up to so many alerts that are due there, oldest first; nobody else gets them."""
    due = sa.and_(ALERTS.c.destination == destination, ALERTS.c.status == "due")
    with ledger.begin() as (tx, now):
        database.lock(tx, "alerts")
        query = sa.select(ALERTS).where(due, ALERTS.c.due_at <= now)
        rows = tx.execute(query.order_by(ALERTS.c.noted_at, ALERTS.c.event).limit(most)).all()
        if rows:
            mine = sa.and_(due, ALERTS.c.event.in_([row.event for row in rows]))
            values = {"status": "claimed", "claimed_at": now, "tries": ALERTS.c.tries + 1}
            tx.execute(ALERTS.update().where(mine).values(values))
    return [Alert(row.event, row.kind, row.level, row.title, row.message) for row in rows]


def settle(ledger: Ledger, destination: str, alerts: Sequence[Alert], outcome: Outcome) -> None:
    """Write down what became of alerts that were claimed."""
    mine = sa.and_(
        ALERTS.c.destination == destination,
        ALERTS.c.event.in_([one.event for one in alerts]),
        ALERTS.c.status == "claimed",
    )
    with ledger.begin() as (tx, now):
        for row in tx.execute(sa.select(ALERTS).where(mine)).all():
            one = sa.and_(mine, ALERTS.c.event == row.event)
            tx.execute(ALERTS.update().where(one).values(_settled(row, outcome, now)))


def _settled(row: Any, outcome: Outcome, now: dt.datetime) -> dict[str, Any]:
    if outcome == "sent":
        return {"status": "sent", "sent_at": now}
    if outcome == "unsure":
        return {"status": "unsure"}
    if now - row.noted_at >= _PATIENCE:
        return {"status": "given_up"}
    pause = min(_FIRST_PAUSE * 2 ** min(row.tries - 1, 10), _LONGEST_PAUSE)
    return {"status": "due", "due_at": now + pause}


def abandoned(ledger: Ledger, destinations: Collection[str]) -> list[tuple[str, Alert]]:
    """Claims of processes that ended before they knew what became of them, each told once."""
    with ledger.begin() as (tx, now):
        database.lock(tx, "alerts")
        left = sa.and_(
            ALERTS.c.destination.in_(list(destinations)),
            ALERTS.c.status == "claimed",
            ALERTS.c.claimed_at < now - _SENDING,
        )
        rows = tx.execute(sa.select(ALERTS).where(left)).all()
        if rows:
            tx.execute(ALERTS.update().where(left).values(status="unsure"))
    return [
        (row.destination, Alert(row.event, row.kind, row.level, row.title, row.message))
        for row in rows
    ]
