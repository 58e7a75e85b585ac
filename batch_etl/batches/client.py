"""The Message Batches API over HTTP: the one place that sends the key.

* **Create is sent once.** It is never repeated here. A failure is definite (the connection never
  opened, 4xx, 429, 529: the caller may send it again) or :class:`AmbiguousCreate` (look for the
  batch first). It goes over a connection of its own, so that no idle connection which the server
  is just closing makes a failure ambiguous, and before the first one some reply of the server has
  been looked at: a wrong key, a wrong URL or an emulator shows before anything is created.
* **All else may be repeated** (:mod:`batch_etl.batches.repeat`): reads, and cancel, delete and
  count_tokens, which do the same when done twice.
* **The key goes to one origin.** Redirects are errors. A batch's ``results_url`` is never followed:
  results are read from their documented path below the configured base URL, which also works
  behind a gateway that the vendor's URL knows nothing of. Plain http is for this machine only.
  The environment's proxies are heeded for other machines, never for this one.
* **A body is a stream** of pieces of about 1 MB with a Content-Length, up and down.
* Logged by ``batch_etl.client``: method, path, status, request-id, seconds; never a header.

The ``anthropic`` SDK sends the same calls (compared in the tests). It is not used, because it
repeats a create whose fate is unknown, and holds a whole body in memory.

A client may be used from several threads at once.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import httpx
import msgspec

import batch_etl
from batch_etl.batches import reply, wire
from batch_etl.batches.errors import (
    AmbiguousCreate,
    ApiError,
    EmulatorRefused,
    Interrupted,
    NotTheApi,
    TimedOut,
    Unreachable,
)
from batch_etl.batches.payload import FilePayload, MemoryPayload, Payload, Upload
from batch_etl.batches.repeat import repeated
from batch_etl.batches.wire import (
    CreatedBatch,
    DeletedBatch,
    ListPage,
    MessageBatch,
    Polled,
    Reachability,
    TokenCount,
)
from batch_etl.effects import effect
from batch_etl.errors import ConfigError

__all__ = [
    "Client",
    "CreatedBatch",
    "DeletedBatch",
    "FilePayload",
    "ListPage",
    "MemoryPayload",
    "MessageBatch",
    "Payload",
    "Polled",
    "Reachability",
]

CHUNK_BYTES = 2**18
"""Results come in chunks of this size, but for the last."""

PAGE_BATCHES = 1000
"""The largest page of the list call (docs/batches-api.md, section 2)."""

SMALL_REPLY_TIMEOUT_S = 60.0
"""The longest silence before a small reply; creates and results have the whole read timeout."""

_SHORTEST_SECRET = 12

log = logging.getLogger("batch_etl.client")
T = TypeVar("T")


class Client:
    """Calls of one server with one key.

    ``base_url`` may have a path prefix. ``api_key`` may be None for a server that wants none.
    Replies of an emulator raise :class:`EmulatorRefused` unless ``allow_emulator``. Every call may
    raise an :class:`ApiError`; the constructor raises ``ConfigError``. ``not_found_for_s`` is for
    how long a 404 is waited out: a batch just created, and results of one just ended, may be
    absent for a moment (section 9); only the caller knows that they must be there.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        auth: Literal["x-api-key", "bearer"] = "x-api-key",
        version: str = "2023-06-01",
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 600.0,
        max_tries: int = 5,
        user_agent: str = f"batch-etl/{batch_etl.__version__}",
        allow_emulator: bool = False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.base_url = wire.normalised_base_url(base_url)
        self._redact = _redactor(api_key)
        self._timeout = httpx.Timeout(read_timeout_s, connect=connect_timeout_s)
        self._small = httpx.Timeout(
            min(read_timeout_s, SMALL_REPLY_TIMEOUT_S), connect=connect_timeout_s
        )
        self._max_tries = max_tries
        self._sleep = sleep
        self._allow_emulator = allow_emulator
        self._server_known = False
        url = httpx.URL(self.base_url)
        tls = _tls(url)

        def pool(limits: httpx.Limits) -> httpx.Client:
            return httpx.Client(
                auth=_Key.of(api_key, auth),
                headers={
                    "accept": "application/json",
                    "accept-encoding": "gzip",
                    "anthropic-version": version,
                    "user-agent": user_agent,
                },
                timeout=self._timeout,
                limits=limits,
                verify=tls,
                trust_env=not wire.is_loopback(url.host),
                follow_redirects=False,
            )

        self._http = pool(httpx.Limits(keepalive_expiry=5.0))
        self._http_create = pool(httpx.Limits(max_keepalive_connections=0))

    def __repr__(self) -> str:
        return f"Client({self.base_url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()
        self._http_create.close()

    def ping(self) -> Reachability:
        """Ask for the newest batch: proves address, key and kind of server, and changes nothing."""
        started = time.monotonic()
        _, response = self._read(ListPage, self._request("GET", limit=1))
        return Reachability(
            base_url=self.base_url,
            emulator=response.headers.get(wire.EMULATOR_HEADER),
            server_time=reply.http_date(response.headers.get("date")),
            request_id=response.headers.get("request-id"),
            round_trip_s=time.monotonic() - started,
        )

    def create_batch(self, payload: Payload, betas: Sequence[str] = ()) -> CreatedBatch:
        """POST ``payload`` once.

        Raises a definite :class:`ApiError` or ``PayloadBroken`` when no batch was created, and
        :class:`AmbiguousCreate` when there may be one. A ``BaseException`` that ends the process
        in between says nothing: then, too, the batch has to be looked for.
        """
        self._know_the_server()
        upload = Upload(payload)
        request = self._request("POST", content=upload, betas=betas, timeout=self._timeout)
        try:
            with effect("create called"):
                response = self._exchange(request, http=self._http_create)
                batch = self._decoded(MessageBatch, response)
        except ApiError as error:
            if error.definite:
                raise
            raise AmbiguousCreate(
                error, handed_bytes=upload.handed_bytes, size_bytes=upload.size_bytes
            ) from error
        finally:
            upload.let_go()
        return CreatedBatch(
            batch,
            server_time=reply.http_date(response.headers.get("date")),
            request_id=response.headers.get("request-id"),
        )

    def retrieve(self, batch_id: str, *, not_found_for_s: float = 0.0) -> Polled:
        """The batch as it stands now."""
        request = self._request("GET", wire.batch_path(batch_id))
        batch, response = self._read(MessageBatch, request, not_found_for_s)
        return Polled(
            batch,
            retry_after_s=reply.retry_after_s(response.headers),
            server_time=reply.http_date(response.headers.get("date")),
            request_id=response.headers.get("request-id"),
        )

    def list_batches(
        self,
        *,
        limit: int = PAGE_BATCHES,
        after_id: str | None = None,
        before_id: str | None = None,
    ) -> ListPage:
        """One page of the workspace's batches, newest first; ``after_id`` leads to older ones."""
        request = self._request("GET", limit=limit, after_id=after_id, before_id=before_id)
        return self._read(ListPage, request)[0]

    def iter_batches(self, *, limit: int = PAGE_BATCHES) -> Iterator[MessageBatch]:
        """All batches of the workspace, newest first, a page fetched only when it is reached."""
        seen: set[str | None] = {None}
        page = self.list_batches(limit=limit)
        yield from page.data
        while page.has_more:
            if page.last_id in seen:
                raise NotTheApi(
                    f"GET {self.base_url}{wire.BATCHES}",
                    status=200,
                    received=f"a list without end (last_id {page.last_id!r} again)",
                    request_id=None,
                )
            seen.add(page.last_id)
            page = self.list_batches(limit=limit, after_id=page.last_id)
            yield from page.data

    def cancel(self, batch_id: str) -> MessageBatch:
        """Ask for cancellation: the batch is ``canceling``, and later ``ended`` with results."""
        request = self._request("POST", wire.batch_path(batch_id, "/cancel"))
        with effect("cancel called"):
            return self._read(MessageBatch, request)[0]

    def delete(self, batch_id: str) -> DeletedBatch:
        """Delete an ended batch and its results at the vendor.

        :class:`NotFound` may mean that an earlier call deleted it and its reply was lost.
        """
        with effect("delete called"):
            return self._read(DeletedBatch, self._request("DELETE", wire.batch_path(batch_id)))[0]

    @contextmanager
    def results(self, batch_id: str, *, not_found_for_s: float = 0.0) -> Generator[Iterator[bytes]]:
        """The JSONL of an ended batch as chunks of ``CHUNK_BYTES``, which ignore line ends.

        The iterator raises :class:`Interrupted` or :class:`TimedOut` when the stream ends before
        its end: download it again. A server that sends neither a length nor chunks can be cut
        without a sign, so the lines have to be counted all the same.
        """
        request = self._request(
            "GET",
            wire.batch_path(batch_id, "/results"),
            accept="application/binary",
            timeout=self._timeout,
        )
        with effect("results opened"):
            response = self._repeated(lambda: self._exchange(request, stream=True), not_found_for_s)
        try:
            yield self._chunks(response)
        finally:
            response.close()

    def count_tokens(self, params: dict[str, Any] | bytes, betas: Sequence[str] = ()) -> int:
        """Input tokens of Messages parameters (without ``max_tokens``): free, an estimate."""
        body = params if isinstance(params, bytes) else msgspec.json.encode(params)
        request = self._request("POST", wire.COUNT_TOKENS, content=body, betas=betas)
        return self._read(TokenCount, request)[0].input_tokens

    def _request(
        self,
        method: str,
        path: str = wire.BATCHES,
        *,
        content: bytes | Upload | None = None,
        betas: Sequence[str] = (),
        accept: str | None = None,
        timeout: httpx.Timeout | None = None,
        **query: str | int | None,
    ) -> httpx.Request:
        headers: dict[str, str] = {"accept": accept} if accept else {}
        if betas:
            headers["anthropic-beta"] = ",".join(betas)
        if content is not None:
            headers["content-type"] = "application/json"
        if isinstance(content, Upload):
            headers["content-length"] = str(content.size_bytes)
        params = {name: value for name, value in query.items() if value is not None}
        return self._http.build_request(
            method,
            f"{self.base_url}{path}",
            params=params or None,
            headers=headers,
            content=content,
            timeout=timeout or self._small,
        )

    def _read(
        self, shape: type[T], request: httpx.Request, not_found_for_s: float = 0.0
    ) -> tuple[T, httpx.Response]:
        """Exchange and decode, repeated as one step: a torn reply is fetched again."""

        def once() -> tuple[T, httpx.Response]:
            response = self._exchange(request)
            return self._decoded(shape, response), response

        return self._repeated(once, not_found_for_s)

    def _know_the_server(self) -> None:
        if not (self._server_known or self._allow_emulator):
            self.ping()

    def _exchange(
        self, request: httpx.Request, *, http: httpx.Client | None = None, stream: bool = False
    ) -> httpx.Response:
        """One request and its 2xx reply; everything else is raised."""
        started = time.monotonic()
        try:
            response = (http or self._http).send(request, stream=stream)
            if not response.is_success:
                response.read()
        except httpx.RequestError as error:
            log.info("%s: %s", _call(request), type(error).__name__)
            raise _lost(request, error) from error
        log.debug(
            "%s %s: %d, request-id %s, %.3f s",
            request.method,
            request.url.path,
            response.status_code,
            response.headers.get("request-id"),
            time.monotonic() - started,
        )
        try:
            self._judge(response)
        except BaseException:
            response.close()
            raise
        return response

    def _judge(self, response: httpx.Response) -> None:
        emulator = response.headers.get(wire.EMULATOR_HEADER)
        if emulator is not None and not self._allow_emulator:
            raise EmulatorRefused(self.base_url, emulator)
        self._server_known = True
        if not response.is_success:
            raise reply.failure(
                _call(response.request),
                status=response.status_code,
                headers=response.headers,
                body=self._redact(response.content),
            )

    def _decoded(self, shape: type[T], response: httpx.Response) -> T:
        return reply.decoded(
            shape,
            self._redact(response.content),
            call=_call(response.request),
            status=response.status_code,
            headers=response.headers,
        )

    def _chunks(self, response: httpx.Response) -> Iterator[bytes]:
        received_bytes = 0
        try:
            for chunk in _even(response.iter_bytes()):
                received_bytes += len(chunk)
                yield chunk
        except httpx.RequestError as error:
            raise _lost(response.request, error, received_bytes) from error

    def pause(self, seconds: float) -> None:
        """Wait, as between two tries of a call."""
        self._sleep(seconds)

    def _repeated(self, call: Callable[[], T], not_found_for_s: float) -> T:
        return repeated(
            call,
            max_tries=self._max_tries,
            sleep=self._sleep,
            not_found_for_s=not_found_for_s,
        )


