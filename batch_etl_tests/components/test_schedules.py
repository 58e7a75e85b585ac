"""Schedules: what a tick asks for, and that such a run is the right one."""

from __future__ import annotations

import datetime as dt

import dagster as dg
import pytest

from batch_etl.components.partitions import Partitions
from batch_etl.components.schedules import RANGE, Schedule, request
from batch_etl_tests.components.make import DAILY, YAML, Project, edited
from batch_etl_tests.components.test_checks import DAYS, with_block
from batch_etl_tests.emulator.driver import Driver

CRON = "schedule: '30 2 * * *'"


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def partitions(**keys: object) -> dg.PartitionsDefinition[str]:
    return Partitions.load(keys, "partitions").definition()


DAILY_FROM: dict[str, object] = {"type": "daily", "start": "2026-11-01"}
TICKS: dict[str, tuple[dict[str, object], str, float, str | None]] = {
    # name: (partitions, time of the tick, lag, partition asked for)
    "the day before": (DAILY_FROM, "2026-11-05T02:30", 0, "2026-11-04"),
    "at midnight": (DAILY_FROM, "2026-11-05T00:00", 0, "2026-11-04"),
    "a lag that ends after midnight": (DAILY_FROM, "2026-11-05T02:30", 3, "2026-11-03"),
    "a lag that has passed": (DAILY_FROM, "2026-11-05T02:30", 2.5, "2026-11-04"),
    "before the first has closed": (DAILY_FROM, "2026-11-01T12:00", 0, None),
    "midnight elsewhere": (
        {**DAILY_FROM, "timezone": "Europe/Berlin"},
        "2026-11-04T23:30",
        0,
        "2026-11-04",
    ),
    "the last of all": (
        {**DAILY_FROM, "end": "2026-11-05"},
        "2026-11-05T02:30",
        0,
        "2026-11-04",
    ),
    "after the last of all": ({**DAILY_FROM, "end": "2026-11-05"}, "2026-11-06T02:30", 0, None),
    "an hour": (
        {"type": "hourly", "start": "2026-11-01"},
        "2026-11-05T02:05",
        0,
        "2026-11-05-01:00",
    ),
    "a week, in its middle": (
        {"type": "weekly", "start": "2026-11-01"},
        "2026-11-11T02:05",
        0,
        "2026-11-01",
    ),
    "a month": ({"type": "monthly", "start": "2026-01-01"}, "2026-11-02T00:00", 0, "2026-10-01"),
}


@pytest.mark.parametrize("name", TICKS)
def test_a_tick_asks_for_the_partition_that_has_just_closed(name: str) -> None:
    keys, tick, lag_hours, wanted = TICKS[name]
    asked = request(partitions(**keys), at(tick), lag_hours)
    if wanted is None:
        assert isinstance(asked, dg.SkipReason)
        assert asked.skip_message
    else:
        assert isinstance(asked, dg.RunRequest)
        assert (asked.partition_key, asked.run_key) == (wanted, None)


def test_a_tick_of_static_partitions_asks_for_all_in_one_run() -> None:
    asked = request(partitions(type="static", keys=["a", "b", "c"]), at("2026-11-05T02:30"))
    assert isinstance(asked, dg.RunRequest)
    assert dict(asked.tags) == dict(zip(RANGE, ("a", "c"), strict=True))


def test_a_tick_without_partitions_asks_for_everything() -> None:
    assert request(None, at("2026-11-05T02:30")) == dg.RunRequest()


def tick(definitions: dg.Definitions, time: str) -> dg.RunRequest:
    """The one run that the schedule asks for, as the daemon evaluates it."""
    schedule = definitions.resolve_schedule_def("mine_schedule")
    context = dg.build_schedule_context(
        scheduled_execution_time=at(time),
        repository_def=definitions.get_repository_def(),
    )
    (asked,) = schedule.evaluate_tick(context).run_requests or []
    return asked


@pytest.mark.parametrize("kind", ["daily", "static", "none"])
def test_the_run_that_a_tick_asks_for_is_of_all_three_assets(
    mine: Project, emulator: Driver, kind: str
) -> None:
    daily = '  partitions: {type: daily, start: "2026-11-01", end: "2026-11-05"}\n'
    static = '  partitions: {type: static, keys: ["2026-11-01", "2026-11-02"]}\n'
    text = {"daily": DAILY, "static": edited(DAILY, (daily, static)), "none": YAML}[kind]
    mine.write(with_block(text, CRON))
    definitions = mine.load()
    asked = tick(definitions, "2026-11-04T02:30")
    job = definitions.resolve_job_def("mine_job")
    with dg.instance_for_test() as instance:
        result = job.execute_in_process(
            instance=instance, partition_key=asked.partition_key, tags=dict(asked.tags)
        )
    assert result.success
    events = result.get_asset_materialization_events()
    made = {(e.asset_key.path[-1], e.partition) for e in events if e.asset_key}
    days = {"daily": [DAYS[2]], "static": DAYS[:2], "none": [None]}[kind]
    assert made == {(step, day) for step in ("records", "results", "table") for day in days}
    assert emulator.status()["creates_accepted"] == 1
    assert result.get_asset_check_evaluations()


def test_a_schedule_is_stopped_named_described_and_in_the_partitions_zone(mine: Project) -> None:
    zoned = edited(DAILY, ("type: daily,", "type: daily, timezone: Europe/Berlin,"))
    mine.write(with_block(zoned, CRON))
    schedule = mine.load().resolve_schedule_def("mine_schedule")
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("30 2 * * *", "Europe/Berlin")
    assert schedule.job_name == "mine_job"
    assert "partition that had just closed" in (schedule.description or "")


def test_a_schedule_can_be_running_in_a_zone_of_its_own(mine: Project) -> None:
    block = "schedule: {cron: '@hourly', timezone: Asia/Tokyo, default_status: running}"
    mine.write(with_block(DAILY, block))
    schedule = mine.load().resolve_schedule_def("mine_schedule")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("@hourly", "Asia/Tokyo")


def test_without_a_schedule_there_is_none_and_no_job(mine: Project) -> None:
    mine.write(YAML)
    definitions = mine.load()
    assert not list(definitions.schedules or [])
    assert not list(definitions.jobs or [])


def test_a_text_and_a_block_are_both_in_the_json_schema() -> None:
    kinds = Schedule.model_json_schema()["anyOf"]
    assert {"type": "string"} in kinds
