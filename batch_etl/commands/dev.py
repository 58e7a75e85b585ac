"""``batch-etl dev``: the Dagster UI, its daemon and the emulator, ended together.

A run that waits is interrupted at the end: its batches go on, Dagster notes that the run is to be
tried again, and the next ``batch-etl dev`` does so. Nothing is left behind that asks a server which
is gone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import click

from batch_etl.commands import emulator, project, signals
from batch_etl.errors import BatchEtlError

_STOP_S = 20.0


def dev(home: Path | None, port: int, defs: Path | None) -> None:
    """Run until Ctrl-C, SIGTERM or the terminal's end; then end every process that was started."""
    settings = project.settings_at(home)
    on_claude = settings.endpoint == "anthropic"
    with signals.as_ctrl_c(), ExitStack() as stack:
        if on_claude:
            click.echo("Endpoint: anthropic. What you materialize is sent to Claude and billed.")
        else:
            url = settings.emulator_url
            if not os.environ.get("BATCH_ETL_EMULATOR_URL"):
                url = stack.enter_context(emulator.beside(settings.home))
            stack.enter_context(emulator.told(url))
            click.echo(f"Endpoint: emulator at {url}. Set BATCH_ETL_ENDPOINT=anthropic for Claude.")
        with project.instance(settings):
            pass  # its databases are made here, once, and not by two processes at the same moment
        dagster = _dagster(settings_home=str(project.dagster_home(settings)), port=port, defs=defs)
        process = stack.enter_context(dagster)
        click.echo(f"Dagster UI: http://127.0.0.1:{port}   (Ctrl-C ends everything)")
        _wait(process)


@contextmanager
def _dagster(settings_home: str, port: int, defs: Path | None) -> Iterator[subprocess.Popen[bytes]]:
    """Dagster's services in a process group of their own, of which nothing is left at the end."""
    environ = {**os.environ, "DAGSTER_HOME": settings_home, "PYTHONWARNINGS": "ignore"}
    module = "batch_etl.definitions"
    if defs is not None:
        environ[project.DEFS_FOLDER] = str(defs.absolute())
        module = "batch_etl.commands.folder_definitions"
    arguments = ["-m", "dagster", "dev", "-m", module, "-h", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, *arguments], env=environ, start_new_session=True
    )
    try:
        yield process
    finally:
        with signals.to_the_end():
            _stop(process)


def _wait(process: subprocess.Popen[bytes]) -> None:
    """Until Dagster ends by itself, which is an error, or we are told to stop."""
    try:
        code = process.wait()
    except KeyboardInterrupt:
        with suppress(OSError):  # the terminal may be gone
            click.echo("stopping ...", err=True)
        return
    raise BatchEtlError(f"Dagster ended with exit code {code}; its output is above")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask Dagster to end its services, then what is left of its group: runs that still wait.

    In this order: a daemon that lives would start an interrupted run anew at once.
    """
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_S)
    _signal(process.pid, signal.SIGTERM)
    until = time.monotonic() + _STOP_S
    while _signal(process.pid, 0) and time.monotonic() < until:
        process.poll()
        time.sleep(0.1)
    _signal(process.pid, signal.SIGKILL)
    process.wait()


def _signal(group: int, number: int) -> bool:
    """Whether there was a process of the group to take the signal; 0 only asks."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True
