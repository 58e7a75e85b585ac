"""The emulator as a process or as a thread of one: uvicorn on a socket that is open before anyone
is told of it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from batch_etl.emulator.app import create_app
from batch_etl.emulator.settings import Pace, Settings
from batch_etl.emulator.stage import ABORT, CutOff

KEEP_ALIVE_S = 300
"""Longer than any client's pool keeps a connection: the server never closes one that is about to
be used.
"""


class _Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's HTTP, with the means to cut the connection handed to the application."""

    def connection_made(self, transport: Any) -> None:
        self.app_state = {**self.app_state, ABORT: transport.abort}
        super().connection_made(transport)


class _Server(uvicorn.Server):
    """Says when it serves; ends with exit code 0 on SIGINT and SIGTERM."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._announce()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handled = (signal.SIGINT, signal.SIGTERM)
        earlier = {number: signal.signal(number, self.handle_exit) for number in handled}
        try:
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)


class _NoCuts(logging.Filter):
    """Replies that were cut on purpose are no errors of the server's."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], CutOff))


def _server(settings: Settings, announce: Callable[[], None]) -> _Server:
    logging.getLogger("uvicorn.error").addFilter(_NoCuts())
    config = uvicorn.Config(
        create_app(settings),
        http=_Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=1,
    )
    return _Server(config, announce)


def _listen(host: str, port: int) -> tuple[socket.socket, str]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=2048)
    # for all that it accepts: else a reply in two pieces waits 40 ms for the first one's receipt
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    shown = f"[{host}]" if ":" in host else host
    return listener, f"http://{shown}:{listener.getsockname()[1]}"


def serve(
    settings: Settings,
    host: str = "127.0.0.1",
    port: int = 0,
    announce: Callable[[dict[str, Any]], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM. ``announce`` gets ``{"url", "pid", "state"}`` once requests
    are accepted.

    Without it that is printed as one line of JSON. Raises OSError when the port is taken.
    """
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)  # lines make many short-lived dicts and no cycles
    sys.setswitchinterval(0.0005)  # calls are answered promptly while batches are being made
    listener, url = _listen(host, port)
    ready = {"url": url, "pid": os.getpid(), "state": str(settings.state)}
    with listener:
        _server(settings, lambda: (announce or _print)(ready)).run(sockets=[listener])


def _print(ready: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()


@contextmanager
def running(
    state: Path | str | None = None,
    *,
    pace: Pace | None = None,
    settings: Settings | None = None,
    port: int = 0,
) -> Iterator[str]:
    """An emulator in a thread of this process, for tests: yields its address and stops it at the
    end.

    ``state``: its folder (a temporary one when None). ``pace``: by default batches end as soon as
    they are made. ``settings``: everything else.
    """
    with TemporaryDirectory(prefix="batch-etl-emulator-") as temporary:
        folder = Path(state) if state is not None else Path(temporary)
        chosen = replace(settings or Settings(folder), state=folder)
        chosen = replace(chosen, pace=pace or chosen.pace or Pace(end_s=0.0, cancel_s=0.0))
        listener, url = _listen("127.0.0.1", port)
        with listener:
            yield from _in_thread(chosen, listener, url)


def _in_thread(settings: Settings, listener: socket.socket, url: str) -> Iterator[str]:
    started = threading.Event()
    server = _server(settings, started.set)
    thread = threading.Thread(
        target=lambda: _run(server, listener, started), name="emulator", daemon=True
    )
    thread.start()
    started.wait(timeout=30)
    try:
        if not server.started:
            raise RuntimeError("the emulator did not start; its error is on stderr")
        yield url
    finally:
        server.should_exit = True
        thread.join(timeout=60)


def _run(server: _Server, listener: socket.socket, started: threading.Event) -> None:
    try:
        asyncio.run(server.serve(sockets=[listener]))
    finally:
        started.set()
