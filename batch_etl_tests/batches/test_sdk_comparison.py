"""What our client sends is what the official SDK sends for the same call."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import anthropic
import pytest

from batch_etl.batches.client import Client, MemoryPayload
from batch_etl_tests.batches.test_client import KEY, PAGE, batch
from batch_etl_tests.scripted_server import Received, ScriptedServer, Step, answer

PARAMS: dict[str, Any] = {
    "model": "claude-haiku-4-5",
    "messages": [{"role": "user", "content": "Schön, “quoted” and \N{SLIGHTLY SMILING FACE}"}],
}
REQUESTS: list[Any] = [
    {"custom_id": f"x{i}", "params": {**PARAMS, "max_tokens": 16}} for i in range(3)
]
BETAS = ["output-300k-2026-03-24", "files-api-2025-04-14"]
LINE = b'{"custom_id":"x0","result":{"type":"expired"}}\n'
ID = "msgbatch_01"


@dataclass(frozen=True)
class Call:
    replies: Callable[[str], list[Step]]
    ours: Callable[[Client], object]
    sdk: Callable[[anthropic.Anthropic], object]


def results_of(client: Client) -> bytes:
    with client.results(ID) as chunks:
        return b"".join(chunks)


def payload() -> MemoryPayload:
    return MemoryPayload([json.dumps({"requests": REQUESTS}).encode()])


BETA_HEADER = {"anthropic-beta": ",".join(BETAS)}

CALLS = {
    "create": Call(
        lambda _: [answer(200, batch())],
        lambda ours: ours.create_batch(payload()),
        lambda sdk: sdk.messages.batches.create(requests=REQUESTS),
    ),
    "create with betas": Call(
        lambda _: [answer(200, batch())],
        lambda ours: ours.create_batch(payload(), betas=BETAS),
        lambda sdk: sdk.messages.batches.create(requests=REQUESTS, extra_headers=BETA_HEADER),
    ),
    "retrieve": Call(
        lambda _: [answer(200, batch())],
        lambda ours: ours.retrieve(ID),
        lambda sdk: sdk.messages.batches.retrieve(ID),
    ),
    "list": Call(
        lambda _: [answer(200, PAGE)],
        lambda ours: ours.list_batches(limit=7),
        lambda sdk: sdk.messages.batches.list(limit=7),
    ),
    "list older": Call(
        lambda _: [answer(200, PAGE)],
        lambda ours: ours.list_batches(limit=7, after_id="msgbatch_02"),
        lambda sdk: sdk.messages.batches.list(limit=7, after_id="msgbatch_02"),
    ),
    "list newer": Call(
        lambda _: [answer(200, PAGE)],
        lambda ours: ours.list_batches(limit=7, before_id="msgbatch_02"),
        lambda sdk: sdk.messages.batches.list(limit=7, before_id="msgbatch_02"),
    ),
    "cancel": Call(
        lambda _: [answer(200, batch(status="canceling"))],
        lambda ours: ours.cancel(ID),
        lambda sdk: sdk.messages.batches.cancel(ID),
    ),
    "delete": Call(
        lambda _: [answer(200, {"id": ID, "type": "message_batch_deleted"})],
        lambda ours: ours.delete(ID),
        lambda sdk: sdk.messages.batches.delete(ID),
    ),
    "results": Call(
        lambda url: [
            answer(
                200,
                batch(status="ended", results_url=f"{url}/v1/messages/batches/{ID}/results"),
            ),
            answer(200, LINE, {"content-type": "application/x-jsonl"}),
        ],
        lambda ours: (ours.retrieve(ID), results_of(ours)),
        lambda sdk: list(sdk.messages.batches.results(ID)),
    ),
    "count_tokens": Call(
        lambda _: [answer(200, {"input_tokens": 14})],
        lambda ours: ours.count_tokens(PARAMS),
        lambda sdk: sdk.messages.count_tokens(**PARAMS),
    ),
}


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as scripted:
        yield scripted


def what_matters(received: Received) -> dict[str, Any]:
    """The request without telemetry; either form of the key and either version is accepted."""
    headers = received.headers
    body = json.loads(received.body) if received.body else None
    return {
        "method": received.method,
        "path": received.path,
        "query": sorted(received.query.split("&")),
        "body": body,
        "body framing": "content-length" if received.body else "no body",
        "key": KEY in (headers.get("x-api-key"), headers.get("authorization", "")[7:]),
        "version": headers.get("anthropic-version") in ("2023-06-01", "2026-10-21"),
        "betas": headers.get("anthropic-beta"),
        "accept": headers.get("accept"),
        "content-type": headers.get("content-type") if body is not None else None,
    }


@pytest.mark.parametrize("name", CALLS)
def test_our_request_equals_the_sdks(server: ScriptedServer, name: str) -> None:
    call = CALLS[name]
    with anthropic.Anthropic(api_key=KEY, base_url=server.url, max_retries=0) as sdk:
        server.then(*call.replies(server.url))
        call.sdk(sdk)
    theirs = list(server.received)
    server.received.clear()
    with Client(server.url, api_key=KEY, allow_emulator=True) as ours:
        server.then(*call.replies(server.url))
        call.ours(ours)
    assert [what_matters(r) for r in server.received] == [what_matters(r) for r in theirs]


def test_the_sdk_puts_the_key_where_one_of_our_forms_does(server: ScriptedServer) -> None:
    with anthropic.Anthropic(api_key=KEY, base_url=server.url, max_retries=0) as sdk:
        server.then(answer(200, PAGE))
        sdk.messages.batches.list()
    with Client(server.url, api_key=KEY, auth="bearer", allow_emulator=True) as ours:
        server.then(answer(200, PAGE))
        ours.list_batches()
    names = [{k for k, v in r.headers.items() if KEY in v} for r in server.received]
    assert names[0] == names[1]
