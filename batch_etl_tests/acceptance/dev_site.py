"""``batch-etl dev`` as a real process: Dagster's UI and daemon, and the emulator that it starts."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from batch_etl.environment import SETTINGS
from batch_etl_tests.acceptance.dagster_ui import Ui
from batch_etl_tests.acceptance.processes import command, eventually, free_port, started
from batch_etl_tests.conftest import FOREIGN
from batch_etl_tests.emulator.driver import Driver

_EMULATOR = re.compile(r"emulator at (http://127\.0\.0\.1:\d+)\.")

PATIENCE_S = 600.0
"""For what takes seconds on a machine that does nothing else, and the daemon's pauses of 30 s."""


_PATIENT = {
    f"DAGSTER_{what}GRPC_TIMEOUT_SECONDS": str(int(PATIENCE_S))
    for what in ("", "REPOSITORY_", "SCHEDULE_", "SENSOR_")
}
"""Dagster gives its own code server 60 seconds, which a crowded machine may need."""


@dataclass(frozen=True)
class DevSite:
    """A running ``batch-etl dev``. All its state lies in ``home``."""

    home: Path
    log: Path
    ui: Ui
    emulator: Driver
    process: subprocess.Popen[bytes]


@contextmanager
def dev_site(folder: Path, *, defs: Path | None = None) -> Iterator[DevSite]:
    """The ready pipelines, or those of ``defs``; everything is ended when the body is left."""
    port, log, home = free_port(), folder / "dev.log", folder / "home"
    arguments = [command("batch-etl"), "dev", "--home", str(home), "--port", str(port)]
    ui = Ui(port)
    if defs is not None:
        arguments += ["--defs", str(defs)]
        ui = Ui(port, "batch_etl.commands.folder_definitions")
    environ = {"PYTHONUNBUFFERED": "1", **_PATIENT}
    with (
        _without_settings(),
        started(*arguments, cwd=folder, env=environ, log=log, patience_s=60) as process,
    ):
        told = eventually("it is told", lambda: _EMULATOR.search(log.read_text()), log, PATIENCE_S)
        eventually("the UI is up", ui.is_up, log, PATIENCE_S)
        with Driver(told[1]) as emulator:
            yield DevSite(home, log, ui, emulator, process)


@contextmanager
def _without_settings() -> Iterator[None]:
    """For fixtures that are older than those of one test."""
    with pytest.MonkeyPatch.context() as environ:
        for name in (*SETTINGS, *FOREIGN):
            environ.delenv(name, raising=False)
        yield
