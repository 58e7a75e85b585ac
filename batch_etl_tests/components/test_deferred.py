"""Deferred waiting: runs end green, the sensor asks for the results, nothing is dropped or lost."""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from batch_etl.components.deferred import TRANSFORM_TAG
from batch_etl_tests.components.make import DAILY, RANGE, YAML, Project, Run
from batch_etl_tests.emulator.driver import Driver

DEFERRED = ("  source:\n", "  waiting: deferred\n  source:\n")
MONITORING = "type: batch_etl.components.Monitoring\n"


@pytest.fixture
def deferred(mine: Project, emulator: Driver) -> Project:
    """The daily pipeline ``mine`` with deferred waiting, before an emulator that takes an hour."""
    mine.write(DAILY.replace(*DEFERRED))
    monitoring = mine.folder / "monitoring"
    monitoring.mkdir()
    (monitoring / "defs.yaml").write_text(MONITORING)
    emulator.pace(end_s=3600)
    return mine


def tick(project: Project, instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    """What one tick of the sensor asks for."""
    definitions = project.load()
    repository = definitions.get_repository_def()
    sensor = repository.get_sensor_def("deferred_results")
    context = dg.build_sensor_context(
        instance=instance, repository_def=repository, resources=dict(definitions.resources or {})
    )
    found = sensor.evaluate_tick(context)
    return list(found.run_requests or [])


def tick_later(
    project: Project, instance: dg.DagsterInstance, **passed: float
) -> list[dg.RunRequest]:
    """What a tick asks for once so much time has passed."""
    later = dt.datetime.now(dt.UTC) + dt.timedelta(**passed)

    class Clock(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Any:
            return later.astimezone(tz)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("batch_etl.components.deferred.dt.datetime", Clock)
        return tick(project, instance)


def asked(project: Project, instance: dg.DagsterInstance) -> dg.RunRequest:
    """The one run that a tick asks for, once the emulator has made the answers."""
    until = time.monotonic() + 30
    while not (found := tick(project, instance)):
        assert time.monotonic() < until, "nothing was asked for"
        time.sleep(0.2)
    (request,) = found
    return request


def follow(project: Project, instance: dg.DagsterInstance, request: dg.RunRequest) -> Run:
    """Run what the sensor asked for."""
    tags = dict(request.tags)
    first, last = (tags.pop(name, None) for name in RANGE)
    assert {key.path[-1] for key in request.asset_selection or ()} == {"results", "table"}
    assert TRANSFORM_TAG in tags
    return project.run(
        "results",
        "table",
        first=first,
        last=last,
        partition=request.partition_key,
        instance=instance,
    )


def test_a_run_that_would_wait_ends_green_and_the_sensor_brings_the_results(
    deferred: Project, emulator: Driver, instance: dg.DagsterInstance
) -> None:
    run = deferred.run(first="2026-11-01", last="2026-11-03", instance=instance)
    assert run.success
    assert run.partitions("records") == ["2026-11-01", "2026-11-02", "2026-11-03"]
    assert run.partitions("results") == run.partitions("table") == []
    assert tick(deferred, instance) == []

    emulator.clock(advance_s=4000)
    request = asked(deferred, instance)
    assert request.tags[RANGE[0]] == "2026-11-01"
    assert request.tags[RANGE[1]] == "2026-11-03"
    brought = follow(deferred, instance, request)
    assert brought.success
    assert brought.partitions("table") == ["2026-11-01", "2026-11-02", "2026-11-03"]
    assert deferred.query("SELECT count(*) FROM emulator.mine") == [(5,)]
    assert tick(deferred, instance) == []
    assert emulator.status()["creates_accepted"] == 1


def test_one_partition_is_asked_for_as_one_partition(
    deferred: Project, emulator: Driver, instance: dg.DagsterInstance
) -> None:
    deferred.run(partition="2026-11-02", instance=instance)
    emulator.clock(advance_s=4000)
    request = asked(deferred, instance)
    assert request.partition_key == "2026-11-02"
    assert follow(deferred, instance, request).partitions("table") == ["2026-11-02"]


def test_a_pipeline_without_partitions_is_asked_for_whole(
    deferred: Project, emulator: Driver, instance: dg.DagsterInstance
) -> None:
    deferred.write(YAML.replace(*DEFERRED))
    assert deferred.run(instance=instance).partitions("results") == []
    emulator.clock(advance_s=4000)
    request = asked(deferred, instance)
    assert request.partition_key is None
    assert not set(RANGE) & set(request.tags)
    assert follow(deferred, instance, request).partitions("table") == [None]


def test_a_run_of_a_backfill_waits(deferred: Project, emulator: Driver, instance: Any) -> None:
    emulator.pace(end_s=0)
    loaded = deferred.load()
    steps = [loaded.get_assets_def(dg.AssetKey(["mine", name])) for name in ("records", "results")]
    result = dg.materialize(
        steps,
        instance=instance,
        resources=dict(loaded.resources or {}),
        tags={RANGE[0]: "2026-11-01", RANGE[1]: "2026-11-02", "dagster/backfill": "b"},
    )
    assert Run(result).partitions("results") == ["2026-11-01", "2026-11-02"]


def test_a_second_attempt_is_deferred_as_well(
    deferred: Project, emulator: Driver, instance: dg.DagsterInstance
) -> None:
    emulator.faults({"kind": "expire_lines", "attempts": 1})
    deferred.run(partition="2026-11-02", instance=instance)
    emulator.clock(advance_s=4000)
    request = asked(deferred, instance)
    assert follow(deferred, instance, request).partitions("results") == []
    assert tick(deferred, instance) == []
    emulator.clock(advance_s=4000)
    request = asked(deferred, instance)
    assert follow(deferred, instance, request).partitions("table") == ["2026-11-02"]
    assert emulator.status()["requests_billed"] == 2


def test_a_run_that_failed_is_asked_for_again_after_a_pause(
    deferred: Project, emulator: Driver, instance: dg.DagsterInstance
) -> None:
    deferred.run(partition="2026-11-02", instance=instance)
    emulator.clock(advance_s=4000)
    request = asked(deferred, instance)
    emulator.faults({"kind": "error", "route": "results", "status": 403, "times": 1})
    assert not follow(deferred, instance, request).success
    assert tick(deferred, instance) == []
    (again,) = tick_later(deferred, instance, minutes=2)
    assert again.partition_key == "2026-11-02"
    assert again.run_key is None


def test_a_table_that_could_not_be_loaded_is_asked_for_again_alone(
    deferred: Project, emulator: Driver, instance: dg.DagsterInstance
) -> None:
    deferred.run(first="2026-11-01", last="2026-11-03", instance=instance)
    emulator.clock(advance_s=4000)
    request = asked(deferred, instance)
    working = break_warehouse(deferred)
    assert not follow(deferred, instance, request).success
    assert tick(deferred, instance) == []
    (again,) = tick_later(deferred, instance, minutes=2)
    assert [key.path for key in again.asset_selection or ()] == [["mine", "table"]]
    assert [again.tags[name] for name in RANGE] == ["2026-11-01", "2026-11-03"]

    record(deferred, instance, again, dg.DagsterRunStatus.FAILURE)
    assert tick_later(deferred, instance, seconds=90) == []  # the second pause is longer
    assert tick_later(deferred, instance, minutes=3) == [again]
    assert tick_later(deferred, instance, days=8) == []
    record(deferred, instance, again, dg.DagsterRunStatus.STARTED)
    assert tick_later(deferred, instance, minutes=3) == []

    working.unlink()
    loaded = deferred.run("table", first=again.tags[RANGE[0]], last=again.tags[RANGE[1]])
    assert loaded.partitions("table") == ["2026-11-01", "2026-11-02", "2026-11-03"]
    assert emulator.status()["creates_accepted"] == 1


def test_a_table_that_somebody_loaded_since_is_not_asked_for(
    deferred: Project, emulator: Driver, instance: dg.DagsterInstance
) -> None:
    deferred.run(partition="2026-11-02", instance=instance)
    emulator.clock(advance_s=4000)
    request = asked(deferred, instance)
    working = break_warehouse(deferred)
    assert not follow(deferred, instance, request).success
    working.unlink()
    assert deferred.run("table", partition="2026-11-02", instance=instance).success
    assert tick_later(deferred, instance, minutes=2) == []


def test_results_that_a_check_kept_from_the_table_are_not_asked_for_again(
    deferred: Project, emulator: Driver, instance: dg.DagsterInstance
) -> None:
    blocking = "  checks: {success_rate: {min_share: 0.9, blocking: true}}\n  source:\n"
    deferred.write(DAILY.replace(*DEFERRED).replace("  source:\n", blocking))
    emulator.faults({"kind": "refuse_lines"})
    deferred.run(partition="2026-11-02", instance=instance)
    emulator.clock(advance_s=4000)
    refused = follow(deferred, instance, asked(deferred, instance))
    assert "success_rate" in refused.error
    assert tick_later(deferred, instance, minutes=2) == []


def break_warehouse(project: Project) -> Path:
    """The working file, which cannot be opened until it is removed."""
    working = project.home / "warehouse" / "working.duckdb"
    working.parent.mkdir(exist_ok=True)
    working.write_bytes(b"x" * 5000)
    return working


def record(
    project: Project,
    instance: dg.DagsterInstance,
    request: dg.RunRequest,
    status: dg.DagsterRunStatus,
) -> None:
    """A run that was asked for and is in this state."""
    instance.create_run_for_job(
        job_def=project.load().resolve_implicit_global_asset_job_def(),
        tags=dict(request.tags),
        status=status,
    )


def test_nothing_is_asked_for_while_a_run_of_the_transform_is_under_way(
    deferred: Project, emulator: Driver, instance: dg.DagsterInstance
) -> None:
    deferred.run(partition="2026-11-02", instance=instance)
    emulator.clock(advance_s=4000)
    request = asked(deferred, instance)
    record(deferred, instance, request, dg.DagsterRunStatus.STARTED)
    assert tick(deferred, instance) == []


def test_the_api_is_not_asked_where_no_pipeline_is_deferred(
    deferred: Project, emulator: Driver, instance: dg.DagsterInstance
) -> None:
    deferred.write(DAILY)
    before = emulator.status()["http_calls"]
    assert tick(deferred, instance) == []
    assert emulator.status()["http_calls"] == before


def test_pipelines_that_are_cut_in_different_ways_load_side_by_side(
    deferred: Project, emulator: Driver, instance: dg.DagsterInstance
) -> None:
    for name, cut in (
        ("whole", ""),
        ("by_key", "  partitions: {type: static, keys: [a, b]}\n"),
        ("by_hour", '  partitions: {type: hourly, start: "2026-11-01"}\n'),
    ):
        column = "    partition_column: written_on\n" if cut else ""
        text = YAML.replace("name: mine", f"name: {name}")
        folder = deferred.folder / name
        folder.mkdir()
        (folder / "defs.yaml").write_text(
            text.replace("    id: note_id\n", f"    id: note_id\n{column}{cut}")
        )
    dg.Definitions.validate_loadable(deferred.load())
    deferred.run(partition="2026-11-02", instance=instance)
    emulator.clock(advance_s=4000)
    assert asked(deferred, instance).partition_key == "2026-11-02"
