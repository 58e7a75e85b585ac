"""Two runs over some of the same partitions at once, and records extracted again under a run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

import dagster as dg
import pytest

from batch_etl.batches import runner
from batch_etl.batches.ledger import Ledger
from batch_etl.components.steps import LOADED
from batch_etl.environment import read
from batch_etl.files import Home
from batch_etl.resources import runner_of
from batch_etl_tests.components.make import DAILY, NOTES, Project, Run, edited
from batch_etl_tests.emulator.driver import Driver
from batch_etl_tests.waiting import until

COUNT = "SELECT count(*), count(DISTINCT note_id), count(kind) FROM emulator.mine"
OF_N2 = "SELECT text, _request_key FROM emulator.mine WHERE note_id = 'n2'"
CHANGED = edited(NOTES, ("Go away", "Come back"))


@pytest.fixture
def daily(mine: Project, emulator: Driver) -> Project:
    mine.write(DAILY)
    emulator.pace(end_s=3600)
    return mine


@pytest.fixture
def beside() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


def waiting(
    project: Project,
    emulator: Driver,
    instance: dg.DagsterInstance,
    pool: ThreadPoolExecutor,
    days: tuple[str, str],
) -> Future[Run]:
    """A run that has sent its batch and waits for it."""
    before = emulator.status()["creates_accepted"]
    run = pool.submit(project.run, first=days[0], last=days[1], instance=instance)
    until(lambda: run.done() or emulator.status()["creates_accepted"] > before)
    assert not run.done()
    return run


def transforms(project: Project) -> list[str]:
    """The status of each transform, newest first."""
    with closing(Ledger(f"sqlite:///{project.home / 'ledger.db'}")) as ledger:
        return [row.status for row in ledger.transforms(pipeline="mine")]


def test_a_run_whose_partition_another_run_has_taken_over_goes_on_with_what_is_there(
    daily: Project,
    emulator: Driver,
    instance: dg.DagsterInstance,
    beside: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner, "_FIRST_WAIT_S", 8.0)  # so that the other one looks first
    of_range = waiting(daily, emulator, instance, beside, ("2026-11-01", "2026-11-03"))
    pipeline = LOADED["mine"]
    with runner_of(read()) as other:
        transform = pipeline.transform(Home.at(daily.home), ["2026-11-02"])
        of_day = other.open(transform)
        emulator.clock(advance_s=4000)
        until(lambda: other.advance(of_day, transform).done)
    assert transforms(daily) == ["done", "superseded"]
    run = of_range.result()
    assert run.success
    assert run.partitions("table") == ["2026-11-01", "2026-11-02", "2026-11-03"]
    assert daily.query(COUNT) == [(5, 5, 5)]
    assert transforms(daily) == ["done", "done", "superseded"]
    assert emulator.status()["requests_received"] == 5


def test_records_that_are_extracted_again_under_a_run_are_asked_about_by_it(
    daily: Project, emulator: Driver, instance: dg.DagsterInstance, beside: ThreadPoolExecutor
) -> None:
    run = waiting(daily, emulator, instance, beside, ("2026-11-01", "2026-11-03"))
    daily.write(DAILY, {"notes.csv": CHANGED})
    assert daily.run("records", partition="2026-11-01", instance=instance).success
    emulator.pace(end_s=0)
    emulator.clock(advance_s=4000)
    assert run.result().success
    ((text, key),) = daily.query(OF_N2)
    assert text == "Come back"
    assert emulator.status()["requests_received"] == 6
    assert daily.run(partition="2026-11-01", instance=instance).success
    assert daily.query(OF_N2) == [(text, key)]
    assert emulator.status()["requests_received"] == 6


def test_a_cancelled_run_is_not_taken_up_by_another_one_that_was_cancelled_too(
    daily: Project, emulator: Driver, instance: dg.DagsterInstance, beside: ThreadPoolExecutor
) -> None:
    of_range = waiting(daily, emulator, instance, beside, ("2026-11-01", "2026-11-03"))
    of_day = beside.submit(daily.run, partition="2026-11-02", instance=instance)
    until(lambda: len(transforms(daily)) == 2)
    with runner_of(read()) as canceling:
        for row in canceling.open_transforms("mine"):
            while canceling.cancel(row.id).status != "superseded":
                time.sleep(0.2)
    assert "was cancelled" in of_range.result().error
    assert "was cancelled" in of_day.result().error
    assert transforms(daily) == ["superseded", "superseded"]


def test_answers_are_never_loaded_beside_other_records_than_theirs(
    mine: Project, emulator: Driver
) -> None:
    """Also where row for row the ids are the same."""
    mine.write(DAILY)
    assert mine.run(partition="2026-11-01").success
    before = mine.query(OF_N2)
    mine.write(DAILY, {"notes.csv": CHANGED})
    assert mine.run("records", partition="2026-11-01").success
    error = mine.run("table", partition="2026-11-01").error
    assert "2026-11-01.parquet was extracted again, with other content" in error
    assert mine.query(OF_N2) == before
    assert mine.run("results", "table", partition="2026-11-01").success
    assert mine.query("SELECT text FROM emulator.mine WHERE note_id = 'n2'") == [("Come back",)]
