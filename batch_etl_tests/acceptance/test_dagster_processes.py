"""Dagster's own processes on a copy of this project, with its dagster.yaml, and an emulator."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from batch_etl_tests.acceptance.dagster_ui import STEPS, Ui
from batch_etl_tests.acceptance.processes import (
    command,
    copied_project,
    eventually,
    free_port,
    started,
    succeed,
)
from batch_etl_tests.components.make import query
from batch_etl_tests.emulator.driver import Driver

pytestmark = pytest.mark.acceptance


@pytest.fixture
def checkout(tmp_path: Path, emulator: Driver) -> Path:
    """A checkout in which nothing is set but the emulator: its state goes below ``data/``."""
    return copied_project(tmp_path / "checkout")


def test_dg_loads_the_project_and_runs_one_day(checkout: Path, emulator: Driver) -> None:
    said = succeed(command("dg"), "check", "defs", cwd=checkout)
    assert "All component YAML validated successfully" in said
    assert "All definitions loaded successfully" in said
    assets = ",".join(f"content_moderation/{step}" for step in STEPS)
    launch = [command("dg"), "launch", "--assets", assets, "--partition", "2026-11-03"]
    succeed(*launch, cwd=checkout)
    status = emulator.status()
    assert status["creates_accepted"] == 1
    table = "SELECT DISTINCT _partition, _state FROM emulator.content_moderation"
    assert query(checkout / "data", table) == [("2026-11-03", "answered")]
    assert sorted(path.name for path in checkout.iterdir() if not path.name.startswith(".")) == [
        "batch_etl", "dagster.yaml", "data", "pyproject.toml", "workspace.yaml",
    ]  # fmt: skip
    assert (checkout / "data" / "dagster" / "history" / "runs.db").exists()


def test_a_backfill_of_three_days_from_the_ui_is_one_run_and_one_batch(
    checkout: Path, emulator: Driver, tmp_path: Path
) -> None:
    port, log = free_port(), tmp_path / "dagster.log"
    env = {"DAGSTER_HOME": str(checkout), "PYTHONUNBUFFERED": "1"}
    where = ("-w", "workspace.yaml")
    web = (command("dagster-webserver"), "-h", "127.0.0.1", "-p", str(port), *where)
    daemon = (command("dagster-daemon"), "run", *where)
    days = ["2026-11-04", "2026-11-05", "2026-11-06"]
    with ExitStack() as running:
        running.enter_context(started(*web, cwd=checkout, env=env, log=log))
        ui = Ui(port)
        eventually("the UI is up", ui.is_up, log, within_s=90)
        # Only now: two processes that make Dagster's databases at once trip over each other.
        log = tmp_path / "daemon.log"
        running.enter_context(started(*daemon, cwd=checkout, env=env, log=log))
        backfill = ui.backfill("feedback_analysis", days)
        ended = eventually("the backfill ends", lambda: ui.backfilled(backfill), log, within_s=240)
    assert ended == {"status": "COMPLETED_SUCCESS", "runs": [{"status": "SUCCESS"}]}
    assert emulator.status()["creates_accepted"] == 1
    loaded = "SELECT DISTINCT _partition FROM emulator.feedback_analysis ORDER BY 1"
    assert query(checkout / "data", loaded) == [(day,) for day in days]
