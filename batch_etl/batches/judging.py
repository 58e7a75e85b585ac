"""Which answers do not meet a task's conditions, found out when they are read.

Answers files tell what the schema says, whatever task they were bought for. A task with conditions
reads them through :class:`Judging`: of each file that it looks at, once, the answers to its own
records are judged, and those that fail are seen as Invalid (``answers.Verdict``). So planning,
later attempts and finishing go on as if the answer had broken the schema: it is repaired with the
condition's sentence, and reviewed at last. Nothing of it is written: another condition tomorrow
judges the same answers anew, and buys only what no longer holds.

An answer serves all records of the transform with its request_key, and must hold for each of them.
Answers are judged a block at a time, beside the columns of their records that conditions take.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from batch_etl import arrow
from batch_etl.batches.answer_text import decode_exactly
from batch_etl.batches.answers import Verdict, read_answers
from batch_etl.batches.conditions import Conditions, Failure, exact
from batch_etl.batches.history import kinds_in
from batch_etl.batches.keys import KeyMap, Positions, from_arrow
from batch_etl.batches.plan import plan_path
from batch_etl.batches.request import KEY_BYTES
from batch_etl.batches.transform import Partition, Transform
from batch_etl.files import ROWS_PER_READ, read_batches

_SUCCEEDED = frozenset({"Succeeded"})

Keys = npt.NDArray[np.bytes_]


class Judging:
    """The verdicts of one transform's conditions, each file judged when it is first asked for."""

    def __init__(
        self, transform: Transform, conditions: Conditions, plans: UPath, answers: UPath
    ) -> None:
        self._transform = transform
        self._conditions = conditions
        self._plans = plans
        self._answers = answers
        self._verdicts: dict[str, Verdict | None] = {}
        self._map: KeyMap | None = None
        self._starts: list[int] = [0]
        """The position of each partition's first record."""

    def verdict(self, token: str) -> Verdict | None:
        """Which answers of a batch fail; None where all stand."""
        if token not in self._verdicts:
            failures = self._failures(token) if self._is_of_concern(token) else {}
            self._verdicts[token] = self._told(failures) if failures else None
        return self._verdicts[token]

    def _told(self, failures: dict[int, Failure]) -> Verdict:
        rows = sorted(failures)
        return Verdict(
            rows=np.array(rows, dtype=np.int32),
            reasons=pa.array([failures[row].reason for row in rows], pa.string()),
            mendable=np.array([failures[row].can_be_mended for row in rows], dtype=bool),
            is_json=self._transform.task.answer_schema is not None,
        )

    # the records --------------------------------------------------------------------------------

    def _records(self) -> KeyMap:
        """From request_keys to the records' positions, over all partitions."""
        if self._map is None:
            keys: list[Keys] = []
            for ordinal, partition in enumerate(self._transform.partitions):
                keys.append(np.concatenate([*self._keys(ordinal, partition), _none()]))
                self._starts.append(self._starts[-1] + len(keys[-1]))
            self._map = KeyMap(np.concatenate([*keys, _none()]))
        return self._map

    def _keys(self, ordinal: int, partition: Partition) -> Iterator[Keys]:
        """Of one partition's records: from its plan, or rendered before there is one."""
        path = plan_path(self._plans, ordinal)
        if path.exists():
            for rows in read_batches(path, ["request_key"]):
                yield from_arrow(rows.column("request_key"))
            return
        renderer = self._transform.renderer(partition)
        for records in read_batches(partition.records, renderer.columns):
            yield from (part.keys for part in renderer.parts(records))

    def _values(self, positions: Positions) -> Iterator[dict[str, Any]]:
        """What conditions take of the records at these ascending positions."""
        columns = sorted(self._conditions.columns)
        if not columns:
            yield from ({} for _ in positions)
            return
        for ordinal, partition in enumerate(self._transform.partitions):
            low, high = np.searchsorted(positions, self._starts[ordinal : ordinal + 2])
            if low < high:
                rows = positions[low:high] - self._starts[ordinal]
                yield from _rows_at(partition.records, columns, rows)

    # the answers --------------------------------------------------------------------------------

    def _is_of_concern(self, token: str) -> bool:
        """Whether a file holds an answer to any of the transform's records."""
        records = self._records()
        return any(
            len(records.positions(from_arrow(rows.column("request_key")))[0])
            for rows in read_answers(self._answers, token, ["request_key"])
        )

    def _failures(self, token: str) -> dict[int, Failure]:
        """By the request's row in its batch."""
        failures: dict[int, Failure] = {}
        names = ["request_key", "row", "outcome", "output"]
        for rows in read_answers(self._answers, token, names):
            index, positions = self._records().positions(from_arrow(rows.column("request_key")))
            succeeded = kinds_in(rows, _SUCCEEDED)[index]
            index, positions = index[succeeded], positions[succeeded]
            order = np.argsort(positions, kind="stable")
            outputs, numbers = rows.column("output"), arrow.numbers(rows.column("row"))
            judged = zip(index[order].tolist(), self._values(positions[order]), strict=True)
            for at, record in judged:
                row = int(numbers[at])
                if row not in failures:
                    output = decode_exactly(outputs[at].as_py())
                    failure = self._conditions.failure(record, output)
                    if failure is not None:
                        failures[row] = failure
        return failures


def _none() -> Keys:
    return np.empty(0, f"S{KEY_BYTES}")


def _rows_at(
    path: UPath, columns: list[str], rows: npt.NDArray[np.int64]
) -> Iterator[dict[str, Any]]:
    """These ascending rows of a file, a row that stands often as often.

    Row groups that hold none are not read.
    """
    with pq.ParquetFile(str(path), pre_buffer=False) as file:
        start = 0
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            if np.searchsorted(rows, start) < np.searchsorted(rows, start + size):
                at = start
                for batch in file.iter_batches(ROWS_PER_READ, row_groups=[group], columns=columns):
                    low, high = np.searchsorted(rows, [at, at + batch.num_rows])
                    chosen = batch.take(arrow.column(rows[low:high] - at))
                    yield from (exact(record) for record in chosen.to_pylist())
                    at += batch.num_rows
            start += size
