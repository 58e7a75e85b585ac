"""Small shapes of the wire: the error envelope, ids, and timestamps.

An error is ``{"type":"error","error":{"type","message"},"request_id"}``; its HTTP status follows
from its type. Times are microseconds since 1970 inside the emulator and RFC 3339 with ``+00:00``
on the wire.
"""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime, timedelta
from typing import Any

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ALPHABET = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
LETTER_OF_BYTE = bytes(ALPHABET[byte % len(ALPHABET)] for byte in range(256))

TYPE_OF_STATUS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class ApiError(Exception):
    """A refusal that the caller gets as an error envelope."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str | None = None,  # noqa: A002
        details: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type or TYPE_OF_STATUS.get(status, "api_error")
        self.details = details
        self.headers = headers or {}


def invalid(message: str) -> ApiError:
    return ApiError(400, message)


def envelope(error: ApiError, request_id: str | None) -> dict[str, Any]:
    """The body that goes with ``error``; ``details`` only when there are any."""
    inner: dict[str, Any] = {"type": error.type, "message": error.message}
    if error.details is not None:
        inner["details"] = error.details
    return {"type": "error", "error": inner, "request_id": request_id}


def random_id(prefix: str, length: int = 24) -> str:
    return prefix + _letters(os.urandom(length))


def derived_id(prefix: str, *parts: str | bytes | int, length: int = 24) -> str:
    """An id that is the same for the same parts."""
    text = "\x00".join([p.hex() if isinstance(p, bytes) else str(p) for p in parts])
    return prefix + _letters(hashlib.blake2b(text.encode(), digest_size=length).digest())


def _letters(data: bytes) -> str:
    return data.translate(LETTER_OF_BYTE).decode()


def rfc3339(at_us: int | None) -> str | None:
    """``2026-06-02T15:03:37.719714+00:00``: always six decimals, as on the real wire."""
    if at_us is None:
        return None
    return (EPOCH + timedelta(microseconds=at_us)).isoformat(timespec="microseconds")


def from_rfc3339(text: str) -> int:
    """Microseconds since 1970; a time without an offset is UTC. Raises ValueError."""
    at = datetime.fromisoformat(text)
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    return (at - EPOCH) // timedelta(microseconds=1)
