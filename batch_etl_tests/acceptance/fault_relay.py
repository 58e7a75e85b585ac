"""A server before the emulator that holds one call, so that a kill hits a moment that is known.

The process waits for a reply; its call has, or has not, reached the emulator; now the test sends
SIGKILL. Nothing is guessed from the time that has passed, and the product knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Literal

import httpx

PATIENCE_S = 60.0

_HOP = {"connection", "content-length", "content-encoding", "transfer-encoding", "host"}

Moment = Literal["before", "after"]


@dataclass
class Relay:
    """An HTTP server that passes each call on to the emulator, and holds one when it is told to.

    ``before`` holds a call that the emulator has not seen; ``after`` holds the reply of one that
    it has answered. A call that was held is never answered.
    """

    url: str
    _hold: tuple[Moment, str, str] | None = None
    held: Event = field(default_factory=Event)
    _gone: Event = field(default_factory=Event)

    def hold(self, moment: Moment, method: str, path_ends: str) -> None:
        self._hold = (moment, method, path_ends)

    def let_go(self) -> None:
        self._hold = None
        self._gone.set()

    def holds(self, moment: Moment, method: str, path: str) -> bool:
        """Whether this call is the one; returns when the caller is gone."""
        wanted = self._hold
        if not wanted or wanted[:2] != (moment, method) or not path.endswith(wanted[2]):
            return False
        self.held.set()
        self._gone.wait(PATIENCE_S)
        return True


@contextmanager
def relay(emulator_url: str) -> Iterator[Relay]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            call = (self.command, self.path.partition("?")[0])
            self.close_connection = opened.holds("before", *call)
            if self.close_connection:
                return
            headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP}
            reply = target.request(self.command, self.path, headers=headers, content=body)
            self.close_connection = opened.holds("after", *call)
            if self.close_connection:
                return
            self.send_response_only(reply.status_code)
            for name, value in reply.headers.items():
                if name not in _HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.content)))
            self.end_headers()
            self.wfile.write(reply.content)

        do_GET = do_POST = do_DELETE = pass_on  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nothing: what goes wrong is seen by the client."""

    with (
        httpx.Client(base_url=emulator_url, trust_env=False, timeout=PATIENCE_S) as target,
        ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server,
    ):
        opened = Relay(f"http://127.0.0.1:{server.server_port}")
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield opened
        finally:
            opened.let_go()
            server.shutdown()
            thread.join()
