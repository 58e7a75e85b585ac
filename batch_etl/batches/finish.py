"""Finishing: records x outcomes -> one results file a partition, one row a record.

Partitions are taken in groups of about a hundred thousand records, two hundred partitions at most.
Of all that the answers files tell of a question, its records show what stands first
(``standing.py``); where nothing is told they are Missing, and a record without a request says why
there is none. Each row is fanned out to all records with its request_key, so each record is in its
partition's file exactly once; the order of rows is not the records' (``record_row`` is). A results
file says which records file it is of.
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
from upath import UPath

from batch_etl import arrow, memory
from batch_etl.batches.answers import ANSWERS, USD, Answers, count_outcomes, read_answers, usd
from batch_etl.batches.keys import KeyMap, Mask, Positions, from_arrow
from batch_etl.batches.outcome import MISSING
from batch_etl.batches.plan import plan_path
from batch_etl.batches.request import KEY_BYTES, custom_ids
from batch_etl.batches.retry import Policy
from batch_etl.batches.standing import NOBODY, AnswerFile, Standing, taken
from batch_etl.files import RECORDS_FACT, ParquetSink, facts_of, read_table, row_count

pc: Any = pyarrow.compute  # its functions are made at import; a type checker sees none

_WORD = pa.dictionary(pa.int32(), pa.string())

RESULTS = pa.schema(
    [
        ("record_id", pa.string()),
        ("record_row", pa.int64()),  # 0-based row in the partition's records file
        ("state", _WORD),  # answered | review
        ("outcome", _WORD),
        ("reason", pa.string()),
        ("output", pa.string()),  # JSON
        ("text", pa.string()),
        ("stop_reason", _WORD),
        ("model", _WORD),
        ("request_key", pa.string()),  # 32 hex digits
        ("batch_id", _WORD),
        ("custom_id", pa.string()),
        ("message_id", pa.string()),
        ("attempt", pa.int16()),
        ("task_version", _WORD),
        ("endpoint", _WORD),
        ("answered_at", pa.timestamp("us", tz="UTC")),
        ("input_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("cache_read_tokens", pa.int64()),
        ("cache_write_tokens", pa.int64()),
        ("cost_usd", USD),
    ]
)
"""One row a record. It tells of one attempt, but ``cost_usd`` is what all attempts at this record's
question cost; a record that shares what was bought for another record shows 0, so that sums are
bills. It is null where a price is unknown."""

_SHOWN = [
    name
    for name in ANSWERS.names
    if name == "row" or (name in RESULTS.names and name not in ("request_key", "cost_usd"))
]
"""What results show of an answer as it is, and the row in which it stands; the record's id only
where the answer was bought for that record."""

_NOISE = ["request_key", "message_id"]
"""Texts of random digits and letters."""

_GROUP_RECORDS = 100_000
_GROUP_PARTITIONS = 200
"""Each has a file open meanwhile."""


@dataclass(frozen=True)
class Target:
    """Where one partition's results go."""

    ordinal: int
    key: str | None
    path: UPath


@dataclass
class PartitionResult:
    """What one partition came to."""

    key: str | None
    path: UPath
    records: int = 0
    outcomes: dict[str, int] = field(default_factory=dict[str, int])
    cost_pico_usd: int | None = 0
    """What was paid for these records; None when a price is unknown."""


@dataclass(frozen=True)
class Lineage:
    """What every row of a transform's results says."""

    task_version: str
    endpoint: str


def finish(
    targets: Sequence[Target],
    plans: UPath,
    answers: Answers,
    files: Sequence[AnswerFile],
    lineage: Lineage,
    *,
    policy: Policy,
) -> list[PartitionResult]:
    """Write the results file of each target. Of files that tell the same, the first one counts."""
    results: list[PartitionResult] = []
    for group in _groups(targets, plans):
        results += _Group(group, plans, lineage).write(answers, files, policy)
        memory.release()
    return results


