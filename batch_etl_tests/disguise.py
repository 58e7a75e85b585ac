"""A server that is not known as an emulator: it passes calls on to one and hides its header.

So everything that is done with a key, at an address of ANTHROPIC_BASE_URL, can be tested without
one. It notes the key headers that came, and asks for one key if it was given it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx

_HOP = {"connection", "content-length", "content-encoding", "transfer-encoding", "host"}
_HIDDEN = {*_HOP, "x-batch-etl-emulator", "server", "date"}


@dataclass
class Disguise:
    url: str
    target: httpx.Client
    keys: set[str | None] = field(default_factory=set[str | None])
    bearers: set[str | None] = field(default_factory=set[str | None])


@contextmanager
def disguised(emulator_url: str) -> Iterator[Disguise]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            seen.keys.add(self.headers.get("x-api-key"))
            seen.bearers.add(self.headers.get("authorization"))
            headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP}
            reply = seen.target.request(self.command, self.path, headers=headers, content=body)
            self.send_response_only(reply.status_code)
            for name, value in reply.headers.items():
                if name not in _HIDDEN:
                    self.send_header(name, value)
            self.send_header("Date", self.date_time_string())
            self.send_header("Content-Length", str(len(reply.content)))
            self.end_headers()
            self.wfile.write(reply.content)

        do_GET = do_POST = do_DELETE = pass_on  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nothing: what goes wrong is seen by the client."""

    with (
        httpx.Client(base_url=emulator_url, trust_env=False) as target,
        ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server,
    ):
        seen = Disguise(f"http://127.0.0.1:{server.server_port}", target)
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield seen
        finally:
            server.shutdown()
            thread.join()
