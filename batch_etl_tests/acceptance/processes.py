"""Real processes for the acceptance tests: run to the end, or started and surely ended.

A started process is the leader of its own group, with SIGINT as a terminal would have it: a parent
that was started in the background may have passed on an ignored one, and Dagster would then
ignore SIGTERM as well.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import batch_etl
from batch_etl_tests.conftest import prerequisite

ROOT = Path(batch_etl.__file__).parents[1]
BIN = Path(sys.executable).parent

T = TypeVar("T")


def command(name: str) -> str:
    """The path of a command that is installed beside this Python."""
    path = BIN / name
    prerequisite(path.exists(), f"the command {name} beside {sys.executable}")
    return str(path)


def run(
    *arguments: str | Path,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Run to the end; neither output nor exit code is judged."""
    return subprocess.run(
        [str(argument) for argument in arguments],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def succeed(*arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """Run to exit code 0; returns stdout."""
    done = run(*arguments, cwd=cwd, env=env)
    assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@contextmanager
def started(
    *arguments: str, cwd: Path, env: Mapping[str, str], log: Path, patience_s: float = 10
) -> Iterator[subprocess.Popen[bytes]]:
    """A process group that is gone when the body is left, however it is left.

    ``patience_s``: how long it may take to end what it has started itself.
    """
    with log.open("w") as output:
        child = subprocess.Popen(
            arguments,
            cwd=cwd,
            env={**os.environ, **env},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_default_sigint,  # noqa: PLW1509
        )
        try:
            yield child
        finally:
            _end(child, patience_s)


def _default_sigint() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(child: subprocess.Popen[bytes], patience_s: float) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.wait(patience_s)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def eventually(what: str, look: Callable[[], T | None], log: Path, within_s: float) -> T:
    """What ``look`` finds, once it finds something; fails with the end of ``log``."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.5)
    raise AssertionError(f"{what}: not within {within_s:g} s\n{log.read_text()[-3000:]}")


def free_port() -> int:
    """A port that nobody listens on, below those that a system gives to whoever asks for any.

    So it is not given to somebody else in the seconds until the process it is for listens.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def copied_project(folder: Path) -> Path:
    """A checkout of this project: what Dagster reads of it, in a folder of its own."""
    for name in ("pyproject.toml", "dagster.yaml", "workspace.yaml"):
        prerequisite((ROOT / name).exists(), f"a checkout with {name}")
        folder.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "batch_etl", folder / "batch_etl", ignore=ignore)
    return folder
