"""The runner with its ledger in PostgreSQL: paid once, whatever is lost and whoever is killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batch_etl_tests.batches import engine
from batch_etl_tests.batches.engine import Site, child, rows
from batch_etl_tests.batches.postgres import Server

PACKED: dict[str, Any] = {"packing": {"max_requests": 15}}


@pytest.fixture
def site(tmp_path: Path, postgres: Server) -> Iterator[Site]:
    with engine.site(tmp_path, ledger_url=postgres.new_database()) as opened:
        yield opened
        assert not opened.home.ledger.exists()


def answered(site: Site, count: int) -> None:
    results = site.results()
    assert [row["record_row"] for row in results] == list(range(count))
    assert {(row["state"], row["outcome"]) for row in results} == {("answered", "Succeeded")}


def test_a_clean_run_sends_each_record_once_and_a_second_one_nothing(site):
    summary = site.run(site.transform(rows(60), **PACKED))
    assert site.bill == (60, 60, 0)
    answered(site, 60)
    assert len(summary.batches) == 4
    assert (summary.cost_pico_usd or 0) > 0
    again = site.run(site.transform(None, **PACKED))
    assert again.counts["reused"] == 60
    assert site.bill == (60, 60, 0)


def test_lines_that_fail_are_sent_again_in_the_same_run(site):
    site.faults({"kind": "expire_lines", "fraction": 0.1, "attempts": 1})
    site.run(site.transform(rows(100)))
    received, *bill = site.bill
    assert bill == [100, 0]
    assert received > 100
    answered(site, 100)


@pytest.mark.parametrize(
    "fault", [{"kind": "drop", "when": "after"}, {"kind": "cut", "route": "create"}]
)
def test_a_create_whose_reply_was_lost_is_paid_once(site, fault):
    site.faults({**fault, "skip": 1})
    site.run(site.transform(rows(60), **PACKED))
    answered(site, 60)
    assert site.bill == (60, 60, 0)
    assert site.status()["creates_accepted"] == 4


@pytest.mark.parametrize(
    ("at", "when"),
    [
        pytest.param(3, "after", id="before the create"),
        pytest.param(4, "before", id="after the create, before it was noted"),
        pytest.param(4, "after", id="after it was noted"),
    ],
)
def test_a_run_killed_around_its_create_is_paid_once(site, at, when):
    transform = site.transform(rows(40, texts=30), **PACKED)
    with child(site, {"at": at, "when": when}, **PACKED) as process:
        process.join(60)
        assert process.exitcode == -9
    site.run(transform)
    answered(site, 40)
    assert site.bill == (30, 30, 0)
    assert site.status()["creates_accepted"] == 2


def test_two_processes_at_once_pay_once(site):
    transform = site.transform(rows(60), **PACKED)
    with child(site, **PACKED) as first, child(site, **PACKED) as second:
        first.join(60)
        second.join(60)
        assert (first.exitcode, second.exitcode) == (0, 0)
    site.run(transform)
    answered(site, 60)
    assert site.bill == (60, 60, 0)
