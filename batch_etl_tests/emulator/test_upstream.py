"""A real Messages endpoint behind the batch API, played by a small server."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from batch_etl.emulator.server import running
from batch_etl.emulator.settings import Settings
from batch_etl.emulator.upstream import Journal
from batch_etl_tests.emulator.driver import Driver, line, lines, process


class Messages:
    """POST /v1/messages: echoes the prompt; ``faults`` maps a prompt to (times, status, body)."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.headers: dict[str, str] = {}
        self.most_at_once = 0
        self.gate: threading.Event | None = None
        self.faults: dict[str, tuple[int, int, bytes]] = {}
        self.crowd: threading.Barrier | None = None
        self._at_once = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            status, body = await self._answer(scope, receive)
        finally:
            self._at_once -= 1
        headers = [(b"content-type", b"application/json"), (b"retry-after", b"0.01")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def wait_for(self, asked: int) -> None:
        while self.asked.total() < asked:
            time.sleep(0.005)

    async def _answer(self, scope: Any, receive: Any) -> tuple[int, bytes]:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        self.headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        prompt = json.loads(body)["messages"][0]["content"]
        self.asked[prompt] += 1
        if self.crowd is not None and self.asked.total() <= self.crowd.parties:
            await asyncio.to_thread(self.crowd.wait, 20)
        if self.gate is not None and self.asked.total() > 5:
            await asyncio.to_thread(self.gate.wait, 20)
        times, status, text = self.faults.get(prompt, (0, 200, b""))
        if self.asked[prompt] <= times:
            return status, text
        message = {
            "type": "message",
            "model": "open-1",
            "content": [{"type": "text", "text": prompt}],
        }
        return 200, json.dumps(message).encode()


@contextmanager
def serving(app: Any) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture
def messages() -> Messages:
    return Messages()


@pytest.fixture
def upstream(messages: Messages) -> Iterator[str]:
    with serving(messages) as url:
        yield url


def settings(folder: Path, upstream: str, **more: Any) -> Settings:
    return Settings(folder, upstream_url=upstream, **more)


def test_a_batch_is_made_of_the_upstream_s_answers(
    tmp_path: Path, messages: Messages, upstream: str
) -> None:
    messages.crowd = threading.Barrier(3)
    chosen = settings(tmp_path, upstream, upstream_key="up-key", upstream_concurrency=3)
    with running(tmp_path, settings=chosen) as url, Driver(url) as driver:
        made = driver.create(lines(20, model="open-1"))
        found = driver.by_id(made)
        assert driver.status()["requests_billed"] == 20
    assert found["r7"]["message"]["content"][0]["text"] == "Text of r7."
    assert found["r7"]["message"]["model"] == "open-1"
    assert messages.asked.total() == 20
    assert messages.most_at_once == 3
    assert messages.headers["x-api-key"] == "up-key"
    assert messages.headers["anthropic-version"] == "2023-06-01"


def test_passing_errors_are_tried_again_and_lasting_ones_err_the_line(
    tmp_path: Path, messages: Messages, upstream: str
) -> None:
    refusal = b'{"type":"error","error":{"type":"invalid_request_error","message":"no such thing"}}'
    messages.faults = {
        "busy": (2, 429, b"{}"),
        "broken": (1, 500, b"<html>"),
        "wrong": (99, 400, refusal),
        "html": (99, 200, b"<html>"),
    }
    with running(tmp_path, settings=settings(tmp_path, upstream)) as url, Driver(url) as driver:
        found = driver.run([line(name, name) for name in ("busy", "broken", "wrong", "html")])
    assert found["busy"]["type"] == found["broken"]["type"] == "succeeded"
    error = found["wrong"]["error"]["error"]
    assert (error["type"], error["message"]) == ("invalid_request_error", "no such thing")
    assert found["html"]["error"]["error"]["type"] == "api_error"
    assert messages.asked == {"busy": 3, "broken": 2, "wrong": 1, "html": 1}


def test_a_restart_asks_only_for_what_is_missing(
    tmp_path: Path, messages: Messages, upstream: str
) -> None:
    messages.gate = threading.Event()
    options = ("--upstream", upstream, "--upstream-concurrency", "2")
    with process(tmp_path, *options) as first:
        made = first.driver.create(lines(30))
        messages.wait_for(7)
        assert first.driver.retrieve(made)["processing_status"] == "in_progress"
        first.child.kill()
        first.child.wait()
    messages.gate.set()
    with process(tmp_path, *options) as second:
        found = second.driver.by_id(made)
    assert len(found) == 30
    assert {result["type"] for result in found.values()} == {"succeeded"}
    assert messages.asked.total() <= 32


def test_a_cancel_keeps_what_was_answered(
    tmp_path: Path, messages: Messages, upstream: str
) -> None:
    messages.gate = threading.Event()
    chosen = settings(tmp_path, upstream, upstream_concurrency=2)
    with running(tmp_path, settings=chosen) as url, Driver(url) as driver:
        made = driver.create(lines(30))
        messages.wait_for(7)
        driver.http.post(f"/v1/messages/batches/{made}/cancel")
        counts = driver.ended(made)["request_counts"]
        messages.gate.set()
        assert counts["succeeded"] + counts["canceled"] == 30
        assert counts["succeeded"] >= 5
        kinds = list(driver.kinds(made).values())
        assert kinds.count("canceled") == counts["canceled"]


def test_what_the_upstream_has_not_answered_in_a_day_expires(
    tmp_path: Path, messages: Messages, upstream: str
) -> None:
    messages.gate = threading.Event()
    chosen = settings(tmp_path, upstream, upstream_concurrency=2)
    with running(tmp_path, settings=chosen) as url, Driver(url) as driver:
        made = driver.create(lines(30))
        messages.wait_for(7)
        driver.clock(advance_s=24 * 3600)
        batch = driver.ended(made)
        messages.gate.set()
    counts = batch["request_counts"]
    assert batch["ended_at"] == batch["expires_at"]
    assert counts["succeeded"] >= 5
    assert counts["succeeded"] + counts["expired"] == 30


def test_a_torn_last_answer_is_forgotten(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "answers.jsonl")
    with journal.appending():
        journal.add("a", {"type": "succeeded"})
    with open(tmp_path / "answers.jsonl", "ab") as file:
        file.write(b'{"custom_id":"b","resu')
    again = Journal(tmp_path / "answers.jsonl")
    assert ("a" in again, "b" in again) == (True, False)
    with again.appending():
        again.add("c", {"type": "errored"})
    last = Journal(tmp_path / "answers.jsonl")
    assert (last.find("a"), last.find("b")) == ({"type": "succeeded"}, None)
    assert last.find("c") == {"type": "errored"}
