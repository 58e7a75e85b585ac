"""Dagster's real daemon: a schedule, the sensor of deferred results, a backfill run by run.

The emulator's clock is moved by hand, so that a batch takes minutes of its time and none of ours.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from batch_etl.components.deferred import TRANSFORM_TAG
from batch_etl_tests.acceptance.dagster_ui import STEPS
from batch_etl_tests.acceptance.dev_site import PATIENCE_S, DevSite, dev_site
from batch_etl_tests.acceptance.processes import eventually
from batch_etl_tests.components.make import YAML, edited, query

pytestmark = pytest.mark.acceptance

REGIONS = ("emea", "apac", "americas")
A_BATCH_TAKES_S = 600

HEAD = "  source:\n"
ID = "    id: note_id\n"


def days_until_now() -> list[str]:
    """The last days that have ended; one more is there for a test that runs over midnight."""
    today = dt.datetime.now(dt.UTC).date()
    return [(today - dt.timedelta(days=back)).isoformat() for back in (3, 2, 1, 0)]


def scheduled(first_day: str) -> str:
    """A pipeline that asks every minute for yesterday, and does not wait for the answers."""
    by_day = f'  partitions: {{type: daily, start: "{first_day}"}}\n'
    return edited(
        YAML,
        ("name: mine", "name: by_itself"),
        (HEAD, "  waiting: deferred\n" + HEAD),
        (HEAD, '  schedule: {cron: "* * * * *", default_status: running}\n' + HEAD),
        (ID, ID + "    partition_column: cut\n" + by_day),
    )


def run_by_run() -> str:
    """A pipeline whose backfills are a run for each partition."""
    keys = ", ".join(REGIONS)
    by_region = f"  partitions: {{type: static, keys: [{keys}], backfill: run_per_partition}}\n"
    return edited(
        YAML,
        ("name: mine", "name: by_region"),
        (ID, ID + "    partition_column: cut\n" + by_region),
    )


def notes(cuts: tuple[str, ...] | list[str]) -> str:
    rows = [f"{cut}-{n},{cut},Note {n} of {cut}" for cut in cuts for n in range(3)]
    return "\n".join(["note_id,cut,text", *rows, ""])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[DevSite]:
    days = days_until_now()
    files = {
        "by_itself": (scheduled(days[0]), notes(days)),
        "by_region": (run_by_run(), notes(REGIONS)),
    }
    for name, (text, records) in files.items():
        folder = tmp_path / "pipelines" / name
        folder.mkdir(parents=True)
        (folder / "defs.yaml").write_text(text)
        (folder / "notes.csv").write_text(records)
    (tmp_path / "pipelines" / "monitoring").mkdir()
    (tmp_path / "pipelines" / "monitoring" / "defs.yaml").write_text(
        "type: batch_etl.components.Monitoring\nattributes: {results_interval_s: 5}\n"
    )
    with dev_site(tmp_path, defs=tmp_path / "pipelines") as running:
        running.emulator.pace(end_s=A_BATCH_TAKES_S, retry_after_s=1)
        yield running


def created(site: DevSite) -> int:
    return site.emulator.status()["creates_accepted"]


def asked_by(site: DevSite, kind: str, name: str) -> list[dict[str, Any]]:
    """The runs that a schedule or sensor asked for, newest first, once all of them have ended."""
    runs = site.ui.runs(tags=[{"key": f"dagster/{kind}_name", "value": name}])
    ended = [run for run in runs if run["status"] in ("SUCCESS", "FAILURE", "CANCELED")]
    return ended if len(ended) == len(runs) else []


def of_schedule(site: DevSite) -> list[dict[str, Any]]:
    return asked_by(site, "schedule", "by_itself_schedule")


def of_sensor(site: DevSite) -> list[dict[str, Any]]:
    return asked_by(site, "sensor", "deferred_results")


def ticked(site: DevSite) -> bool:
    return any(tick["runIds"] for tick in site.ui.ticks("by_itself_schedule"))


def steps_done(run: dict[str, Any]) -> set[str]:
    done = {one["stepKey"] for one in run["stepStats"] if one["endTime"] and one["startTime"]}
    return {step for step in STEPS if any(key.endswith(f"__{step}") for key in done)}


def test_schedule_sensor_and_a_backfill_run_by_run_do_their_work_in_the_daemon(
    site: DevSite,
) -> None:
    backfill = site.ui.backfill("by_region", REGIONS)

    # The schedule's run sends and ends green; the backfill's runs send, and wait.
    eventually("the schedule ticks", lambda: ticked(site), site.log, PATIENCE_S)
    site.ui.stop_schedule("by_itself_schedule")
    first = eventually("its runs end", lambda: of_schedule(site), site.log, PATIENCE_S)[-1]
    assert first["status"] == "SUCCESS"
    days = set(days_until_now()[1:])
    assert first["tags"]["dagster/partition"] in days
    batches = len(REGIONS) + 1
    eventually("all is sent", lambda: created(site) >= batches, site.log, PATIENCE_S)
    assert of_sensor(site) == []
    assert site.ui.backfilled(backfill) is None
    assert not (site.home / "warehouse.duckdb").exists()

    # Ten minutes later, by the emulator's clock.
    site.emulator.clock(advance_s=A_BATCH_TAKES_S + 1)
    brought = eventually("the sensor asks", lambda: of_sensor(site), site.log, PATIENCE_S)[-1]
    assert brought["status"] == "SUCCESS"
    assert brought["tags"]["dagster/partition"] == first["tags"]["dagster/partition"]
    assert brought["tags"][TRANSFORM_TAG] == first["tags"][TRANSFORM_TAG]
    assert steps_done(brought) == {"results", "table"}
    found = eventually(
        "the backfill ends", lambda: site.ui.backfilled(backfill), site.log, PATIENCE_S
    )
    assert found["status"] == "COMPLETED_SUCCESS"
    assert [run["status"] for run in found["runs"]] == ["SUCCESS"] * len(REGIONS)

    loaded = "SELECT _partition, count(*) FROM emulator.{} GROUP BY 1 ORDER BY 1"
    assert query(site.home, loaded.format("by_region")) == [(r, 3) for r in sorted(REGIONS)]
    asked_for = first["tags"]["dagster/partition"]
    assert (asked_for, 3) in query(site.home, loaded.format("by_itself"))

    # One run a tick, and nothing is bought again.
    ticks = site.ui.ticks("by_itself_schedule")
    assert {tick["status"] for tick in ticks} <= {"SUCCESS", "STARTED"}, ticks
    assert all(len(tick["runIds"]) == 1 for tick in ticks if tick["status"] == "SUCCESS")
    asked = {run["tags"]["dagster/partition"] for run in of_schedule(site)}
    assert asked <= days | set(days_until_now())
    status = site.emulator.status()
    assert status["creates_accepted"] <= len(REGIONS) + len(asked)
    assert status["requests_billed_twice"] == 0
    writers_took_turns(site, backfill)


def writers_took_turns(site: DevSite, backfill: str) -> None:
    """The pool of dagster.yaml has one slot: no two loads of the backfill were at work at once."""
    runs = site.ui.runs(tags=[{"key": "dagster/backfill", "value": backfill}])
    loads = sorted(
        (step["startTime"], step["endTime"])
        for run in runs
        for step in run["stepStats"]
        if step["stepKey"] == "by_region__table"
    )
    assert len(loads) == len(REGIONS)
    assert all(ended <= began for (_, ended), (began, _) in pairwise(loads))
