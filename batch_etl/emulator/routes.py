"""The seven endpoints, as the API's documentation and captures have them.

What nobody captured is decided here, and said: cancel on an ended or canceling batch answers with
the batch unchanged; delete while canceling is refused like one in progress; results after the
archive are 404 with the words of results-before-end; a bad ``limit``, an unknown cursor and both
cursors at once are 400.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from batch_etl.emulator import tokens, wire
from batch_etl.emulator.emulator import Emulator, sha256
from batch_etl.emulator.intake import read_create
from batch_etl.emulator.lines import why_not_counted
from batch_etl.emulator.models import find
from batch_etl.emulator.spool import read_blocks
from batch_etl.emulator.state import Batch

MESSAGES_BODY_BYTES = 32 * 2**20
MOST_A_PAGE = 1_000
KEPT_HEADERS = ("anthropic-version", "anthropic-beta", "content-type", "user-agent")
EDGE_413 = {"error": {"type": "request_too_large", "message": "Request exceeds the maximum size"}}
"""The edge's own 413: no top-level type, no request id."""
IN_PROGRESS_DELETE = "In progress batches cannot be deleted. Consider canceling the batch instead."


class TooLarge(Exception):
    """The body is larger than the edge lets through."""


def json_reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")


def routes() -> list[Route]:
    """Names are those that faults and counters use."""
    batches = "/v1/messages/batches"
    return [
        Route(batches, create, methods=["POST"], name="create"),
        Route(batches, list_page, methods=["GET"], name="list"),
        Route(f"{batches}/{{batch_id}}", retrieve, methods=["GET"], name="retrieve"),
        Route(f"{batches}/{{batch_id}}", delete, methods=["DELETE"], name="delete"),
        Route(f"{batches}/{{batch_id}}/cancel", cancel, methods=["POST"], name="cancel"),
        Route(f"{batches}/{{batch_id}}/results", results, methods=["GET"], name="results"),
        Route("/v1/messages/count_tokens", count_tokens, methods=["POST"], name="count_tokens"),
    ]


def _emulator(request: Request) -> Emulator:
    return request.app.state.emulator


async def create(request: Request) -> Response:
    emulator = _emulator(request)
    body = await read_body(request, emulator.settings.max_body_bytes)
    copies = 2 if request.scope.get("emulator.duplicate") else 1
    batch = await asyncio.to_thread(_accept, emulator, body, request, copies)
    return json_reply(emulator.describe(batch, base_url(request)))


def _accept(emulator: Emulator, body: bytearray, request: Request, copies: int) -> Batch:
    lines = read_create(body, emulator.settings.max_requests)
    return emulator.accept(lines, _received(request, body), copies)


def _received(request: Request, body: bytearray) -> dict[str, Any]:
    """What is kept of a create beside its lines; of the key only how it came."""
    headers = request.headers
    kept = {name: headers[name] for name in KEPT_HEADERS if name in headers}
    for name in ("x-api-key", "authorization"):
        if name in headers:
            kept[name] = "(redacted)"
    betas = [beta.strip() for beta in headers.get("anthropic-beta", "").split(",")]
    return {
        "method": request.method,
        "path": request.url.path,
        "headers": kept,
        "version": headers.get("anthropic-version", ""),
        "betas": sorted(beta for beta in betas if beta),
        "body_bytes": len(body),
        "body_sha256": sha256(body),
    }


