"""Two processes at the same moment on one transform, or on two that ask the same: paid once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from batch_etl.effects import watch
from batch_etl_tests.batches import engine
from batch_etl_tests.batches.engine import Site, rows
from batch_etl_tests.batches.test_ledger_processes import at_once, children, messages
from batch_etl_tests.faults import pipeline
from batch_etl_tests.faults.deaths import Between

PATIENCE_S = 60.0


@contextmanager
def a_site(folder: Path, ledger_url: str | None) -> Iterator[Site]:
    with engine.site(folder, ledger_url=ledger_url) as site:
        yield site


@pytest.fixture(params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    url = None
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").new_database()
    with a_site(tmp_path, url) as opened:
        yield opened


def times(site: Site, many: int, few: int) -> int:
    """How many races: many on SQLite, and on PostgreSQL, where each takes longer, a few."""
    return few if site.ledger_url else many


def runs(pipe: Connection, site: Site, own: str) -> None:
    """A process that runs a pipeline each time it is told its name (or ``own`` and a number)."""
    runner = site.runner()
    for name in messages(pipe):
        transform = site.transform(None, pipeline=name.replace("?", own))
        identity = runner.open(transform)
        until = time.monotonic() + PATIENCE_S
        progress = runner.advance(identity, transform)
        while progress.status not in ("done", "superseded"):
            assert time.monotonic() < until, progress
            time.sleep(min(progress.wait_s, 0.01))
            progress = runner.advance(identity, transform)
        pipe.send(progress.status)


def test_two_processes_racing_on_one_transform_submit_it_once_each_time(site: Site) -> None:
    races = times(site, 50, 10)
    with children(2, runs, site.again(), "") as processes:
        for race in range(races):
            site.transform(rows(4, start=100 * race), pipeline=f"race{race}")
            ends = at_once(processes, f"race{race}")
            assert "done" in ends
            assert site.status()["creates_accepted"] == race + 1
    assert site.bill == (4 * races, 4 * races, 0)
    assert {batch.status for batch in site.ledger().batches()} == {"collected"}


def test_equal_requests_of_two_transforms_at_once_are_bought_by_one_of_them(site: Site) -> None:
    """Each has texts of its own, and some that the other has too."""
    races = times(site, 20, 5)
    with (
        children(1, runs, site.again(), "a") as first,
        children(1, runs, site.again(), "b") as second,
    ):
        for race in range(races):
            start = 1_000 * race
            site.transform(rows(8, start=start), pipeline=f"a{race}", packing={"max_requests": 3})
            site.transform(rows(8, start=start + 3), pipeline=f"b{race}")
            assert at_once([*first, *second], f"?{race}") == ["done", "done"]
            assert site.bill == (11 * (race + 1), 11 * (race + 1), 0)


def test_a_transform_that_is_overtaken_in_the_middle_of_its_plan_buys_only_the_rest(
    site: Site,
) -> None:
    """The other plans and sends all when this one has filled its first payload of three."""
    ours = site.transform(rows(9), packing={"max_requests": 3})
    theirs = site.transform(rows(9), pipeline="theirs")
    runner, others = site.runner(), site.runner()
    identity, other = runner.open(ours), others.open(theirs)
    watch(Between("manifest renamed", "after", lambda: others.advance(other, theirs) and None))
    try:
        runner.advance(identity, ours)
    finally:
        watch(None)
    engine.until_done(runner, identity, ours)
    engine.until_done(others, other, theirs)
    assert site.bill == (9, 9, 0)
    assert {row["state"] for row in site.results()} == {"answered"}
    assert len(site.results()) == len(site.results(pipeline="theirs")) == 9


def test_a_pipeline_that_waits_for_another_reads_its_answers(site: Site) -> None:
    records = [{"id": f"r{n}", "text": f"I love item {n}", "day": "a"} for n in range(6)]
    for name in ("reviews", "twin"):
        pipeline.write_csv(site, records, name)
    pipeline.run(site, "twin")
    pipeline.run(site)
    assert site.bill == (6, 6, 0)
    shown = [{k: row[k] for k in ("id", "sentiment")} for row in pipeline.table(site)]
    assert shown == [
        {k: row[k] for k in ("id", "sentiment")} for row in pipeline.table(site, "twin")
    ]
