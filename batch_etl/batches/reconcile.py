"""Was it created? Finding a batch whose create call was answered by nothing we can trust.

The API has no idempotency key and no name on a batch (docs/batches-api.md, section 9), but a
create that was accepted shows in the list, newest first, with its count of requests; and every
result line begins with the custom_id, hence with the batch's own random token. So:

    candidates   created since the intent (server's clock), same count, in no row of the ledger
    proof        the first result line of a candidate that has ended carries our token
    unproven     a candidate still in progress: wait for it, nothing is sent meanwhile
                 (or whose results cannot be read just now)
    none         after a grace period (a list may lag): it was never created, send it again
    archived     the only candidates left have no results any more, or results without any line: a
                 person has to decide

A batch of the same size that somebody else made in the same seconds is never adopted: it fails the
proof.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from batch_etl.batches.client import Client
from batch_etl.batches.collect import lines
from batch_etl.batches.errors import Interrupted, NotFound, TimedOut
from batch_etl.batches.ledger import BatchRow
from batch_etl.batches.outcome import decode
from batch_etl.batches.request import parse_custom_id
from batch_etl.batches.wire import MessageBatch

_RECENT_404_S = 30.0
"""Results of a batch that has just ended may be unknown for a moment (SDK issue 1432)."""

_LONGEST_CREATE = dt.timedelta(hours=24)
"""No create call takes longer: a batch made later is another's."""

_READS = 3
"""Of results that hold no line."""

_SKEW = dt.timedelta(seconds=5)
"""The intent's time is whole seconds of the server's ``Date``; created_at may round otherwise."""


@dataclass(frozen=True)
class Finding:
    """``found`` or ``archived`` with its batch; ``unproven`` while a candidate may be it."""

    verdict: Literal["found", "unproven", "archived", "absent"]
    batch: MessageBatch | None = None


def find_created(
    client: Client,
    row: BatchRow,
    known: Callable[[list[str]], set[str]],
    grace_s: float,
    quiet_s: float = float("inf"),
) -> Finding:
    """Look for the batch of a ``submitting`` row. ``known`` filters ids the ledger has already.

    ``quiet_s`` is how long ago the create call failed, where that is known: an upload may have
    taken longer than the grace period. Raises ``ApiError`` when the list cannot be read.
    """
    intent = row.submitting_at or row.planned_at
    unproven = False
    archived: MessageBatch | None = None
    for candidate in _candidates(client, row.requests, intent - _SKEW, known):
        if candidate.archived_at is not None:
            archived = candidate
            continue
        proof = _proof(client, candidate, row.id)
        if proof == "ours":
            return Finding("found", candidate)
        if proof == "no line":
            archived = candidate
        unproven |= proof == "later"
    if archived is not None and not unproven:
        return Finding("archived", archived)
    age_s = (_server_now(client) - intent).total_seconds()
    young = min(age_s, quiet_s) < grace_s
    return Finding("unproven" if unproven or young else "absent")


def _candidates(
    client: Client, requests: int, since: dt.datetime, known: Callable[[list[str]], set[str]]
) -> Iterator[MessageBatch]:
    for batch in client.iter_batches():
        if batch.created_at < since:
            return
        if batch.created_at > since + _LONGEST_CREATE:
            continue
        if batch.request_counts.total == requests and not known([batch.id]):
            yield batch


def _proof(
    client: Client, batch: MessageBatch, token: str
) -> Literal["ours", "theirs", "later", "no line"]:
    """Whose the first line is that names a request; ``later``, where it cannot be told now.

    An ended batch has a line for each request, so results without one were cut off on their way:
    they are read again, and if they stay so, nothing is proven by them.
    """
    if not batch.ended:
        return "later"
    try:
        names = (_first_name(client, batch) for _ in range(_READS))
        name = next((name for name in names if name is not None), None)
    except (NotFound, Interrupted, TimedOut):
        return "later"
    if name is None:
        return "no line"
    return "ours" if name == token else "theirs"


def _first_name(client: Client, batch: MessageBatch) -> str | None:
    """The token of the first line that names a request; "" where that is no name of ours."""
    with client.results(batch.id, not_found_for_s=_RECENT_404_S) as chunks:
        for line in lines(chunks):
            decoded = decode(line, None)
            if decoded is not None:
                name = parse_custom_id(decoded.custom_id)
                return name[0] if name is not None else ""
    return None


def _server_now(client: Client) -> dt.datetime:
    return client.ping().server_time or dt.datetime.now(dt.UTC)
