"""Terminate in the UI while a run waits: the batches go on, or are cancelled where YAML says so."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from batch_etl_tests.acceptance.processes import (
    command,
    copied_project,
    eventually,
    free_port,
    started,
)
from batch_etl_tests.acceptance.test_dagster_processes import STEPS, Ui
from batch_etl_tests.emulator.driver import Driver

pytestmark = pytest.mark.acceptance

LAUNCH = """
mutation($what: ExecutionParams!) { launchRun(executionParams: $what) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }
"""
TERMINATE = "mutation($id: String!) { terminateRun(runId: $id) { __typename } }"
RUN = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"


def launch(ui: Ui, pipeline: str) -> str:
    """Materialize one day of the pipeline; returns the run's id."""
    what = {
        "selector": {
            "repositoryName": "__repository__",
            "repositoryLocationName": "batch_etl.definitions",
            "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": [pipeline, step]} for step in STEPS],
        },
        "executionMetadata": {"tags": [{"key": "dagster/partition", "value": "2026-11-04"}]},
        "runConfigData": {},
    }
    launched = ui.ask(LAUNCH, what=what)["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    return launched["run"]["runId"]


def ended(ui: Ui, run_id: str) -> str | None:
    status = ui.ask(RUN, id=run_id)["runOrError"]["status"]
    return status if status in ("SUCCESS", "FAILURE", "CANCELED") else None


def test_terminate_leaves_the_batches_or_cancels_them_as_the_pipeline_says(
    tmp_path: Path, emulator: Driver
) -> None:
    checkout = copied_project(tmp_path / "checkout")
    defs = checkout / "batch_etl" / "defs" / "content_moderation" / "defs.yaml"
    before = defs.read_text()
    defs.write_text(before.replace("attributes:\n", "attributes:\n  on_terminate: cancel\n", 1))
    emulator.pace(end_s=86_000, cancel_s=0)
    port, log = free_port(), tmp_path / "dagster.log"
    env = {"DAGSTER_HOME": str(checkout), "PYTHONUNBUFFERED": "1"}
    where = ("-w", "workspace.yaml")
    web = (command("dagster-webserver"), "-h", "127.0.0.1", "-p", str(port), *where)
    daemon = (command("dagster-daemon"), "run", *where)
    with ExitStack() as running:
        running.enter_context(started(*web, cwd=checkout, env=env, log=log))
        ui = Ui(port)
        eventually("the UI is up", ui.is_up, log, within_s=90)
        log = tmp_path / "daemon.log"
        running.enter_context(started(*daemon, cwd=checkout, env=env, log=log))
        states: dict[str, Any] = {}
        for sent, pipeline in enumerate(("feedback_analysis", "content_moderation"), 1):
            run_id = launch(ui, pipeline)

            def there(sent: int = sent) -> bool:
                return emulator.status()["creates_accepted"] == sent

            eventually("the batch is at the API", there, log, within_s=120)
            ui.ask(TERMINATE, id=run_id)
            status = eventually("the run ends", lambda r=run_id: ended(ui, r), log, within_s=120)
            assert status == "CANCELED"
            newest = emulator.http.get("/v1/messages/batches?limit=1").json()["data"][0]
            states[pipeline] = newest["processing_status"]
    assert states == {"feedback_analysis": "in_progress", "content_moderation": "ended"}
    assert emulator.status()["requests_billed"] == 0
