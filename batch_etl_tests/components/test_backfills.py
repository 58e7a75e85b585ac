"""One run or a run for each partition: the same answers and the same bill, and never paid twice."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from threading import Thread

import dagster as dg
import pytest

from batch_etl.components.batch_pipeline import POOL
from batch_etl.emulator.server import running
from batch_etl_tests.components.make import DAILY, YAML, Project, edited, project
from batch_etl_tests.emulator.driver import Driver

FIRST = dt.date(2026, 1, 1)
KEYS = [(FIRST + dt.timedelta(days=day)).isoformat() for day in range(100)]
A_DAY = 50

HUNDRED_DAYS = edited(
    DAILY, ('start: "2026-11-01", end: "2026-11-05"', f'start: "{KEYS[0]}", end: "2026-04-11"')
)


def records() -> str:
    rows = [f"{key}-{n},{key},Note number {n} of {key}" for key in KEYS for n in range(A_DAY)]
    return "\n".join(["note_id,written_on,text", *rows, ""])


@dataclass(frozen=True)
class Bill:
    """What was bought, as the emulator and the table tell it."""

    batches: int
    requests: int
    answered: int
    cost_usd: Decimal


@contextmanager
def site(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Project, Driver]]:
    """A hundred days of records, and an emulator that has seen none of them."""
    with running() as url, Driver(url) as driver, project(folder) as made:
        monkeypatch.setenv("BATCH_ETL_HOME", str(folder))
        monkeypatch.setenv("BATCH_ETL_ENDPOINT", "emulator")
        monkeypatch.setenv("BATCH_ETL_EMULATOR_URL", url)
        driver.pace(end_s=0, retry_after_s=0)
        made.write(HUNDRED_DAYS, {"notes.csv": records()})
        yield made, driver


def bill(made: Project, driver: Driver) -> Bill:
    status = driver.status()
    assert status["requests_billed_twice"] == 0
    query = "SELECT count(*) FILTER (_state = 'answered'), sum(_cost_usd) FROM emulator.mine"
    ((answered, cost_usd),) = made.query(query)
    return Bill(status["creates_accepted"], status["requests_billed"], answered, cost_usd)


def test_a_hundred_partitions_cost_the_same_in_one_batch_and_in_a_hundred(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with site(tmp_path / "one", monkeypatch) as (made, driver):
        first = made.run(first=KEYS[0], last=KEYS[-1])
        assert first.success, first.error
        at_once = bill(made, driver)
        assert made.run(first=KEYS[0], last=KEYS[-1]).success
        assert made.run(partition=KEYS[7]).success
        assert bill(made, driver) == at_once
    with (
        site(tmp_path / "hundred", monkeypatch) as (made, driver),
        dg.DagsterInstance.ephemeral() as instance,
    ):
        run = partial(made.run, definitions=made.load(), instance=instance)
        assert all(run("records", "results", partition=key).success for key in KEYS)
        assert run("table", first=KEYS[0], last=KEYS[-1]).success
        one_by_one = bill(made, driver)
        assert run(first=KEYS[0], last=KEYS[-1]).success
        assert bill(made, driver) == one_by_one
    assert (at_once.batches, one_by_one.batches) == (1, 100)
    assert (at_once.requests, at_once.answered) == (5_000, 5_000)
    assert at_once.cost_usd > 0
    assert one_by_one == Bill(100, at_once.requests, at_once.answered, at_once.cost_usd)


# What Dagster is told ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "most"),
    [("", None), (", backfill: one_run", None), (", backfill: run_per_partition", 1)],
)
def test_all_assets_of_a_pipeline_share_the_policy_that_its_yaml_names(
    mine: Project, emulator: Driver, said: str, most: int | None
) -> None:
    mine.write(edited(DAILY, ('end: "2026-11-05"', f'end: "2026-11-05"{said}')))
    policies = {
        spec.key.path[-1]: definition.backfill_policy
        for definition in mine.load().resolve_asset_graph().assets_defs
        for spec in definition.specs
    }
    assert set(policies) == {"records", "results", "table"}
    assert {policy and policy.max_partitions_per_run for policy in policies.values()} == {most}


def test_a_range_run_is_one_run_even_where_backfills_are_run_by_run(
    mine: Project, emulator: Driver
) -> None:
    alone = ('end: "2026-11-05"', 'end: "2026-11-05", backfill: run_per_partition')
    mine.write(edited(DAILY, alone))
    run = mine.run(first="2026-11-01", last="2026-11-03")
    assert run.partitions("table") == ["2026-11-01", "2026-11-02", "2026-11-03"]
    assert emulator.status()["creates_accepted"] == 1


def made_by(instance: dg.DagsterInstance) -> set[str]:
    keys = [dg.AssetKey(["mine", step]) for step in ("records", "results", "table")]
    events = instance.get_latest_materialization_events(keys)
    return {key.path[-1] for key, event in events.items() if event}


def test_only_the_table_holds_the_pool_of_the_writer(
    mine: Project, emulator: Driver, tmp_path: Path
) -> None:
    mine.write(YAML)
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        slots = instance.event_log_storage
        slots.set_concurrency_slots(POOL, 1)
        assert slots.claim_concurrency_slot(POOL, "another-run", "its_table").is_claimed
        runs: list[bool] = []
        work = Thread(target=lambda: runs.append(mine.run(instance=instance).success))
        work.start()
        try:
            while not slots.get_concurrency_info(POOL).pending_step_count:
                work.join(0.1)
                assert work.is_alive(), "the table did not ask for the pool"
            assert made_by(instance) == {"records", "results"}
        finally:
            slots.free_concurrency_slots_for_run("another-run")
            work.join()
        assert made_by(instance) == {"records", "results", "table"}
    assert runs == [True]
    assert mine.query("SELECT count(*) FROM emulator.mine") == [(5,)]
