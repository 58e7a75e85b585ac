"""The asset ``monitoring/report`` and ``batch-etl report`` write one page of what was loaded."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner

from batch_etl.cli import cli
from batch_etl.components.report import KEY
from batch_etl.warehouse.report_page import dollars
from batch_etl_tests.components.make import DAILY, Project, Run
from batch_etl_tests.emulator.driver import Driver

MONITORING = "type: batch_etl.components.Monitoring\n"


@pytest.fixture
def reporting(mine: Project, emulator: Driver) -> Project:
    mine.write(DAILY)
    write(mine, MONITORING)
    return mine


def write(project: Project, text: str) -> None:
    folder = project.folder / "monitoring"
    folder.mkdir(exist_ok=True)
    (folder / "defs.yaml").write_text(text)


def make(project: Project) -> Run:
    definitions = project.load()
    result = dg.materialize(
        [definitions.get_assets_def(KEY)],
        resources=dict(definitions.resources or {}),
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )
    return Run(result)


def test_the_report_is_made_by_the_asset_and_by_the_command(reporting: Project) -> None:
    nothing = make(reporting)
    assert not nothing.success
    assert "nothing has been loaded and published yet" in nothing.error

    assert reporting.run(first="2026-11-01", last="2026-11-03").success
    made = make(reporting)
    assert made.success, made.error
    page = reporting.home / "report.html"
    assert made.facts("report")["dagster/uri"] == str(page)
    summary = made.facts("report")["summary"]
    assert "| emulator | 5 | 0 | 5 | $0.00" in summary
    assert "(emulated: would have cost)" in summary
    text = page.read_text("utf-8")
    assert "made up by a program" in text
    assert "emulator.mine" in text
    ((cost_usd,),) = reporting.query("SELECT sum(cost_usd) FROM emulator.batches")
    assert f"<td>{dollars(cost_usd)}</td>" in text

    page.unlink()
    assert "report.html" in command("report")
    assert "<td>5</td>" in page.read_text("utf-8")
    elsewhere = reporting.home / "elsewhere" / "page.html"
    assert "emulator" in command("report", "--to", str(elsewhere), "--days", "1")
    assert elsewhere.exists()
    assert list(Path(elsewhere.parent).iterdir()) == [elsewhere]


def command(*words: str) -> str:
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_cron_makes_a_schedule_that_runs_from_the_start(reporting: Project) -> None:
    assert not list(reporting.load().schedules or [])
    attributes = 'attributes:\n  report: {cron: "0 6 * * *", timezone: Europe/Berlin}\n'
    write(reporting, MONITORING + attributes)
    (schedule,) = reporting.load().schedules or []
    assert isinstance(schedule, dg.ScheduleDefinition)
    assert schedule.cron_schedule == "0 6 * * *"
    assert schedule.execution_timezone == "Europe/Berlin"
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