def _groups(targets: Sequence[Target], plans: UPath) -> list[list[Target]]:
    groups: list[list[Target]] = []
    held = 0
    for target in targets:
        rows = row_count(plan_path(plans, target.ordinal))
        full = not groups or len(groups[-1]) == _GROUP_PARTITIONS
        if full or held + rows > _GROUP_RECORDS:
            groups.append([])
            held = 0
        groups[-1].append(target)
        held += rows
    return groups


class _Group:
    """A few partitions' records, by position, until each has its row."""

    def __init__(self, targets: Sequence[Target], plans: UPath, lineage: Lineage) -> None:
        tables = [read_table(plan_path(plans, target.ordinal)) for target in targets]
        plan = pa.concat_tables(tables)
        self._targets = targets
        self._lineage = lineage
        self._starts = np.cumsum([0, *(table.num_rows for table in tables)])
        self._record_ids = plan.column("record_id").combine_chunks()
        self._problems = plan.column("problem").combine_chunks()
        self._keys = from_arrow(plan.column("request_key").combine_chunks())
        self._sendable = arrow.flags(self._problems.is_null())
        self._standing = Standing(KeyMap(self._keys), self._sendable, self._bought_for)
        self._results = [PartitionResult(target.key, target.path) for target in targets]
        self._facts = [_of_records(plan_path(plans, target.ordinal)) for target in targets]

    def write(
        self, answers: Answers, files: Sequence[AnswerFile], policy: Policy
    ) -> list[PartitionResult]:
        self._standing.look(answers, files, policy)
        with ExitStack() as stack:
            self._sinks = [
                stack.enter_context(
                    ParquetSink(
                        target.path, RESULTS, "results", lean=True, noise=_NOISE, facts=facts
                    )
                )
                for target, facts in zip(self._targets, self._facts, strict=True)
            ]
            for number in self._standing.files():
                chosen = self._standing.standing_in(number)
                for rows in read_answers(answers, files[number].token, _SHOWN):
                    index, position = self._by_partition(*chosen.of(rows))
                    if len(index):
                        shown = self._answered(taken(rows, index), position, files[number])
                        self._put(position, shown)
            self._put_unanswerable(self._standing.file == NOBODY)
        del self._standing  # which refers to this group: they would keep each other for long
        return self._results

    def _by_partition(self, index: Positions, position: Positions) -> tuple[Positions, Positions]:
        """The same pairs so that those of one partition stand together."""
        if len(self._targets) == 1:
            return index, position
        order = np.argsort(self._ordinals(position), kind="stable")
        return index[order], position[order]

    def _bought_for(self, rows: pa.RecordBatch, position: Positions) -> Mask:
        """Which rows were bought for the very records at these positions."""
        same = pc.equal(rows.column("record_id"), self._ids(position))
        theirs = rows.column("partition")
        if len(self._targets) > 1:
            keys = pa.array([target.key for target in self._targets], pa.string())
            mine: Any = keys.take(arrow.column(self._ordinals(position)))
        else:
            mine = pa.scalar(self._targets[0].key, pa.string())
        no = pa.scalar(False, pa.bool_())  # noqa: FBT003
        there = pc.or_(
            pc.fill_null(pc.equal(theirs, mine), no),
            pc.and_(pc.is_null(theirs), pc.is_null(mine)),
        )
        return arrow.flags(pc.fill_null(pc.and_(same, there), no))

    def _answered(
        self, rows: pa.RecordBatch, position: Positions, file: AnswerFile
    ) -> dict[str, pa.Array[Any]]:
        columns = {name: rows.column(name) for name in _SHOWN if name in RESULTS.names}
        if not self._standing.for_it[position].all():
            columns["record_id"] = self._ids(position)
        columns["custom_id"] = custom_ids(file.token, rows.column("row"))
        columns["batch_id"] = _constant(file.batch_id, len(rows))
        columns["attempt"] = arrow.column(np.full(len(rows), file.attempt, dtype=np.int16))
        ended = pa.scalar(file.ended_at, RESULTS.field("answered_at").type)
        columns["answered_at"] = pa.repeat(ended, len(rows))
        return columns

    def _put_unanswerable(self, mask: Mask) -> None:
        """Records that no answers file tells of: never sendable, or missing."""
        position = np.flatnonzero(mask)
        if not len(position):
            return
        problems = self._problems.take(arrow.column(position))
        sent = pc.is_null(problems)
        columns: dict[str, pa.Array[Any]] = {
            "record_id": self._ids(position),
            "outcome": pc.if_else(sent, _text("Missing"), _text("Errored")).dictionary_encode(),
            "reason": pc.fill_null(problems, _text(MISSING.reason)),
        }
        self._put(position, columns)

    def _put(self, position: Positions, columns: dict[str, pa.Array[Any]]) -> None:
        """Write rows to their partitions' files, with the columns that all rows share.

        Rows of one partition stand together.
        """
        ordinals = self._ordinals(position)
        columns["record_row"] = arrow.column(position - self._starts[ordinals])
        columns["state"] = _states(columns["outcome"])
        columns["request_key"] = _hex(self._keys[position], self._sendable[position])
        standing = self._standing
        columns["cost_usd"] = usd(standing.cost_pico_usd[position], ~standing.unpriced[position])
        columns["task_version"] = _constant(self._lineage.task_version, len(position))
        columns["endpoint"] = _constant(self._lineage.endpoint, len(position))
        rows = pa.RecordBatch.from_arrays(
            [
                columns[field.name]
                if field.name in columns
                else pa.nulls(len(position), field.type)
                for field in RESULTS
            ],
            schema=RESULTS,
        )
        begins = np.flatnonzero(np.diff(ordinals, prepend=-1))
        for start, end in pairwise([*begins.tolist(), len(ordinals)]):
            mine = rows.slice(start, end - start)
            self._sinks[ordinals[start]].write(mine)
            self._tally(self._results[ordinals[start]], mine)

    def _tally(self, result: PartitionResult, rows: pa.RecordBatch) -> None:
        result.records += rows.num_rows
        count_outcomes(rows.column("outcome"), result.outcomes)

    def _ordinals(self, position: Positions) -> Positions:
        if len(self._targets) == 1:
            return np.zeros(len(position), dtype=np.int64)
        return np.searchsorted(self._starts, position, side="right") - 1

    def _ids(self, position: Positions) -> pa.Array[Any]:
        return self._record_ids.take(arrow.column(position))


