"""Calls that may be made twice: reads, and cancel, delete and count_tokens. Never create.

A ``transient`` error is tried up to ``max_tries`` times, after the server's ``retry-after`` (at
most ``LONGEST_WAIT_S``) or a doubling pause, both with jitter. A 404 is waited out for as long as
the caller says that it should pass: a batch just created, and results of one just ended, may be
absent for a moment (docs/batches-api.md, section 9). That the 404 carries ``x-should-retry:
false`` does not matter then, because results before the end carry the same.

The loop is tenacity's rather than stamina's, because its sleep is an argument: a test counts the
pauses, and a run that is being terminated can be woken. A ``BaseException`` passes through.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception

from batch_etl.batches.errors import ApiError, NotFound

LONGEST_WAIT_S = 120.0
"""A longer ``retry-after`` is waited for only so far before the next try."""

log = logging.getLogger("batch_etl.client")
T = TypeVar("T")


def repeated(
    call: Callable[[], T],
    *,
    max_tries: int,
    sleep: Callable[[float], None],
    not_found_for_s: float = 0.0,
) -> T:
    """``call`` until it succeeds, or fails with an error that is not worth another try."""

    def worth_another_try(error: BaseException) -> bool:
        awaited = isinstance(error, NotFound) and not_found_for_s > 0
        return isinstance(error, ApiError) and (error.transient or awaited)

    def enough(state: RetryCallState) -> bool:
        if _failure(state).transient:
            return state.attempt_number >= max_tries
        return state.idle_for >= not_found_for_s

    return Retrying(
        retry=retry_if_exception(worth_another_try),
        stop=enough,
        wait=lambda state: pause_s(_failure(state).retry_after_s, state.attempt_number),
        sleep=sleep,
        before_sleep=_log_pause,
        reraise=True,
    )(call)


def pause_s(asked_s: float | None, tries: int) -> float:
    """Seconds before the next of ``tries`` + 1 tries: what the server asked for, else doubling."""
    if asked_s is not None:
        return min(asked_s, LONGEST_WAIT_S) * random.uniform(1.0, 1.1)  # noqa: S311
    return min(0.5 * 2 ** (tries - 1), 8.0) * random.uniform(0.75, 1.0)  # noqa: S311


def _failure(state: RetryCallState) -> ApiError:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, ApiError)  # noqa: S101
    return error


def _log_pause(state: RetryCallState) -> None:
    log.warning(
        "try %d failed, next in %.1f s: %s",
        state.attempt_number,
        state.upcoming_sleep,
        _failure(state),
    )
