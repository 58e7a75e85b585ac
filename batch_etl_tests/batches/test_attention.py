"""What the ledger tells of open and finished work, on both databases."""

from __future__ import annotations

import datetime as dt
from contextlib import closing
from itertools import count
from typing import Any

import pytest

from batch_etl.batches import attention
from batch_etl.batches.ledger import Ledger

NOON = dt.datetime(2026, 11, 23, 12, 0, tzinfo=dt.UTC)
_TOKENS = (f"token{number}" for number in count())


def transform(
    ledger: Ledger, pipeline: str = "reviews", *, took_s: float | None = None, **counts: int
) -> str:
    """A transform with one batch: done after ``took_s``, or open."""
    identity = ledger.create_transform(
        pipeline=pipeline,
        endpoint="anthropic",
        scope=[None],
        fingerprint="f",
        records_digest="d",
        task={},
    )
    lease = ledger.acquire(identity)
    assert lease is not None
    token = next(_TOKENS)
    ledger.add_batch(
        lease,
        token=token,
        endpoint="anthropic",
        attempt=1,
        requests=1,
        payload_bytes=1,
        claude_model="m",
    )
    ledger.move_batch(lease, token, "planned", "submitting")
    ledger.move_batch(lease, token, "submitting", "submitted", submitted_at=NOON)
    ledger.move_transform(lease, "planning", "open")
    if took_s is not None:
        ended_at = NOON + dt.timedelta(seconds=took_s)
        ended: dict[str, Any] = {"ended_at": ended_at, "collected_at": ended_at}
        ledger.move_batch(lease, token, "submitted", "collected", **ended)
        ledger.move_transform(lease, "open", "done", counts=counts)
    return identity


def test_open_batches_are_those_of_the_pipelines_asked_for(url: str) -> None:
    with closing(Ledger(url)) as ledger:
        assert attention.open_batches(ledger, ["reviews"]) == []
        first = transform(ledger)
        transform(ledger, "posts")
        transform(ledger, took_s=1)
        (found,) = attention.open_batches(ledger, ["reviews"])
        assert (found.transform.id, found.batch.transform_id) == (first, first)
        assert found.since == NOON


def test_how_long_batches_took_is_told_by_pipeline(url: str) -> None:
    with closing(Ledger(url)) as ledger:
        for seconds in (60, 90, -1):
            transform(ledger, took_s=seconds)
        transform(ledger, "posts", took_s=7)
        transform(ledger)
        assert attention.took_s(ledger, "reviews", "anthropic") == [90, 60, 0]
        assert attention.took_s(ledger, "reviews", "emulator") == []


def test_what_finished_is_told_from_a_time_on_and_compared_with_what_was_before(url: str) -> None:
    with closing(Ledger(url)) as ledger:
        begun = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1)
        ids = [transform(ledger, took_s=1, records=number) for number in range(3)]
        transform(ledger)
        transform(ledger, "posts", took_s=1)
        found = attention.finished(ledger, ["reviews"], begun)
        assert [row.id for row in found] == ids
        later = attention.finished(ledger, ["reviews"], found[1].updated_at)
        assert [row.id for row in later] == ids[1:]
        earlier = attention.before(ledger, found[2])
        assert [row.counts["records"] for row in earlier] == [1, 0]


@pytest.mark.parametrize("change", [None, 1.0])
def test_each_change_is_a_later_event(url: str, change: float | None) -> None:
    with closing(Ledger(url)) as ledger:
        assert attention.last_event(ledger) == 0
        transform(ledger, took_s=change)
        first = attention.last_event(ledger)
        assert first > 0
        assert attention.last_event(ledger) == first
        transform(ledger)
        assert attention.last_event(ledger) > first
