"""What a measured program is told, and how it is started: a fresh process each time."""

from __future__ import annotations

import argparse
import compileall
import functools
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import batch_etl
from batch_etl_tests.benchmarks.watch import Watch


@dataclass(frozen=True)
class Order:
    """``folder``: where the program may write. ``die``: be killed once all is submitted."""

    records: Path
    url: str
    folder: Path
    die: bool = False


def parsed() -> tuple[Order, Watch]:
    """The order of this process; its watch began with the process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--url", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--started", type=float, required=True)
    parser.add_argument("--die", action="store_true")
    said = parser.parse_args()
    watch = Watch(said.started, said.url)
    return Order(said.records, said.url, said.folder, said.die), watch


def started(program: str, order: Order) -> dict[str, Any]:
    """Run one program (floor, ours, usual) to its end; what it measured.

    Raises RuntimeError with its stderr when it fails.
    """
    _compile()
    order.folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", f"batch_etl_tests.benchmarks.{program}"]
    command += ["--records", str(order.records), "--url", order.url, "--folder", str(order.folder)]
    command += ["--started", repr(time.monotonic())] + ["--die"] * order.die
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if order.die and done.returncode == -9:
        return {}
    if done.returncode != 0:
        raise RuntimeError(f"{program} failed ({done.returncode}):\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


@functools.cache
def _compile() -> None:
    """As installing does: else each process would compile the sources, which is no one's run."""
    for folder in (Path(batch_etl.__file__).parent, Path(__file__).parent):
        compileall.compile_dir(folder, quiet=2)


class Server:
    """The replay server's control plane."""

    def __init__(self, url: str) -> None:
        self.url = url

    def status(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/_replay/status") as reply:
            return json.load(reply)

    def forget(self) -> None:
        """Drop all batches, to free their memory."""
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/_replay/forget", b"")).read()


@contextmanager
def replaying(*, may_fail: bool = True) -> Iterator[Server]:
    """A replay server in a process of its own, until the end of the ``with``.

    Without ``may_fail`` no line is errored or expired, so that there is nothing to ask again.
    """
    command = [sys.executable, "-m", "batch_etl_tests.benchmarks.replay"]
    command += ["--none-fail"] * (not may_fail)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield Server(process.stdout.readline().strip())
        finally:
            process.kill()
