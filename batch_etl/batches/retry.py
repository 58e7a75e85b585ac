"""(attempt, outcome) -> send again, or done, by cause.

    Expired, Canceled, Missing        again: the request never ran, or its line was lost
    Errored by the API's fault        again
    Errored by the request's fault    review: the same bytes would fail the same way
    Invalid, Truncated, Refused       review

An outcome that is not sent again is final: it stays the answer to its ``request_key`` in later
runs, except an error of the request's fault, which was free and may have had a cause outside the
request (a model not yet enabled, a file that has come back); a new run asks it again.
"""

from __future__ import annotations

from batch_etl.batches.outcome import BILLED

TRANSIENT_ERRORS = frozenset(
    {"api_error", "overloaded_error", "rate_limit_error", "timeout_error", "unreadable_result"}
)
"""Error types of a line that the same request may not meet again (error table of the API)."""

_FREE_AND_PASSING = frozenset({"Expired", "Canceled", "Missing"})


def worth_another_try(kind: str, error_type: str | None) -> bool:
    """Whether sending the same bytes again can bring an answer."""
    return kind in _FREE_AND_PASSING or (kind == "Errored" and error_type in TRANSIENT_ERRORS)


def reusable(kind: str) -> bool:
    """Whether this outcome answers its request_key for good: everything that was paid for."""
    return kind in BILLED
