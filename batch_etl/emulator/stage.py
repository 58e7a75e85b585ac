"""One call on the stage: the route runs, or a fault of the plan plays before, instead of, or after
it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batch_etl.emulator import faults, wire
from batch_etl.emulator.routes import EDGE_413, json_reply

PAGE = "<html><head><title>{status}</title></head><body><h1>{status}</h1><hr>edge</body></html>"
ABORT = "emulator.abort"
"""Where the server puts the call that cuts a connection (scope["state"])."""


class CutOff(Exception):
    """The reply ends here, unfinished: the server closes the connection."""


class Stage:
    """One call, with the faults that strike it."""

    def __init__(self, app: ASGIApp, struck: list[faults.CallFaults], batch_id: str | None) -> None:
        self._app = app
        self._struck = struck
        self._batch_id = batch_id

    def _find(self, kind: type[Any]) -> Any:
        return next((fault for fault in self._struck if isinstance(fault, kind)), None)

    async def play(self, scope: Scope, receive: Receive, reply: Send) -> None:
        if slow := self._find(faults.Slow):
            await asyncio.sleep(slow.delay_s)
        if self._find(faults.DuplicateCreate):
            scope["emulator.duplicate"] = True
        drop, fail = self._find(faults.Drop), self._find(faults.Fail)
        if drop and drop.when == "before":
            await cut_connection(scope, receive)
        elif instead := self._instead(scope):
            await _drain(receive)
            await instead(scope, receive, reply)
        elif drop or fail:
            await self._app(scope, receive, _nowhere)
            await self._after(scope, receive, reply, drop, fail)
        else:
            await self._app(scope, receive, self._altered(reply, scope))

    def _instead(self, scope: Scope) -> Response | None:
        """A reply that comes in place of the route's, which is not run."""
        fail = self._find(faults.Fail)
        if fail and fail.when == "before":
            return self._failure(fail, scope)
        if html := self._find(faults.Html):
            return HTMLResponse(PAGE.format(status=html.status), html.status)
        return json_reply(EDGE_413, 413) if self._find(faults.Edge413) else None

    async def _after(
        self, scope: Scope, receive: Receive, reply: Send, drop: Any, fail: Any
    ) -> None:
        if drop:
            await cut_connection(scope, receive)
        else:
            await self._failure(fail, scope)(scope, receive, reply)

    def _failure(self, fail: faults.Fail, scope: Scope) -> Response:
        headers: dict[str, str] = {}
        if fail.retry_after_s is not None:
            headers["retry-after"] = f"{fail.retry_after_s:g}"
        if fail.should_retry is not None:
            headers["x-should-retry"] = str(fail.should_retry).lower()
        error = wire.ApiError(
            fail.status,
            fail.message or self._message(fail.status, scope),
            type=fail.type,
            details={"error_code": fail.error_code} if fail.error_code else None,
        )
        body = wire.envelope(error, scope.get("emulator.request_id"))
        return json_reply(body, fail.status, headers)

    def _message(self, status: int, scope: Scope) -> str:
        if status == 404 and self._batch_id:
            said = "has no available results" if scope["path"].endswith("/results") else "not found"
            return f"Message Batch {self._batch_id} {said}."
        return {
            429: "Number of requests has exceeded your rate limit.",
            500: "Internal server error",
            529: "Overloaded",
        }.get(status, "The emulator's fault plan says so.")

    def _altered(self, reply: Send, scope: Scope) -> Send:
        if self._find(faults.NoContentType):
            reply = _without_content_type(reply)
        if cut := self._find(faults.Cut):
            reply = _Scissors(reply, cut, scope)
        return reply


class _Scissors:
    """Holds the reply's size back until it is known, then sends a share of it.

    A streamed body's size is not known beforehand; its blocks are held until the end, which is
    fine for tests' sizes.
    """

    def __init__(self, send: Send, cut: faults.Cut, scope: Scope) -> None:
        self._send = send
        self._cut = cut
        self._scope = scope
        self._start: Message = {}
        self._held = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._held += message.get("body", b"")
        if message.get("more_body"):
            return
        part = bytes(self._held[: int(len(self._held) * self._cut.fraction)])
        await self._send_part(part)

    async def _send_part(self, part: bytes) -> None:
        headers = MutableHeaders(raw=self._start["headers"])
        if self._cut.clean:
            headers["content-length"] = str(len(part))
        await self._send(self._start)
        await self._send(
            {"type": "http.response.body", "body": part, "more_body": not self._cut.clean}
        )
        if not self._cut.clean:
            raise CutOff


def _without_content_type(send: Send) -> Send:
    async def stripped(message: Message) -> None:
        if message["type"] == "http.response.start":
            del MutableHeaders(raw=message["headers"])["content-type"]
        await send(message)

    return stripped


async def _nowhere(message: Message) -> None:
    """Where a reply goes that nobody shall see."""


async def _drain(receive: Receive) -> None:
    """Read the body to its end, so that the caller has sent it and reads the reply."""
    while (message := await receive())["type"] == "http.request" and message.get("more_body"):
        pass


async def cut_connection(scope: Scope, receive: Receive) -> None:
    """Close the connection without a byte of reply."""
    abort = scope.get("state", {}).get(ABORT)
    if abort is None:
        raise CutOff("this server cannot cut connections; use batch_etl.emulator.server")
    abort()
    while (await receive())["type"] != "http.disconnect":
        pass
