"""``batch-etl dev`` ends all that it started, and the next one takes interrupted runs up again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from batch_etl_tests.acceptance.dev_site import PATIENCE_S, DevSite, dev_site
from batch_etl_tests.acceptance.processes import eventually
from batch_etl_tests.components.make import query
from batch_etl_tests.conftest import prerequisite

pytestmark = pytest.mark.acceptance

DAY = "2026-11-03"
SLOW_S = 86_000


def processes_of(home: Path) -> list[str]:
    """The commands of all living processes that were told of this home."""
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "environ").read_bytes()
            words = (process / "cmdline").read_bytes()
        except OSError:  # it has just ended, or is somebody else's
            continue
        if f"BATCH_ETL_HOME={home}\0".encode() in told and words:
            found.append(words.replace(b"\0", b" ").decode())
    return found


def dagster_of(site: DevSite) -> int:
    """The process that ``batch-etl dev`` has started beside the emulator."""
    pid = site.process.pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if b"\0dagster\0dev\0" in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    raise AssertionError("no dagster dev")


def waiting(site: DevSite) -> str:
    """The id of a run that waits for its batch."""
    site.emulator.pace(end_s=SLOW_S)
    run_id = site.ui.launch("content_moderation", DAY)

    def sent() -> bool:
        return site.emulator.status()["creates_accepted"] == 1

    eventually("the batch is at the API", sent, site.log, PATIENCE_S)
    return run_id


def test_a_run_that_waits_ends_with_dev_and_is_taken_up_by_the_next_one(tmp_path: Path) -> None:
    prerequisite(Path("/proc/self/environ").exists(), "a /proc that tells of processes")
    with dev_site(tmp_path) as site:
        run_id = waiting(site)
        assert len(processes_of(site.home)) > 3
        site.process.send_signal(signal.SIGHUP)  # as its terminal does that closes
        site.process.send_signal(signal.SIGHUP)
        assert site.process.wait(60) == 0
        assert processes_of(site.home) == []

    with dev_site(tmp_path) as site:
        (first,) = site.ui.runs(runIds=[run_id])
        assert first["status"] == "FAILURE"
        assert first["tags"]["dagster/will_retry"] == "true"
        site.emulator.clock(advance_s=SLOW_S)

        def again() -> bool:
            found = site.ui.runs(tags=[{"key": "dagster/parent_run_id", "value": run_id}])
            return any(run["status"] == "SUCCESS" for run in found)

        eventually("the run is tried again", again, site.log, PATIENCE_S)
        status = site.emulator.status()
        assert (status["creates_accepted"], status["requests_billed_twice"]) == (1, 0)
        os.kill(dagster_of(site), signal.SIGKILL)
        assert site.process.wait(60) == 1
        assert processes_of(site.home) == []
    loaded = "SELECT DISTINCT _partition, _state FROM emulator.content_moderation"
    assert query(site.home, loaded) == [(DAY, "answered")]
