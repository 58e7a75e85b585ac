"""Two open transforms that hold equal requests: one buys them, both are answered."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batch_etl.batches.ledger import Ledger
from batch_etl.batches.runner import Runner
from batch_etl.batches.transform import Transform
from batch_etl_tests.batches.engine import Site, rows, site, until_done


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as opened:
        yield opened


def started(place: Site, pipeline: str, records: Any, **changes: Any) -> tuple[Runner, str, Any]:
    """A transform of ``pipeline``, advanced once."""
    runner = place.runner()
    transform = place.transform(records, pipeline=pipeline, **changes)
    identity = runner.open(transform)
    runner.advance(identity, transform)
    return runner, identity, transform


def awaits(place: Site, identity: str) -> int:
    return len(place.ledger().transform(identity).awaits)


def answered(place: Site, pipeline: str, count: int) -> None:
    results = place.results(pipeline=pipeline)
    assert [row["record_row"] for row in results] == list(range(count))
    assert {row["state"] for row in results} == {"answered"}


def test_what_another_open_transform_is_buying_is_awaited_and_reused(slow):
    first = started(slow, "first", rows(30))
    second = started(slow, "second", rows(40, start=10))
    assert slow.status()["requests_received"] == 30 + 20
    assert awaits(slow, second[1]) == 1
    slow.clock(advance_s=7200)
    until_done(*second)
    until_done(*first)
    assert slow.bill == (50, 50, 0)
    answered(slow, "first", 30)
    answered(slow, "second", 40)
    counts = second[0].summary(second[1], second[2]).counts
    assert (counts["sent"], counts["reused"]) == (20, 20)


def test_a_transform_that_waits_collects_for_one_that_nobody_advances(slow):
    _, abandoned, _ = started(slow, "first", rows(10))
    second = started(slow, "second", rows(10))
    slow.clock(advance_s=7200)
    until_done(*second)
    assert slow.bill == (10, 10, 0)
    assert {batch.status for batch in slow.ledger().batches(transform_id=abandoned)} == {
        "collected"
    }


def test_what_the_other_could_not_buy_is_bought_after_all(slow):
    slow.faults({"kind": "expire_lines", "fraction": 0.5, "attempts": 1})
    started(slow, "first", rows(20))
    second = started(slow, "second", rows(20))
    slow.clock(advance_s=7200)
    slow.pace(end_s=0.0)
    until_done(*second)
    received, *billed = slow.bill
    assert billed == [20, 0]
    assert 20 < received < 40
    answered(slow, "second", 20)


def test_the_first_goes_on_with_what_the_second_bought_in_its_place(slow):
    slow.faults({"kind": "expire_lines", "attempts": 1})
    first = started(slow, "first", rows(20))
    second = started(slow, "second", rows(20))
    slow.clock(advance_s=7200)
    slow.pace(end_s=0.0)
    until_done(*second)
    until_done(*first)
    assert slow.bill == (40, 20, 0)
    answered(slow, "first", 20)
    answered(slow, "second", 20)


def test_a_batch_planned_long_ago_and_never_sent_holds_nobody_up(slow):
    slow.faults({"kind": "error", "route": "create", "status": 429, "times": 2})
    first = started(slow, "first", rows(10))
    slow.faults()
    old = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    with slow.ledger()._engine.begin() as tx:
        tx.exec_driver_sql("UPDATE batches SET planned_at = ?", (old.isoformat(" "),))
    second = started(slow, "second", rows(10))
    slow.pace(end_s=0.0)
    until_done(*second)
    assert slow.bill == (10, 10, 0)
    until_done(*first)
    assert slow.bill == (10, 10, 0)
    answered(slow, "first", 10)


class Overtaken(Ledger):
    """A ledger that lets another transform plan just before this one's batch is added."""

    other: Any = None

    def add_batch(self, *place: Any, **values: Any) -> list[str]:
        other, self.other = self.other, None
        if other is not None:
            other()
        return super().add_batch(*place, **values)


def overtaken(place: Site, records: Any, other: Any) -> tuple[Runner, str, Transform]:
    ledger = place.ledger(Overtaken)
    assert isinstance(ledger, Overtaken)
    ledger.other = other
    runner, transform = place.runner(ledger), place.transform(records, pipeline="second")
    identity = runner.open(transform)
    runner.advance(identity, transform)
    return runner, identity, transform


def test_who_is_overtaken_while_planning_takes_out_what_the_other_holds(slow):
    second = overtaken(slow, rows(30), lambda: started(slow, "first", rows(20)))
    assert slow.status()["requests_received"] == 30
    assert awaits(slow, second[1]) == 1
    slow.clock(advance_s=7200)
    until_done(*second)
    assert slow.bill == (30, 30, 0)
    answered(slow, "second", 30)


def test_who_is_overtaken_in_all_it_wanted_sends_nothing(slow):
    second = overtaken(slow, rows(20), lambda: started(slow, "first", rows(20)))
    assert slow.status()["creates_accepted"] == 1
    manifests = list((slow.root / "transforms" / second[1]).glob("*.manifest.parquet"))
    assert manifests == []


def test_who_is_overtaken_by_one_that_holds_nothing_of_it_sends_all(quick):
    second = overtaken(quick, rows(20), lambda: started(quick, "first", rows(5, start=100)))
    until_done(*second)
    assert quick.bill == (25, 25, 0)
    answered(quick, "second", 20)
