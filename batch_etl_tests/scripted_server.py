"""An HTTP/1.1 server on a real socket that does exactly what its script says, byte by byte.

Each request takes the next :class:`Step` of the script: how much of the request to read, which
bytes to send (with waits in between), and how the connection ends. What came in is kept in
``received``. A request beyond the script is answered 418, so that a test fails where it went wrong.
"""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

KEPT_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Received:
    """One request; ``body`` holds at most ``KEPT_BYTES`` of the ``body_bytes`` that came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""
    body_bytes: int = 0
    sha256: str = ""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]


@dataclass(frozen=True)
class Step:
    """What happens to one request. An ``Event`` among ``parts`` is waited for."""

    parts: Sequence[bytes | threading.Event] = ()
    read: Literal["nothing", "head", "some", "body"] = "body"
    end: Literal["keep", "close", "reset"] = "keep"


def answer(
    status: int, body: object = None, headers: Mapping[str, str] | None = None, **step: Any
) -> Step:
    """A well-formed reply; anything but bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Step(
        [head(status, {"content-length": str(len(data)), **(headers or {})}) + data], **step
    )


def head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Scripted", "request-id: req_scripted"]
    return "\r\n".join([*lines, *(f"{k}: {v}" for k, v in headers.items()), "", ""]).encode()


def error(status: int, error_type: str, message: str, **headers: str) -> Step:
    """The API's error envelope."""
    envelope = {"type": "error", "error": {"type": error_type, "message": message}}
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return answer(status, {**envelope, "request_id": "req_body"}, names)


def silent(read: Literal["nothing", "head", "some", "body"] = "body") -> Step:
    """Say nothing until the server is closed."""
    return Step([threading.Event()], read=read, end="close")


@dataclass
class ScriptedServer:
    script: deque[Step] = field(default_factory=deque[Step])
    received: list[Received] = field(default_factory=list[Received])
    connections: int = 0

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def open_connections(self) -> int:
        with self._lock:
            return len(self._open)

    def then(self, *steps: Step) -> Self:
        """Append to the script."""
        self.script.extend(steps)
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every connection and every thread."""
        self._closing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                self._open.add(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb", 2**18) as stream, suppress(OSError):
                while self._one(connection, stream):
                    pass
        finally:
            with self._lock:
                self._open.discard(connection)

    def _one(self, connection: socket.socket, stream: Any) -> bool:
        if self.script and self.script[0].read == "nothing":
            return self._play(self.script.popleft(), connection)
        first = stream.readline()
        if not first:
            return False
        method, target, _ = first.decode().split()
        headers: dict[str, str] = {}
        while (line := stream.readline().strip()) != b"":
            name, _, value = line.decode().partition(":")
            headers[name.strip().lower()] = value.strip()
        with self._lock:
            step = self.script.popleft() if self.script else answer(418, {"script": "is empty"})
        kept, size, digest = self._body(stream, int(headers.get("content-length", 0)), step.read)
        self.received.append(Received(method, target, headers, kept, size, digest))
        return self._play(step, connection)

    def _body(self, stream: Any, length: int, read: str) -> tuple[bytes, int, str]:
        kept, size, digest = bytearray(), 0, hashlib.sha256()
        wanted = {"head": 0, "some": min(length, 1000), "body": length}[read]
        while size < wanted and (block := stream.read1(min(2**18, wanted - size))):
            size += len(block)
            digest.update(block)
            kept += block[: max(0, KEPT_BYTES - len(kept))]
        return bytes(kept), size, digest.hexdigest()

    def _play(self, step: Step, connection: socket.socket) -> bool:
        for part in step.parts:
            if isinstance(part, bytes):
                connection.sendall(part)
            else:
                while not (part.wait(0.02) or self._closing.is_set()):
                    pass
        if step.end == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if step.end != "keep":
            # makefile() holds the descriptor open: shutdown() ends the connection, a linger of
            # zero makes the close that follows a reset
            if step.end == "close":
                connection.shutdown(socket.SHUT_RDWR)
            return False
        return True
