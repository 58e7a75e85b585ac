"""What a reply means: the object it holds, or the error that it is. Pure.

A reply is judged in this order: a redirect is an error; an error status becomes the class of
:mod:`batch_etl.batches.errors` that its status and envelope name, also when a gateway sent it as
plain JSON without an envelope (the edge's 413) or as HTML (a 502 page); any other answer without
the API's envelope comes from something that is not the API.

Vendor facts: docs/batches-api.md, sections 2 (headers), 3 (error envelope) and 8 (waits).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit, urlunsplit

import msgspec

from batch_etl.batches.errors import (
    ApiError,
    Busy,
    ErrorReply,
    Interrupted,
    InvalidRequest,
    NotFound,
    NotTheApi,
    Overloaded,
    PermissionDenied,
    RateLimited,
    Redirected,
    ServerFault,
    SpendLimit,
    TooLarge,
    Unauthorized,
)

Shape = TypeVar("Shape")


def http_date(text: str | None) -> datetime | None:
    """An HTTP date in UTC; None if absent or not a date."""
    try:
        moment = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """How long the server asks to wait: ``retry-after-ms``, else ``retry-after``.

    A ``retry-after`` may be seconds or an HTTP date, which is read against the reply's own
    ``date``, so that no two clocks are compared. Nonsense, negative or zero is None.
    """
    milliseconds = _positive(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after")
    return _positive(text) or _seconds_until(http_date(text), http_date(headers.get("date")))


def _positive(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number > 0 else None


def _seconds_until(moment: datetime | None, now: datetime | None) -> float | None:
    if moment is None or now is None or moment <= now:
        return None
    return (moment - now).total_seconds()


def decoded(
    shape: type[Shape], body: bytes, *, call: str, status: int, headers: Mapping[str, str]
) -> Shape:
    """The 2xx ``body`` as ``shape``.

    Raises :class:`Interrupted` for JSON that was torn off, :class:`NotTheApi` for anything else
    that is not the object.
    """
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        received = f"JSON of another shape ({error})"
    except (msgspec.DecodeError, UnicodeDecodeError):
        if body.lstrip()[:1] in (b"{", b"["):
            raise Interrupted(
                call,
                reason="the reply is not whole JSON",
                received_bytes=len(body),
                request_id=headers.get("request-id"),
            ) from None
        received = excerpt(body, headers.get("content-type", ""))
    raise NotTheApi(call, status=status, received=received, request_id=headers.get("request-id"))


def failure(call: str, *, status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """The error that a reply with any other status than 2xx means."""
    request_id = headers.get("request-id")
    if 300 <= status < 400:
        location = _without_secrets(headers.get("location", "nowhere"))
        return Redirected(call, status=status, location=location, request_id=request_id)
    said = _envelope(body)
    received = excerpt(body, headers.get("content-type", ""))
    if said is None and not (status >= 500 or status in _TELLING):
        return NotTheApi(call, status=status, received=received, request_id=request_id)
    error_type, message, code, traced = said or (None, received, None, None)
    kind = SpendLimit if _is_spend(status, error_type, message, code) else _kind(status)
    return kind(
        call,
        status=status,
        error_type=error_type,
        message=message,
        request_id=request_id or traced,
        error_code=code,
        retry_after_s=retry_after_s(headers),
        should_retry={"true": True, "false": False}.get(headers.get("x-should-retry", "")),
    )


_KINDS: dict[int, type[ErrorReply]] = {
    401: Unauthorized,
    402: SpendLimit,
    403: PermissionDenied,
    404: NotFound,
    408: Busy,
    409: Busy,
    413: TooLarge,
    429: RateLimited,
    529: Overloaded,
}

_TELLING = {408, 413, 429}
"""Statuses that an edge or a gateway sends in its own words, and that mean the same there."""

_SPEND_CODES = {"enforced_spend_limit_reached", "contract_spend_limit_reached"}
_SPEND_WORDS = (
    "You have reached your specified API usage limits",
    "You have reached your specified workspace API usage limits",
)


def _kind(status: int) -> type[ErrorReply]:
    return _KINDS.get(status, ServerFault if status >= 500 else InvalidRequest)


def _is_spend(status: int, error_type: str | None, message: str, code: str | None) -> bool:
    if status >= 500:
        return False
    return error_type == "billing_error" or code in _SPEND_CODES or message.startswith(_SPEND_WORDS)


def _envelope(body: bytes) -> tuple[str | None, str, str | None, str | None] | None:
    """(type, message, details.error_code, request_id) of an error envelope; None if it is none.

    The edge's 413 has no top-level ``type`` and no request-id (section 3).
    """
    try:
        reply = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    error = _fields(_fields(reply).get("error"))
    if "message" not in error:
        return None
    return (
        _text(error.get("type")),
        _text(error["message"]) or "(no message)",
        _text(_fields(error.get("details")).get("error_code")),
        _text(_fields(reply).get("request_id")),
    )


def _fields(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def excerpt(body: bytes, content_type: str) -> str:
    """A short description of a reply that is not the API's: its kind and how it begins."""
    text = body[:20_000].decode("utf-8", "replace")
    title = re.search(r"<title[^>]*>(.*?)</title>", text, re.DOTALL | re.IGNORECASE)
    words = " ".join((title.group(1) if title else text).split())[:200]
    if title or "html" in content_type.lower() or text.lstrip().lower().startswith("<!doctype"):
        return f"an HTML page ({words!r})"
    kind = content_type.split(";", maxsplit=1)[0].strip() or "no content type"
    return f"{words!r} ({kind})" if words else f"an empty body ({kind})"


def _without_secrets(location: str) -> str:
    """A redirect's target without user, query and fragment, which may hold secrets."""
    try:
        parts = urlsplit(location)
    except ValueError:
        return "something that is not a URL"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
