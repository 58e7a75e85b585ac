"""The control plane, under ``/_emulator/``: what no real API has. It asks for no key.

==================================  ===============================================================
GET /_emulator/status               what was received, billed, billed twice; batches by status;
                                    calls and replies by route; faults that struck
GET, POST /_emulator/pace           the pace; a POST changes the members it names
                                    (``settings.Pace``)
GET, POST /_emulator/clock          the clock; POST ``{"advance_s": 3600}``,
                                    ``{"to": "2026-12-01T00:00:00Z"}`` and/or ``{"frozen": true}``;
                                    replies when all that has become due has ended
GET, PUT, DELETE /_emulator/faults  the fault plan (``faults``)
GET /_emulator/batches/ID/received  JSONL: the create's headers (key redacted), then the lines
GET  .../received/CUSTOM_ID         the params of that line as they came
==================================  ===============================================================

In the status, ``requests_billed`` counts lines that succeeded, and ``requests_billed_twice`` those
among them whose params (as canonical JSON) had been bought before: over all distinct params, the
sum of (times billed - 1).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from batch_etl.emulator import faults, wire
from batch_etl.emulator.emulator import Emulator
from batch_etl.emulator.routes import blocks, json_reply, read_body
from batch_etl.emulator.settings import Pace
from batch_etl.emulator.spool import Spool
from batch_etl.emulator.state import Batch

PREFIX = "/_emulator"
MOST_BYTES = 16 * 2**20
CLOCK_PATIENCE_S = 120.0


def routes() -> list[Route]:
    return [
        Route(f"{PREFIX}/status", status, methods=["GET"]),
        Route(f"{PREFIX}/pace", pace, methods=["GET", "POST"]),
        Route(f"{PREFIX}/clock", clock, methods=["GET", "POST"]),
        Route(f"{PREFIX}/faults", plan, methods=["GET", "PUT", "DELETE"]),
        Route(f"{PREFIX}/batches/{{batch_id}}/received", received, methods=["GET"]),
        Route(
            f"{PREFIX}/batches/{{batch_id}}/received/{{custom_id}}", received_line, methods=["GET"]
        ),
    ]


def _emulator(request: Request) -> Emulator:
    return request.app.state.emulator


async def status(request: Request) -> Response:
    emulator = _emulator(request)
    await emulator.settle()
    return json_reply(await asyncio.to_thread(_status, emulator))


def _status(emulator: Emulator) -> dict[str, Any]:
    batches = emulator.state.everything()
    by_status = Counter("deleted" if b.deleted_us is not None else b.status for b in batches)
    names = ("in_progress", "canceling", "ended", "deleted")
    return {
        "emulator": "batch_etl",
        "requests_received": sum(batch.total for batch in batches),
        "requests_billed": sum(batch.billed for batch in batches),
        "requests_billed_twice": emulator.processing.bought_twice(),
        "creates_accepted": len(batches),
        "batches": {name: by_status[name] for name in names},
        "http_calls": emulator.state.counts("call"),
        "http_replies": emulator.state.counts("reply"),
        "faults_injected": emulator.state.counts("fault"),
        "clock": _clock(emulator),
        "pace": emulator.state.pace,
        "seed": emulator.settings.seed,
        "upstream": emulator.settings.upstream_url,
    }


async def pace(request: Request) -> Response:
    emulator = _emulator(request)
    if request.method == "POST":
        changes = await _json_object(request)
        known = msgspec.to_builtins(emulator.state.pace)
        emulator.state.set_pace(_converted({**known, **changes}, Pace))
    return json_reply(emulator.state.pace)


class ClockChange(msgspec.Struct, forbid_unknown_fields=True):
    advance_s: float = 0.0
    to: str | None = None
    frozen: bool | None = None


async def clock(request: Request) -> Response:
    emulator = _emulator(request)
    if request.method == "POST":
        _change_clock(emulator, _converted(await _json_object(request), ClockChange))
        await emulator.settle(patience_s=CLOCK_PATIENCE_S)
    return json_reply(_clock(emulator))


def _change_clock(emulator: Emulator, change: ClockChange) -> None:
    now = emulator.state.clock
    if change.frozen is not None:
        now.freeze() if change.frozen else now.run()
    if change.to is not None:
        try:
            now.go_to(wire.from_rfc3339(change.to))
        except ValueError as error:
            raise wire.invalid(f"to: {error}") from None
    if change.advance_s:
        now.go_to(now.now_us() + int(change.advance_s * 1e6))
    emulator.state.save_clock()


def _clock(emulator: Emulator) -> dict[str, Any]:
    now = emulator.state.clock
    return {"now": wire.rfc3339(now.now_us()), **now.describe()}


async def plan(request: Request) -> Response:
    emulator = _emulator(request)
    if request.method == "PUT":
        try:
            emulator.set_plan(faults.read_plan(bytes(await read_body(request, MOST_BYTES))))
        except ValueError as error:
            raise wire.invalid(f"The fault plan cannot be used: {error}") from None
    if request.method == "DELETE":
        emulator.set_plan(faults.Plan())
    return json_reply(emulator.plan)


async def received(request: Request) -> Response:
    batch, folder = _received(request)
    lines = folder / "requests.jsonl"

    async def stream() -> AsyncIterator[bytes]:
        yield batch.received.encode() + b"\n"
        async for block in blocks(lines):
            yield block

    return StreamingResponse(stream(), media_type="application/x-jsonl")


async def received_line(request: Request) -> Response:
    batch, folder = _received(request)
    custom_id: str = request.path_params["custom_id"]

    def find() -> bytes | None:
        with Spool(folder) as spool:
            return spool.find(custom_id)

    params = await asyncio.to_thread(find)
    if params is None:
        raise wire.ApiError(404, f"Message Batch {batch.id} has no line {custom_id}.")
    return Response(params, media_type="application/json")


def _received(request: Request) -> tuple[Batch, Path]:
    """The batch that the path names, and its folder."""
    emulator = _emulator(request)
    batch = emulator.state.find(request.path_params["batch_id"])
    if batch is None:
        raise wire.ApiError(404, f"Message Batch {request.path_params['batch_id']} not found.")
    return batch, emulator.state.batch_folder(batch.id)


async def _json_object(request: Request) -> dict[str, Any]:
    try:
        return msgspec.json.decode(await read_body(request, MOST_BYTES), type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise wire.invalid(str(error)) from None


def _converted(value: dict[str, Any], kind: Any) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.MsgspecError as error:
        raise wire.invalid(str(error)) from None
