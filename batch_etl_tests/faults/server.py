"""An emulator in a process of its own, which can be killed and started again where it was."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batch_etl.emulator.server import serve
from batch_etl.emulator.settings import Pace, Settings

QUICK = Pace(end_s=0.0, cancel_s=0.0, retry_after_s=0.01)

_FORKS = multiprocessing.get_context("forkserver")
_START_S = 60.0


def _serve(state: Path, port: int, pace: Pace | None) -> None:
    serve(Settings(state, pace=pace), port=port, announce=lambda _: None)


@dataclass
class Server:
    """What is served at ``url``, while it is."""

    state: Path
    port: int
    _process: Any = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, pace: Pace | None = None) -> None:
        """Serve; ``pace`` None: the one that was kept. Returns when it answers."""
        self._process = _FORKS.Process(target=_serve, args=(self.state, self.port, pace))
        self._process.start()
        until = time.monotonic() + _START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert self._process.is_alive(), "the emulator ended at its start"
                assert time.monotonic() < until, "the emulator does not answer"
                time.sleep(0.01)

    def kill(self) -> None:
        """By SIGKILL; it is gone when this returns."""
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.join()
        self._process.close()


@contextmanager
def server(state: Path, pace: Pace = QUICK) -> Iterator[Server]:
    """A server that is gone at the end of the ``with``."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    started = Server(state, port)
    started.start(pace)
    try:
        yield started
    finally:
        started.kill()
