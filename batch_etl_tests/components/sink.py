"""A place that alerts are sent to: an HTTP server of the test's own, which keeps what it gets."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Sink:
    """What was received; ``status`` is answered, and None is silence."""

    port: int
    status: int | None = 200
    received: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    hold: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """For apprise."""
        return f"json://127.0.0.1:{self.port}/"

    @property
    def titles(self) -> list[str]:
        return [message["title"] for message in self.received]

    @property
    def texts(self) -> list[str]:
        return [message["message"] for message in self.received]


@contextmanager
def sink(port: int = 0, status: int | None = 200) -> Iterator[Sink]:
    """A sink that listens until the end of the ``with``; port 0 is a free one."""

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            found.received.append(json.loads(self.rfile.read(length)))
            if found.status is None:
                found.hold.wait(30)
                self.close_connection = True
                return
            self.send_response(found.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Receiver)
    server.daemon_threads = True
    found = Sink(server.server_address[1], status)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield found
    finally:
        found.hold.set()
        server.shutdown()
        thread.join()
        server.server_close()