def _of_records(plan: UPath) -> dict[str, str]:
    """Which records a plan is of; an earlier version of this program did not note it."""
    return {key: fact for key, fact in facts_of(plan).items() if key == RECORDS_FACT}


def _text(value: str | None) -> pa.Scalar[Any]:
    return pa.scalar(value, pa.string())


def _constant(value: str | None, rows: int) -> pa.Array[Any]:
    if value is None:
        return pa.nulls(rows, _WORD)
    words = pa.array([value], pa.string())
    return pa.DictionaryArray.from_arrays(arrow.column(np.zeros(rows, dtype=np.int32)), words)


def _states(outcomes: pa.Array[Any]) -> pa.Array[Any]:
    review = [word != "Succeeded" for word in outcomes.dictionary.to_pylist()]
    words = pa.array(["answered", "review"], pa.string())
    states = np.array(review, dtype=np.int32)[arrow.numbers(outcomes.indices)]
    return pa.DictionaryArray.from_arrays(arrow.column(states), words)


def _hex(keys: npt.NDArray[np.bytes_], sendable: Mask) -> pa.Array[Any]:
    """request_keys as hex text; null for a record without a request."""
    digits = binascii.hexlify(np.ascontiguousarray(keys).view(np.uint8).data)
    offsets = np.arange(0, len(digits) + 1, 2 * KEY_BYTES, dtype=np.int32)
    texts = pa.Array.from_buffers(
        pa.string(), len(keys), [None, pa.py_buffer(offsets), pa.py_buffer(digits)]
    )
    if sendable.all():
        return texts
    return pc.if_else(arrow.column(sendable), texts, pa.scalar(None, pa.string()))
