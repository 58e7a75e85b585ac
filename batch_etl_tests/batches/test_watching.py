"""One list call tells which of many open transforms can go on; history tells how long it takes."""

from __future__ import annotations

import datetime as dt

import pytest

from batch_etl.batches.watching import Duration, due, expected_end, spoken, usual_duration
from batch_etl_tests.batches.engine import Site, rows

NOON = dt.datetime(2026, 11, 23, 12, 0, tzinfo=dt.UTC)
USUAL = Duration(600.0, 1800.0, 20)


def start(place: Site, pipeline: str, count: int = 3, start: int = 0) -> str:
    runner = place.runner()
    transform = place.transform(rows(count, start=start), pipeline=pipeline)
    identity = runner.open(transform)
    runner.advance(identity, transform)
    return identity


def test_a_transform_is_due_when_all_its_batches_have_ended(slow):
    first = start(slow, "first")
    slow.clock(advance_s=1800)
    start(slow, "second", start=10)
    slow.clock(advance_s=2000)
    assert [row.id for row in due(slow.exchange())] == [first]


def test_many_open_batches_are_one_call(slow):
    for number in range(30):
        start(slow, f"pipeline_{number}", start=10 * number)
    before = slow.status()["http_calls"]
    assert due(slow.exchange()) == []
    after = slow.status()["http_calls"]
    assert {k: v - before.get(k, 0) for k, v in after.items() if v != before.get(k, 0)} == {
        "list": 1
    }


def test_only_the_pipelines_asked_for_are_looked_at(slow):
    start(slow, "first")
    second = start(slow, "second", start=10)
    slow.clock(advance_s=4000)
    assert [row.id for row in due(slow.exchange(), ["second"])] == [second]


def test_a_transform_that_awaits_anothers_batch_is_due_with_it(slow):
    start(slow, "first")
    second = start(slow, "second")
    assert due(slow.exchange(), ["second"]) == []
    slow.clock(advance_s=4000)
    assert [row.id for row in due(slow.exchange(), ["second"])] == [second]


def test_a_batch_that_is_gone_lets_its_transform_go_on_to_say_so(slow):
    identity = start(slow, "first")
    slow.clock(advance_s=4000)
    (batch,) = slow.ledger().batches()
    slow.client().delete(batch.batch_id or "")
    assert [row.id for row in due(slow.exchange())] == [identity]


def test_what_could_not_be_sent_yet_is_due(slow):
    slow.faults({"kind": "error", "route": "create", "status": 429, "times": 9})
    identity = start(slow, "first")
    assert [row.id for row in due(slow.exchange())] == [identity]


def test_a_transform_that_is_done_is_never_due(slow):
    slow.pace(end_s=0.0)
    slow.run(slow.transform(rows(3)))
    assert due(slow.exchange()) == []


def test_how_long_it_takes_is_learned_from_the_pipelines_own_batches_else_from_all(slow):
    assert usual_duration(slow.exchange(), "first") is None
    slow.pace(end_s=0.0)
    for number in range(3):
        slow.run(slow.transform(rows(2, start=10 * number), pipeline="first"))
    usual = usual_duration(slow.exchange(), "first")
    assert usual is not None
    assert usual.batches == 3
    assert usual_duration(slow.exchange(), "another") == usual


@pytest.mark.parametrize(
    ("minutes", "words"),
    [
        (0, "likely from 12:10 to 12:30 UTC, as 20 before it"),
        (25, "likely from 12:10 to 12:30 UTC, as 20 before it"),
        (31, "longer than nine of the last ten (30 min)"),
    ],
)
def test_what_is_said_of_a_batchs_end(minutes, words):
    assert expected_end(NOON, USUAL, NOON + dt.timedelta(minutes=minutes)) == words


def test_nothing_is_said_without_history():
    assert expected_end(NOON, None, NOON) is None


@pytest.mark.parametrize(
    ("seconds", "words"), [(7.2, "7 s"), (89, "89 s"), (120, "2 min"), (7200, "2.0 h")]
)
def test_durations_are_spoken(seconds, words):
    assert spoken(seconds) == words