async def read_body(request: Request, most_bytes: int) -> bytearray:
    """The body in one buffer that grows as it comes; raises TooLarge before it holds too much."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        details = {"error_code": "request_body_encoding_unsupported"}
        raise wire.ApiError(400, "Unsupported content encoding.", details=details)
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > most_bytes:
        raise TooLarge
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most_bytes:
            raise TooLarge
    return body


async def retrieve(request: Request) -> Response:
    emulator = _emulator(request)
    batch = await _settled(request)
    headers: dict[str, str] = {}
    if batch.status != "ended":
        headers["retry-after"] = f"{emulator.state.pace.retry_after_s:g}"
    return json_reply(emulator.describe(batch, base_url(request)), headers=headers)


async def _settled(request: Request) -> Batch:
    """The batch that the path names, as of now."""
    emulator = _emulator(request)
    batch_id = request.path_params["batch_id"]
    await emulator.settle(batch_id)
    return _existing(emulator, batch_id)


def _existing(emulator: Emulator, batch_id: str) -> Batch:
    batch = emulator.state.find(batch_id)
    if batch is None:
        raise wire.ApiError(404, f"Message Batch {batch_id} not found.")
    return batch


async def list_page(request: Request) -> Response:
    emulator = _emulator(request)
    query = request.query_params
    limit = _limit(query.get("limit"))
    after, before = (_cursor(emulator, request, name) for name in ("after_id", "before_id"))
    if after is not None and before is not None:
        raise wire.invalid("Only one of after_id and before_id may be given")
    await emulator.settle()
    page = emulator.state.page(after, before, limit + 1)
    has_more = len(page) > limit
    page = page[-limit:] if before is not None else page[:limit]
    return json_reply(
        {
            "data": [emulator.describe(batch, base_url(request)) for batch in page],
            "has_more": has_more,
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
        }
    )


def _limit(text: str | None) -> int:
    try:
        limit = int(text) if text is not None else 20
    except ValueError:
        raise wire.invalid(
            "limit: Input should be a valid integer, unable to parse string as an integer"
        ) from None
    if limit < 1:
        raise wire.invalid("limit: Input should be greater than or equal to 1")
    if limit > MOST_A_PAGE:
        raise wire.invalid(f"limit: Input should be less than or equal to {MOST_A_PAGE}")
    return limit


def _cursor(emulator: Emulator, request: Request, name: str) -> Batch | None:
    batch_id = request.query_params.get(name)
    if not batch_id:
        return None
    batch = emulator.state.find(batch_id)
    if batch is None:
        raise wire.invalid(f"{name}: Message Batch {batch_id} not found.")
    return batch


async def cancel(request: Request) -> Response:
    emulator = _emulator(request)
    batch = emulator.cancel(await _settled(request))
    return json_reply(emulator.describe(batch, base_url(request)))


async def delete(request: Request) -> Response:
    emulator = _emulator(request)
    batch = await _settled(request)
    if batch.status != "ended":
        raise wire.invalid(IN_PROGRESS_DELETE)
    await asyncio.to_thread(emulator.delete, batch)
    return json_reply({"id": batch.id, "type": "message_batch_deleted"})


async def results(request: Request) -> Response:
    emulator = _emulator(request)
    batch = await _settled(request)
    if batch.status != "ended" or emulator.archived_us(batch) is not None:
        raise wire.ApiError(
            404,
            f"Message Batch {batch.id} has no available results.",
            headers={"x-should-retry": "false"},
        )
    disposition = f"attachment; filename*=utf-8''{batch.id}_results.jsonl"
    return StreamingResponse(
        blocks(emulator.results_path(batch)),
        headers={"content-type": "application/x-jsonl", "content-disposition": disposition},
    )


async def blocks(path: Any) -> AsyncIterator[bytes]:
    """A file in blocks of a megabyte, read off the event loop."""
    reader = read_blocks(path)
    while block := await asyncio.to_thread(next, reader, b""):
        yield block


async def count_tokens(request: Request) -> Response:
    body = await read_body(request, MESSAGES_BODY_BYTES)
    try:
        params = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise wire.invalid(f"The request body is not valid JSON: {error}") from None
    return json_reply({"input_tokens": await asyncio.to_thread(_counted, params)})


def _counted(params: Any) -> int:
    """Raises ApiError for params that a line would err with."""
    fault = why_not_counted(params)
    if fault is not None:
        raise wire.ApiError(404 if fault.type == "not_found_error" else 400, fault.message)
    return tokens.of_request(params, find(params["model"]))


def base_url(request: Request) -> str:
    """The address that the caller used: results_url must stay on its host."""
    return f"{request.url.scheme}://{request.headers.get('host', request.url.netloc)}"
