"""Terminate in the UI while a run waits: the batches go on, or are cancelled where YAML says so."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from batch_etl_tests.acceptance.dagster_ui import Ui
from batch_etl_tests.acceptance.processes import (
    command,
    copied_project,
    eventually,
    free_port,
    started,
)
from batch_etl_tests.emulator.driver import Driver

pytestmark = pytest.mark.acceptance


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
            run_id = ui.launch(pipeline, "2026-11-04")

            def there(sent: int = sent) -> bool:
                return emulator.status()["creates_accepted"] == sent

            eventually("the batch is at the API", there, log, within_s=120)
            ui.terminate(run_id)
            status = eventually("the run ends", lambda r=run_id: ui.ended(r), log, within_s=120)
            assert status == "CANCELED"
            newest = emulator.http.get("/v1/messages/batches?limit=1").json()["data"][0]
            states[pipeline] = newest["processing_status"]
    assert states == {"feedback_analysis": "in_progress", "content_moderation": "ended"}
    assert emulator.status()["requests_billed"] == 0
