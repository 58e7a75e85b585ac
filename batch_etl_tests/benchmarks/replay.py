"""A loopback server that accepts batches and replays results without thinking.

    python -m batch_etl_tests.benchmarks.replay [--none-fail]

A create is read into memory and answered. ``POST /_replay/prepare`` makes the results of what was
created (shuffled, from the post's number that stands in each request), ends those batches, and
drops the requests: the programs that are measured call it with their watches stopped. A download
is then bytes that lie ready. ``GET /_replay/status`` says what was received and the CPU time spent
within creates, polls and downloads. Of the lines 0.5% are errored and 0.5% expired (unless none
shall fail), and 0.5% break the schema or are no JSON.

The first line on stdout is the address; the process ends when its stdin is closed.
"""

from __future__ import annotations

import json
import random
import re
import secrets
import socket
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from zlib import crc32

import msgspec

from batch_etl_tests.benchmarks.workload import TONES, TOPICS

BATCHES = "/v1/messages/batches"
_NUMBER = re.compile(rb"Label post (\d+)")
_BLOCK = 1 << 20


class _Line(msgspec.Struct):
    custom_id: str
    params: msgspec.Raw


class _Create(msgspec.Struct):
    requests: list[_Line]


_decode = msgspec.json.Decoder(_Create).decode


def answer(number: int) -> str:
    """What the "model" says about a post; 0.5% of it is not what was asked for."""
    bits = crc32(b"%d" % number)
    topic = TOPICS[bits % 4] if number % 400 != 11 else "weather"
    tone, sure = TONES[bits // 4 % 3], 50 + bits // 16 % 50
    text = f'{{"topic":"{topic}","tone":"{tone}","confidence":0.{sure},"reference":{number}}}'
    return text if number % 400 != 211 else text[:-9]


def result_line(custom_id: str, number: int, *, may_fail: bool = True) -> bytes:
    """The line of a post's result, as on the wire."""
    if may_fail and number % 100 == 7:
        kind = '{"type":"expired"}'
        if number % 200 == 7:
            kind = (
                '{"type":"errored","error":{"type":"error","request_id":null,"error":'
                '{"details":null,"type":"api_error","message":"Internal server error"}}}'
            )
        return f'{{"custom_id":"{custom_id}","result":{kind}}}\n'.encode()
    text = json.dumps(answer(number))
    return (
        f'{{"custom_id":"{custom_id}","result":{{"type":"succeeded","message":{{'
        '"model":"claude-haiku-4-5-20251001",'
        f'"id":"msg_replayed_{number:024}","type":"message","role":"assistant",'
        f'"content":[{{"type":"text","text":{text}}}],"container":null,"stop_reason":"end_turn",'
        '"stop_sequence":null,"stop_details":null,"usage":{"input_tokens":312,'
        '"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"cache_creation":'
        '{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"output_tokens":31,'
        '"service_tier":"batch","inference_geo":"not_available"},"context_management":null}}}\n'
    ).encode()


class Batch:
    """A batch from its create to its results."""

    def __init__(self, body: bytearray) -> None:
        self.id = f"msgbatch_{secrets.token_hex(12)}"
        self.created_at = datetime.now(UTC)
        self.body: bytearray | None = body
        self.requests = 0
        self.results: bytes | None = None

    def prepare(self, *, may_fail: bool) -> None:
        if self.body is None:
            return
        lines = [
            result_line(line.custom_id, _number_in(bytes(line.params)), may_fail=may_fail)
            for line in _decode(self.body).requests
        ]
        random.Random(len(lines)).shuffle(lines)
        self.results, self.requests, self.body = b"".join(lines), len(lines), None

    def described(self, base_url: str) -> dict[str, Any]:
        ended = self.results is not None
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        counts["succeeded" if ended else "processing"] = self.requests
        return {
            "id": self.id,
            "type": "message_batch",
            "processing_status": "ended" if ended else "in_progress",
            "request_counts": counts,
            "ended_at": self.created_at.isoformat() if ended else None,
            "created_at": self.created_at.isoformat(),
            "expires_at": (self.created_at + timedelta(days=1)).isoformat(),
            "archived_at": None,
            "cancel_initiated_at": None,
            "results_url": f"{base_url}{BATCHES}/{self.id}/results" if ended else None,
        }


def _number_in(params: bytes) -> int:
    found = _NUMBER.search(params)
    if found is None:
        raise ValueError("a request without its post's number")
    return int(found[1])


class Replay(ThreadingHTTPServer):
    """What was received, under one lock."""

    daemon_threads = True

    def __init__(self, *, may_fail: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Call)
        self.may_fail = may_fail
        self.lock = threading.Lock()
        self.batches: dict[str, Batch] = {}
        self.creates = 0
        self.requests = 0
        self.body_bytes = 0
        self.cpu_s = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def prepare(self) -> None:
        with self.lock:
            for batch in self.batches.values():
                batch.prepare(may_fail=self.may_fail)
            self.requests = sum(batch.requests for batch in self.batches.values())

    def status(self) -> dict[str, Any]:
        return {
            "creates": self.creates,
            "requests": self.requests,
            "body_bytes": self.body_bytes,
            "cpu_s": self.cpu_s,
        }


class _Call(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 0

    @property
    def _replay(self) -> Replay:
        assert isinstance(self.server, Replay)
        return self.server

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Says nothing."""

    def do_GET(self) -> None:
        started = time.thread_time()
        path = self.path.partition("?")[0]
        if path == "/_replay/status":
            return self._reply(self._replay.status())
        if path == BATCHES:
            listed = [b.described(self._replay.url) for b in self._replay.batches.values()][::-1]
            self._reply({"data": listed, "has_more": False, "first_id": None, "last_id": None})
        else:
            batch = self._replay.batches[path.split("/")[4]]
            if path.endswith("/results"):
                self._send(batch.results or b"", "application/x-jsonl")
            else:
                self._reply(batch.described(self._replay.url))
        return self._spent(started)

    def do_POST(self) -> None:
        started = time.thread_time()
        body = self._body()
        if self.path == "/_replay/prepare":
            self._replay.prepare()
            return self._reply({})
        if self.path == "/_replay/forget":
            self._replay.batches.clear()
            return self._reply({})
        batch = Batch(body)
        self._replay.batches[batch.id] = batch
        self._replay.creates += 1
        self._replay.body_bytes += len(body)
        self._reply(batch.described(self._replay.url))
        return self._spent(started)

    def _spent(self, started: float) -> None:
        with self._replay.lock:
            self._replay.cpu_s += time.thread_time() - started

    def _body(self) -> bytearray:
        body = bytearray(int(self.headers.get("content-length", 0)))
        view, at = memoryview(body), 0
        while at < len(body):
            at += self.rfile.readinto(view[at : at + _BLOCK])  # type: ignore[attr-defined]
        return body

    def _reply(self, value: Any) -> None:
        self._send(msgspec.json.encode(value), "application/json")

    def _send(self, data: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.send_header("request-id", "req_replayed")
        self.send_header("x-batch-etl-emulator", "replay")
        self.end_headers()
        self.wfile.write(data)


def main() -> None:
    """Serve until stdin is closed."""
    server = Replay(may_fail="--none-fail" not in sys.argv)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.url, flush=True)
    sys.stdin.read()
    server.shutdown()


if __name__ == "__main__":
    main()
