"""Answers from a real ``/v1/messages`` endpoint: any Anthropic-compatible server gets a batch API.

Each line's params are POSTed to ``{url}/v1/messages`` as they came, a bounded number at once: what
is in them (images, documents, tools, a model of any name) is the upstream's to judge. Only
``stream``, which no batch takes, is refused here. Answers are
appended to ``answers.jsonl`` in the batch's folder as they come, so a restart asks only for what
is missing (a request that was on its way is asked again). 429, 5xx and broken connections are
tried a few times; what then is left, and any other HTTP error, errs the line with the upstream's
own type and message. A cancel or the 24 h expiry keeps what has been answered.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec

from batch_etl.emulator.lines import NO_STREAM, LineError
from batch_etl.emulator.outcomes import errored
from batch_etl.emulator.settings import Settings
from batch_etl.emulator.spool import Spool
from batch_etl.emulator.state import Batch, State
from batch_etl.emulator.wire import TYPE_OF_STATUS

LONGEST_WAIT_S = 30.0
TIMEOUT_S = 600.0
WATCH_S = 0.1


class Upstream:
    """The endpoint; ``answers`` is what :class:`processing.Processing` asks for."""

    def __init__(self, url: str, settings: Settings, state: State) -> None:
        self._url = f"{url.rstrip('/').removesuffix('/v1')}/v1/messages"
        self._key = settings.upstream_key
        self._concurrency = settings.upstream_concurrency
        self._tries = settings.upstream_tries
        self._state = state

    def answers(
        self, batch: Batch, spool: Spool, withdrawn: Callable[[], bool]
    ) -> Callable[[str, dict[str, Any]], Any]:
        """Ask for what is missing, unless the batch was cancelled or expired; then look answers
        up.
        """
        journal = Journal(self._state.batch_folder(batch.id) / "answers.jsonl")
        if batch.status == "in_progress" and batch.finished == 1.0:
            with journal.appending():
                asyncio.run(self._forward(batch, spool, journal, withdrawn))
        return lambda custom_id, _: journal.find(custom_id)

    async def _forward(
        self, batch: Batch, spool: Spool, journal: Journal, withdrawn: Callable[[], bool]
    ) -> None:
        lines = (spool[position] for position in range(len(spool)))
        missing = (line for line in lines if line[0] not in journal)
        limits = httpx.Limits(max_connections=self._concurrency)
        async with httpx.AsyncClient(
            timeout=TIMEOUT_S, limits=limits, headers=self._headers(batch), trust_env=False
        ) as client:
            askers = [
                asyncio.create_task(self._ask_all(client, missing, journal))
                for _ in range(self._concurrency)
            ]
            await _until_done(askers, withdrawn)

    def _headers(self, batch: Batch) -> dict[str, str]:
        received = msgspec.json.decode(batch.received)
        headers = {"anthropic-version": received["version"], "content-type": "application/json"}
        if received["betas"]:
            headers["anthropic-beta"] = ",".join(received["betas"])
        key = self._key or "emulator"  # sent both ways: servers differ in the one they read
        return {**headers, "x-api-key": key, "authorization": f"Bearer {key}"}

    async def _ask_all(
        self, client: httpx.AsyncClient, missing: Iterator[tuple[str, bytes]], journal: Journal
    ) -> None:
        for custom_id, params in missing:
            journal.add(custom_id, await self._ask(client, custom_id, params))

    async def _ask(
        self, client: httpx.AsyncClient, custom_id: str, params: bytes
    ) -> dict[str, Any]:
        if _streams(params):
            return errored(LineError(NO_STREAM), custom_id)
        error = LineError("The upstream was not asked.", "api_error", at_execution=True)
        for attempt in range(self._tries):
            wait_s = min(LONGEST_WAIT_S, 0.25 * 2**attempt)
            try:
                reply = await client.post(self._url, content=params)
            except httpx.HTTPError as unreached:
                error = _unreachable(unreached)
            else:
                if reply.status_code == 200:
                    return _succeeded(reply, custom_id)
                error = _error_of(reply)
                if reply.status_code != 429 and reply.status_code < 500:
                    break
                wait_s = _asked_wait_s(reply) or wait_s
            if attempt + 1 < self._tries:
                await asyncio.sleep(wait_s)
        return errored(error, custom_id)


async def _until_done(askers: list[asyncio.Task[None]], withdrawn: Callable[[], bool]) -> None:
    """Wait for all; stop them when their batch is no longer wanted; let the first fault through."""
    pending = set(askers)
    try:
        while pending and not await asyncio.to_thread(withdrawn):
            done, pending = await asyncio.wait(pending, timeout=WATCH_S)
            for task in done:
                task.result()
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


def _streams(params: bytes) -> bool:
    """Whether the params ask for a stream; params that cannot be read are the upstream's matter."""
    if b'"stream"' not in params:
        return False
    try:
        return bool(msgspec.json.decode(params, type=dict[str, Any]).get("stream"))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False


def _unreachable(error: httpx.HTTPError) -> LineError:
    message = f"The upstream could not be reached ({type(error).__name__})."
    return LineError(message, "api_error", at_execution=True)


def _succeeded(reply: httpx.Response, custom_id: str) -> dict[str, Any]:
    try:
        message: Any = msgspec.json.decode(reply.content)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        message = None
    if not isinstance(message, dict) or not isinstance(message.get("content"), list):
        error = LineError("The upstream's answer is not a message.", "api_error", at_execution=True)
        return errored(error, custom_id)
    return {"type": "succeeded", "message": message}


def _error_of(reply: httpx.Response) -> LineError:
    """The upstream's own words, in Anthropic's envelope, OpenAI's, or ``{"error": "..."}``."""
    kind, message = TYPE_OF_STATUS.get(reply.status_code, "api_error"), f"HTTP {reply.status_code}"
    try:
        error: Any = msgspec.json.decode(reply.content)["error"]
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError):
        error = None
    if isinstance(error, str):
        message = error
    elif isinstance(error, dict):
        kind, message = str(error.get("type") or kind), str(error.get("message") or message)
    return LineError(message, kind, at_execution=True)


def _asked_wait_s(reply: httpx.Response) -> float | None:
    try:
        return min(LONGEST_WAIT_S, max(0.0, float(reply.headers["retry-after"])))
    except (KeyError, ValueError):
        return None


class Journal:
    """The answers of a batch that have come, on disk in the order they came; a torn last line is
    forgotten.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()
        self._file = -1
        self._end = 0
        if path.exists():
            self._read()

    def _read(self) -> None:
        with open(self._path, "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                custom_id = msgspec.json.decode(line)["custom_id"]
                self._places[custom_id] = (self._end, len(line))
                self._end += len(line)

    def __contains__(self, custom_id: str) -> bool:
        return custom_id in self._places

    @contextmanager
    def appending(self) -> Iterator[None]:
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT)
        try:
            os.ftruncate(self._file, self._end)
            yield
        finally:
            os.close(self._file)
            self._file = -1

    def add(self, custom_id: str, result: dict[str, Any]) -> None:
        line = msgspec.json.encode({"custom_id": custom_id, "result": result}) + b"\n"
        with self._lock:
            os.pwrite(self._file, line, self._end)
            self._places[custom_id] = (self._end, len(line))
            self._end += len(line)

    def find(self, custom_id: str) -> dict[str, Any] | None:
        place = self._places.get(custom_id)
        if place is None:
            return None
        with open(self._path, "rb") as file:
            return msgspec.json.decode(os.pread(file.fileno(), place[1], place[0]))["result"]