def _even(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in chunks of ``CHUNK_BYTES``, each copied once (by httpx: four times)."""
    held: list[memoryview] = []
    room = CHUNK_BYTES
    for piece in pieces:
        rest = memoryview(piece)
        while len(rest) >= room:
            yield b"".join([*held, rest[:room]])
            rest = rest[room:]
            held, room = [], CHUNK_BYTES
        held.append(rest)
        room -= len(rest)
    if room < CHUNK_BYTES:
        yield b"".join(held)


class _Key(httpx.Auth):
    """The key, kept out of the client's headers and of every repr."""

    def __init__(self, header: str, value: str) -> None:
        self._header = header
        self._value = value

    @classmethod
    def of(cls, api_key: str | None, form: str) -> _Key | None:
        if api_key is None:
            return None
        bearer = form == "bearer"
        return cls("authorization" if bearer else "x-api-key", "Bearer " * bearer + api_key)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers[self._header] = self._value
        yield request


def _redactor(api_key: str | None) -> Callable[[bytes], bytes]:
    """Takes the key out of a reply that echoes it; refuses a key that no header can hold."""
    if api_key is None:
        return bytes
    if not api_key or not all("!" <= letter <= "~" for letter in api_key):
        raise ConfigError(
            "The API key is empty, or holds spaces, line breaks or letters beyond ASCII:"
            " it was probably not copied whole. Set it again."
        )
    if len(api_key) < _SHORTEST_SECRET:
        return bytes  # a stand-in for a key: its letters may stand anywhere in a reply
    key = api_key.encode()
    return lambda body: body.replace(key, b"[key]") if key in body else body


def _tls(url: httpx.URL) -> ssl.SSLContext:
    """The context for both pools; plain http needs none, so none is loaded (20 ms)."""
    if url.scheme == "https":
        return httpx.create_ssl_context()
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _call(request: httpx.Request) -> str:
    """Method and URL, without the query."""
    return f"{request.method} {request.url.copy_with(query=None)}"


_NEVER_OPENED = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)


def _lost(
    request: httpx.Request, error: httpx.RequestError, received_bytes: int | None = None
) -> ApiError:
    """The error of a call that got no whole reply, by how far it came."""
    call, timeout = _call(request), request.extensions["timeout"]
    reason = str(error) or type(error).__name__
    if isinstance(error, _NEVER_OPENED):
        if isinstance(error, httpx.ConnectTimeout):
            reason = f"no answer within {timeout['connect']:g} s"
        port = request.url.port or {"http": 80, "https": 443}[request.url.scheme]
        return Unreachable(call, address=f"{request.url.host}:{port}", reason=reason)
    if isinstance(error, httpx.TimeoutException):
        return TimedOut(call, timeout_s=timeout["read"])
    return Interrupted(call, reason=reason, received_bytes=received_bytes)
