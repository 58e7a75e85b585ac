"""The emulator as a process: served in the foreground, or started beside a command."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from batch_etl.commands import signals
from batch_etl.environment import EMULATOR_URL, Settings
from batch_etl.errors import BatchEtlError

_START_S = 60.0


def serve(arguments: list[str]) -> None:
    """Become ``python -m batch_etl.emulator``, on the default port unless another is given."""
    if not any(argument.startswith("--port") for argument in arguments):
        arguments = ["--port", str(urlsplit(EMULATOR_URL).port), *arguments]
    if not any(argument.startswith("--state") for argument in arguments):
        home = Path(os.environ.get("BATCH_ETL_HOME") or "data").absolute()
        arguments = ["--state", str(home / "emulator"), *arguments]
    os.execv(sys.executable, [sys.executable, "-m", "batch_etl.emulator", *arguments])  # noqa: S606


@contextmanager
def beside(home: Path, *, port: int = 0, pace: tuple[str, ...] = ()) -> Iterator[str]:
    """An emulator with its state in ``home`` for as long as the body runs; yields its URL."""
    arguments = ["--port", str(port), "--state", str(home / "emulator"), *pace]
    with signals.as_ctrl_c():
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "batch_etl.emulator", *arguments],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield _url(process)
        finally:
            with signals.to_the_end():
                _stop(process)


def _url(process: subprocess.Popen[bytes]) -> str:
    """The URL in the line that the emulator prints when it is ready."""
    output = process.stdout
    line = output.readline() if output and select.select([output], [], [], _START_S)[0] else b""
    if not line:
        raise BatchEtlError("the emulator did not start; try `batch-etl emulator` to see why")
    return json.loads(line)["url"]


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout:
        process.stdout.close()


@contextmanager
def if_needed(settings: Settings) -> Iterator[None]:
    """An emulator beside the command where the endpoint is the emulator and none is listening.

    A URL that was set by hand is taken at its word. The environment is told of the one started.
    """
    chosen = settings.chosen == "emulator"
    if not chosen or os.environ.get("BATCH_ETL_EMULATOR_URL") or _listening(EMULATOR_URL):
        yield
        return
    with beside(settings.home, pace=("--retry-after-s", "1")) as url, told(url):
        yield


@contextmanager
def told(url: str) -> Iterator[None]:
    """The emulator's URL and choice in this process's environment, for the body."""
    before = {
        name: os.environ.get(name) for name in ("BATCH_ETL_EMULATOR_URL", "BATCH_ETL_ENDPOINT")
    }
    os.environ.update(BATCH_ETL_EMULATOR_URL=url, BATCH_ETL_ENDPOINT="emulator")
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _listening(url: str) -> bool:
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 80), timeout=1):
            return True
    except OSError:
        return False
