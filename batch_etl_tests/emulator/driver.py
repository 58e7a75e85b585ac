"""What the emulator's tests share: request lines, a plain HTTP client, and the emulator as a
process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anthropic
import httpx

HEADERS = {"x-api-key": "test-key", "anthropic-version": "2023-06-01"}
MODEL = "claude-haiku-4-5"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "label": {"type": "string", "enum": ["safe", "flagged"]},
        "reason": {"type": "string"},
    },
    "required": ["label", "reason"],
    "additionalProperties": False,
}


def params(text: str = "Is this safe?", **changes: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": text}]
    return {"model": MODEL, "max_tokens": 200, "messages": turns, **changes}


def line(custom_id: str, text: str | None = None, **changes: Any) -> Any:
    return {"custom_id": custom_id, "params": params(text or f"Text of {custom_id}.", **changes)}


def lines(count: int, **changes: Any) -> list[Any]:
    return [line(f"r{n}", **changes) for n in range(count)]


def asking_for_json() -> dict[str, Any]:
    return {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}


def sdk(url: str, key: str = "test-key", **settings: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=url, api_key=key, max_retries=0, **settings)


class Driver:
    """Plain HTTP to one emulator, for what the SDK hides."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = httpx.Client(base_url=url, headers=HEADERS, timeout=60, trust_env=False)

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def post(self, requests: Any, **settings: Any) -> httpx.Response:
        return self.http.post("/v1/messages/batches", json={"requests": requests}, **settings)

    def create(self, requests: Any) -> str:
        reply = self.post(requests)
        assert reply.status_code == 200, reply.text
        return reply.json()["id"]

    def retrieve(self, batch_id: str) -> dict[str, Any]:
        reply = self.http.get(f"/v1/messages/batches/{batch_id}")
        assert reply.status_code == 200, reply.text
        return reply.json()

    def ended(self, batch_id: str) -> dict[str, Any]:
        """The batch once it has ended; asks until then."""
        while (batch := self.retrieve(batch_id))["processing_status"] != "ended":
            time.sleep(0.005)
        return batch

    def results(self, batch_id: str) -> list[dict[str, Any]]:
        self.ended(batch_id)
        reply = self.http.get(f"/v1/messages/batches/{batch_id}/results")
        assert reply.status_code == 200, reply.text
        return [json.loads(text) for text in reply.text.splitlines()]

    def by_id(self, batch_id: str) -> dict[str, dict[str, Any]]:
        return {found["custom_id"]: found["result"] for found in self.results(batch_id)}

    def run(self, requests: Any) -> dict[str, dict[str, Any]]:
        return self.by_id(self.create(requests))

    def status(self) -> dict[str, Any]:
        return self.http.get("/_emulator/status").json()

    def faults(self, *faults: dict[str, Any]) -> None:
        reply = self.http.put("/_emulator/faults", json={"faults": list(faults)})
        assert reply.status_code == 200, reply.text

    def pace(self, **changes: Any) -> None:
        assert self.http.post("/_emulator/pace", json=changes).status_code == 200

    def clock(self, **changes: Any) -> dict[str, Any]:
        reply = self.http.post("/_emulator/clock", json=changes)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def kinds(self, batch_id: str) -> dict[str, str]:
        return {name: result["type"] for name, result in self.by_id(batch_id).items()}


class Process:
    """``python -m batch_etl.emulator`` and its first line."""

    def __init__(self, state: Path, *options: str) -> None:
        command = [sys.executable, "-m", "batch_etl.emulator", "--state", str(state), *options]
        self.child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.child.stdout is not None
        self.ready: dict[str, Any] = json.loads(self.child.stdout.readline())
        self.driver = Driver(self.ready["url"])

    def peak_bytes(self) -> int:
        status = Path(f"/proc/{self.child.pid}/status").read_text()
        peak = next(text for text in status.splitlines() if text.startswith("VmHWM"))
        return int(peak.split()[1]) * 1024


@contextmanager
def process(state: Path, *options: str) -> Iterator[Process]:
    started = Process(state, *options)
    try:
        yield started
    finally:
        started.driver.http.close()
        started.child.kill()
        started.child.wait()
        assert started.child.stdout is not None
        started.child.stdout.close()
