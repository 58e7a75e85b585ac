"""A stand-in for a Messages endpoint: POST /v1/messages, answered by a script."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn


class Messages:
    """Echoes the prompt; ``faults`` maps a prompt to (times, status, body). ``bodies``: what was
    sent, by prompt.
    """

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.bodies: dict[str, bytes] = {}
        self.headers: dict[str, str] = {}
        self.paths: set[str] = set()
        self.most_at_once = 0
        self.gate: threading.Event | None = None
        self.faults: dict[str, tuple[int, int, bytes]] = {}
        self.crowd: threading.Barrier | None = None
        self.answers: dict[str, dict[str, Any]] = {}
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
        body = await _whole(receive)
        self.headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.paths.add(scope["path"])
        prompt = _prompt(json.loads(body))
        self.asked[prompt] += 1
        self.bodies[prompt] = body
        if self.crowd is not None and self.asked.total() <= self.crowd.parties:
            await asyncio.to_thread(self.crowd.wait, 20)
        if self.gate is not None and self.asked.total() > 5:
            await asyncio.to_thread(self.gate.wait, 20)
        times, status, text = self.faults.get(prompt, (0, 200, b""))
        if self.asked[prompt] <= times:
            return status, text
        return 200, json.dumps(self.answers.get(prompt) or echo(prompt)).encode()


def echo(prompt: str) -> dict[str, Any]:
    content = [{"type": "text", "text": prompt}]
    return {"type": "message", "model": "open-1", "content": content, "stop_reason": "end_turn"}


async def _whole(receive: Any) -> bytes:
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message["more_body"]:
            break
    return body


def _prompt(params: dict[str, Any]) -> str:
    """The last text of the last turn."""
    content = params["messages"][-1]["content"]
    if isinstance(content, str):
        return content
    return next(block["text"] for block in reversed(content) if block["type"] == "text")


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
