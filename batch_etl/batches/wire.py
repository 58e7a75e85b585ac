"""What goes over the wire: the API's objects, and where they go. Pure.

Vendor facts: docs/batches-api.md, sections 2 and 3 (the SDK's types; recorded replies). The
vendor's words stay the vendor's; unknown fields are ignored, unknown statuses are kept, and times
are read with ``Z`` as with ``+00:00``. Only ``processing_status == "ended"`` says that a batch has
ended: ``request_counts`` may stand still until then, and no progress can be read from them.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from urllib.parse import quote, urlsplit, urlunsplit

import msgspec

from batch_etl.errors import ConfigError

BATCHES = "/v1/messages/batches"
COUNT_TOKENS = "/v1/messages/count_tokens"

EMULATOR_HEADER = "x-batch-etl-emulator"
"""Every reply of an emulator carries it, so that one can never pass for Claude."""

Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]


class RequestCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Requests of a batch by state; their sum is always the number that was created."""

    processing: int = 0
    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0

    @property
    def total(self) -> int:
        return self.processing + self.succeeded + self.errored + self.canceled + self.expired


class MessageBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A Message Batch as the API tells it. ``results_url`` is kept and never followed."""

    id: str
    type: str = "message_batch"
    processing_status: str
    request_counts: RequestCounts
    created_at: Timestamp
    expires_at: Timestamp
    ended_at: Timestamp | None = None
    archived_at: Timestamp | None = None
    cancel_initiated_at: Timestamp | None = None
    results_url: str | None = None

    @property
    def ended(self) -> bool:
        """Every request has its final state and the results can be read."""
        return self.processing_status == "ended"


class ListPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of batches, newest first; older ones follow ``after_id=last_id``."""

    data: list[MessageBatch]
    has_more: bool = False
    first_id: str | None = None
    last_id: str | None = None


class DeletedBatch(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    type: str = "message_batch_deleted"


class TokenCount(msgspec.Struct, frozen=True, kw_only=True):
    input_tokens: int


@dataclass(frozen=True)
class CreatedBatch:
    """``server_time`` is the reply's ``Date``: the clock that ``created_at`` is told by."""

    batch: MessageBatch
    server_time: datetime | None
    request_id: str | None


@dataclass(frozen=True)
class Polled:
    """A batch as polled; ``retry_after_s`` is the server's hint when to ask again."""

    batch: MessageBatch
    retry_after_s: float | None
    server_time: datetime | None
    request_id: str | None


@dataclass(frozen=True)
class Reachability:
    """What a first reply tells: the server is there and takes the key. ``emulator``: its name."""

    base_url: str
    emulator: str | None
    server_time: datetime | None
    request_id: str | None
    round_trip_s: float


def batch_path(batch_id: str, tail: str = "") -> str:
    """The path of one batch on the configured server; ``results_url`` plays no part in it."""
    if not batch_id or set(batch_id) == {"."}:
        raise ConfigError(f"{batch_id!r} is not a batch id: it looks like msgbatch_01AbC.")
    return f"{BATCHES}/{quote(batch_id, safe='')}{tail}"


def normalised_base_url(base_url: str) -> str:
    """``base_url`` without trailing slashes; a path prefix stays.

    Raises ``ConfigError`` for anything but https, or http to this machine, and for a URL that
    carries a user, a query or ``/v1``.
    """
    text = base_url.strip()
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"The base URL is not a URL ({error}). {_LIKE}") from None
    if "@" in parts.netloc:
        raise ConfigError(f"The base URL for {host} holds a user or a password: remove it. {_LIKE}")
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(f"The base URL {text!r} has no http(s) scheme or no host. {_LIKE}")
    if parts.query or parts.fragment:
        raise ConfigError(f"The base URL {text!r} has a query or a fragment. {_LIKE}")
    path = re.sub("/{2,}", "/", parts.path).rstrip("/")
    if path.endswith("/v1"):
        raise ConfigError(f"The base URL {text!r} ends in /v1, which is added to it: leave it out.")
    if parts.scheme == "http" and not is_loopback(host):
        raise ConfigError(
            f"The base URL {text!r} would send the API key and the records in clear text:"
            " use https (http is allowed to this machine only)."
        )
    address = f"[{host}]" if ":" in host else host
    netloc = address if port is None else f"{address}:{port}"
    return urlunsplit((parts.scheme, netloc, path, "", ""))


_LIKE = "It looks like https://api.anthropic.com."


def is_loopback(host: str) -> bool:
    """``host`` is this machine, by its name or its address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
