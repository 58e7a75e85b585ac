"""What earlier answers come to under a retry policy: questions answered for good, and those that
go on where another transform stopped.

    Succeeded                         answered
    failed, and no step follows       answered for good: in review, and not bought again
    failed, and a step follows        to be resumed: the next attempt is due, not the first
    free (Expired, Errored, ...)      nothing: asked as if never before

Of several failed answers to one question the last counts: the one before which most had failed.
Answers files are read in columns, and a decision is made once for each distinct situation, of which
there are a few dozen, whatever the number of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute

from batch_etl import arrow
from batch_etl.batches.answers import Answers, outcome_in, read_answers
from batch_etl.batches.keys import U64, KeySet, Mask, from_arrow, halves
from batch_etl.batches.retry import FAILED, Policy, Step, Tried, next_step

pc: Any = pyarrow.compute  # its functions are made at import; a type checker sees none

Numbers = npt.NDArray[np.int64]

SITUATION = ("outcome", "error_type", "stop_reason", "asked_model", "asked_max_tokens", "failed")
"""The columns of an answer on which the next step depends, beside the attempt."""

_ATTEMPTS = 64
"""More than there can be attempts of a question."""

_MOST_CODES = 2**62


def kinds_in(rows: pa.RecordBatch, kinds: frozenset[str]) -> Mask:
    """Which rows have one of these outcomes."""
    return outcome_in(rows.column("outcome"), kinds)


def standing(rows: pa.RecordBatch | pa.Table, attempts: Numbers) -> Numbers:
    """How far along a question is in each row: answers that failed, this one included; attempts."""
    before = arrow.numbers(pc.fill_null(rows.column("failed"), 0).cast(pa.int64()))
    words = rows.column("outcome").cast(pa.string())
    here = arrow.flags(pc.is_in(words, pa.array(sorted(FAILED), pa.string())))
    return (before + here) * _ATTEMPTS + attempts


def next_steps(
    policy: Policy, rows: pa.RecordBatch | pa.Table, attempts: Numbers
) -> tuple[list[Step | None], npt.NDArray[np.intp]]:
    """The distinct next steps after these answers, and for each row which one is its own."""
    code, codes = attempts.astype(np.int64), _ATTEMPTS
    for name in SITUATION:
        column = rows.column(name)
        whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        words = whole if pa.types.is_dictionary(whole.type) else whole.dictionary_encode()
        index = arrow.numbers(pc.fill_null(words.indices, -1)).astype(np.int64) + 1
        choices = len(words.dictionary) + 1
        if codes * choices > _MOST_CODES:
            distinct, code = np.unique(code, return_inverse=True)
            codes = len(distinct)
        code, codes = code * choices + index, codes * choices
    _, first, which = np.unique(code, return_index=True, return_inverse=True)
    one_each = rows.select(list(SITUATION)).take(arrow.column(first))
    steps = [
        next_step(policy, _tried(attempt, row))
        for attempt, row in zip(attempts[first].tolist(), one_each.to_pylist(), strict=True)
    ]
    return steps, which


def _tried(attempt: int, row: dict[str, Any]) -> Tried:
    return Tried(
        attempt=attempt,
        kind=row["outcome"],
        error_type=row["error_type"],
        stop_reason=row["stop_reason"],
        claude_model=row["asked_model"],
        max_tokens=row["asked_max_tokens"],
        failed=row["failed"] or 0,
    )


def for_good(policy: Policy, rows: pa.RecordBatch, attempt: int) -> Mask:
    """Which rows answer their question for good."""
    good = kinds_in(rows, frozenset({"Succeeded"}))
    failed = np.flatnonzero(kinds_in(rows, FAILED))
    if len(failed):
        attempts = np.full(len(failed), attempt, dtype=np.int64)
        situations = rows.select(list(SITUATION)).take(arrow.column(failed))
        steps, which = next_steps(policy, situations, attempts)
        good[failed] = np.array([step is None for step in steps], dtype=bool)[which]
    return good


class History:
    """The answers that one folder holds for other transforms' questions, under one policy."""

    def __init__(self, folder: Answers, policy: Policy) -> None:
        self._folder = folder
        self._policy = policy
        self._files: list[tuple[str, int]] = []
        """Those with failed answers: (token, attempt)."""
        self._failed: list[tuple[U64, Numbers, Mask]] = []
        """Prefix, standing, and whether a step follows."""
        self._succeeded = KeySet()
        self._judged: tuple[KeySet, KeySet] | None = None

    def add(self, token: str, attempt: int) -> U64:
        """Take in a collected batch; returns the questions that it has asked in vain."""
        self._judged = None
        before = len(self._failed)
        succeeded: list[U64] = []
        for rows in read_answers(self._folder, token, ["request_key", *SITUATION]):
            prefixes = halves(from_arrow(rows.column("request_key")))[0]
            succeeded.append(prefixes[kinds_in(rows, frozenset({"Succeeded"}))])
            self._add_failed(rows, prefixes, attempt)
        self._succeeded.add(KeySet(succeeded).all())
        if len(self._failed) > before:
            self._files.append((token, attempt))
        failed = [prefixes for prefixes, _, _ in self._failed[before:]]
        return np.concatenate([*failed, np.empty(0, np.uint64)])

    def _add_failed(self, rows: pa.RecordBatch, prefixes: U64, attempt: int) -> None:
        at = np.flatnonzero(kinds_in(rows, FAILED))
        if not len(at):
            return
        failed = rows.take(arrow.column(at))
        attempts = np.full(len(at), attempt, dtype=np.int64)
        steps, which = next_steps(self._policy, failed, attempts)
        goes_on = np.array([step is not None for step in steps], dtype=bool)[which]
        self._failed.append((prefixes[at], standing(failed, attempts), goes_on))

    @property
    def answered(self) -> KeySet:
        """Questions that are answered for good."""
        return self._judgement()[0]

    @property
    def resumable(self) -> KeySet:
        """Questions whose last answer failed, and whose next attempt is due."""
        return self._judgement()[1]

    def _judgement(self) -> tuple[KeySet, KeySet]:
        if self._judged is None:
            self._judged = self._judge()
        return self._judged

    def _judge(self) -> tuple[KeySet, KeySet]:
        if not self._failed:
            return self._succeeded, KeySet()
        prefixes, stands, goes_on = (
            np.concatenate(column) for column in zip(*self._failed, strict=True)
        )
        order = np.lexsort((stands, prefixes))
        last = np.append(prefixes[order][1:] != prefixes[order][:-1], np.True_)
        prefixes, goes_on = prefixes[order][last], goes_on[order][last]
        goes_on &= ~self._succeeded.contains(prefixes)
        return KeySet([self._succeeded.all(), prefixes[~goes_on]]), KeySet([prefixes[goes_on]])

    def failures(
        self, wanted: KeySet, columns: list[str]
    ) -> Iterator[tuple[str, int, pa.RecordBatch]]:
        """(token, attempt, rows): the failed answers to these questions."""
        for token, attempt in self._files:
            for rows in read_answers(self._folder, token, columns):
                prefixes = halves(from_arrow(rows.column("request_key")))[0]
                mask = kinds_in(rows, FAILED) & wanted.contains(prefixes)
                if mask.any():
                    yield token, attempt, rows.filter(arrow.column(mask))
