"""The ASGI application: a gate around the routes.

The gate does for every call what the real edge does for every call: a request id, the headers that
all replies carry, the key, the API version, errors as envelopes. And what only an emulator does:
it counts the call and lets the fault plan strike before, instead of, or after the route.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batch_etl.emulator import control, wire
from batch_etl.emulator import routes as api
from batch_etl.emulator.emulator import Emulator
from batch_etl.emulator.settings import Settings
from batch_etl.emulator.stage import Stage

logger = logging.getLogger("batch_etl.emulator")

VERSIONS = ("2023-06-01", "2026-10-21")


def create_app(settings: Settings) -> ASGIApp:
    """The application; state is opened at its lifespan's start and closed at its end."""
    emulator = Emulator(settings)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        emulator.start()
        yield
        await asyncio.to_thread(emulator.stop)

    endpoints = api.routes()
    handlers: Any = {
        wire.ApiError: _refused,
        api.TooLarge: _too_large,
        HTTPException: _not_routed,
        ClientDisconnect: _left,
        Exception: _broken,
    }
    app = Starlette(
        routes=[*endpoints, *control.routes()], lifespan=lifespan, exception_handlers=handlers
    )
    app.router.redirect_slashes = False
    app.state.emulator = emulator
    return Gate(app, emulator, endpoints)


async def _refused(request: Request, error: wire.ApiError) -> Response:
    body = wire.envelope(error, request.scope.get("emulator.request_id"))
    return api.json_reply(body, error.status, error.headers)


async def _too_large(_: Request, __: Exception) -> Response:
    return api.json_reply(api.EDGE_413, 413)


async def _not_routed(request: Request, error: HTTPException) -> Response:
    message = "Method Not Allowed" if error.status_code == 405 else "Not Found"
    kind = "invalid_request_error" if error.status_code == 405 else None
    refusal = wire.ApiError(error.status_code, message, type=kind)
    return await _refused(request, refusal)


async def _left(_: Request, __: Exception) -> Response:
    """Nobody reads this reply."""
    return Response(status_code=499)


async def _broken(request: Request, _: Exception) -> Response:
    return await _refused(request, wire.ApiError(500, "Internal server error"))


class Gate:
    """Wraps the routes; see the module's docstring."""

    def __init__(self, app: ASGIApp, emulator: Emulator, endpoints: list[Route]) -> None:
        self._app = app
        self._emulator = emulator
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["emulator.request_id"] = request_id = wire.random_id("req_")
        reply = Reply(send, self._common_headers(request_id))
        name, batch_id = self._endpoint(scope)
        if scope["path"].startswith(control.PREFIX + "/"):
            await self._app(scope, receive, reply)
            return
        try:
            await self._call(name, batch_id, scope, receive, reply)
        finally:
            self._emulator.state.count("call", name)
            self._emulator.state.count("reply", f"{name} {reply.status or 'dropped'}")

    async def _call(
        self, name: str, batch_id: str | None, scope: Scope, receive: Receive, reply: Reply
    ) -> None:
        try:
            self._check_headers(Headers(scope=scope))
        except wire.ApiError as error:
            await (await _refused(Request(scope), error))(scope, receive, reply)
            return
        struck = self._emulator.strike(lambda plan: plan.for_call(name, batch_id))
        await Stage(self._app, struck, batch_id).play(scope, receive, reply)

    def _endpoint(self, scope: Scope) -> tuple[str, str | None]:
        for route in self._endpoints:
            match, found = route.matches(scope)
            if match == Match.FULL:
                return route.name, found["path_params"].get("batch_id")
        return "unknown", None

    def _common_headers(self, request_id: str) -> dict[str, str]:
        now_s = self._emulator.state.clock.now_us() / 1e6
        return {
            "date": formatdate(now_s, usegmt=True),
            "request-id": request_id,
            "anthropic-organization-id": "emulator",
            "x-batch-etl-emulator": "1",
        }

    def _check_headers(self, headers: Headers) -> None:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        key = headers.get("x-api-key") or (bearer.strip() if scheme.lower() == "bearer" else "")
        wanted = self._emulator.settings.api_key
        if not key or key.startswith("invalid") or wanted not in (None, key):
            raise wire.ApiError(401, "API key is invalid.")
        version = headers.get("anthropic-version")
        if version is None:
            raise wire.invalid("anthropic-version: header is required")
        if version not in VERSIONS:
            raise wire.invalid(f'anthropic-version: "{version}" is not a valid version.')


class Reply:
    """``send`` with the headers that every reply carries; remembers the status."""

    def __init__(self, send: Send, headers: dict[str, str]) -> None:
        self._send = send
        self._headers = headers
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            for name, value in self._headers.items():
                headers[name] = value
        await self._send(message)
