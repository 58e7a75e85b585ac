"""Rows to the partitions they belong to, by the value of one column, a batch at a time.

A row whose value is null, empty, or (for time windows) no time is refused, never dropped: nobody
would miss it. A row whose value is of no wanted partition is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from batch_etl import arrow
from batch_etl.errors import SourceError
from batch_etl.sources.columns import plain
from batch_etl.sources.source import PartitionSlice, Portion
from batch_etl.sources.times import UTC_MICROSECONDS, as_times

pc: Any = pyarrow.compute  # its functions are made at import: type checkers see none

_NOWHERE = -1
_MOST_NAMED = 3


class Router:
    """Which of ``slices`` each row belongs to. Raises ValueError for windows that overlap."""

    def __init__(self, slices: Sequence[PartitionSlice], column: str) -> None:
        self._column = column
        self._by_time = bool(slices) and slices[0].start is not None
        if any((piece.start is not None) != self._by_time for piece in slices):
            raise ValueError("partitions must all be time windows, or all be matched by their text")
        self._slices = sorted(slices, key=lambda piece: piece.window or piece.key)
        self._keys = pa.array([piece.key for piece in self._slices], pa.string())
        if self._by_time:
            self._starts = _microseconds([piece.start for piece in self._slices])
            self._ends = _microseconds([piece.end for piece in self._slices])
            if (self._starts[1:] < self._ends[:-1]).any():
                raise ValueError("the partitions' time windows overlap")

    def route(self, batch: pa.RecordBatch, origin: str, first: int) -> Iterator[Portion]:
        """The batch's rows by partition; ``first`` is the number of its first row in ``origin``."""
        places = self._places(batch.column(self._column), origin, first)
        for place in np.unique(places[places != _NOWHERE]):
            rows = np.flatnonzero(places == place)
            taken = batch if len(rows) == len(places) else batch.take(pa.array(rows))
            yield Portion(self._slices[place].key, taken, origin, (rows + first).tolist())

    def _places(self, column: pa.Array, origin: str, first: int) -> np.ndarray:
        column = column.cast(plain(column.type))
        if self._by_time:
            return self._windows(column, origin, first)
        texts = column.cast(pa.string())
        self._refuse(
            pc.or_kleene(pc.is_null(texts), pc.equal(texts, pa.scalar("", pa.string()))),
            column,
            origin,
            first,
        )
        return arrow.numbers(pc.fill_null(pc.index_in(texts, self._keys), _NOWHERE))

    def _windows(self, column: pa.Array, origin: str, first: int) -> np.ndarray:
        try:
            times = as_times(column)
        except pa.ArrowInvalid as error:
            raise SourceError(
                f"{origin}: partition column {self._column!r} is {column.type}, which is no time; "
                f"declare types: {{{self._column}: timestamp}} (or timestamp_s, timestamp_ms)"
            ) from error
        self._refuse(pc.is_null(times), column, origin, first)
        moments = arrow.numbers(times.cast(pa.int64()))
        places = np.searchsorted(self._starts, moments, side="right") - 1
        return np.where(moments < self._ends[places], places, _NOWHERE)

    def _refuse(self, bad: pa.Array, column: pa.Array, origin: str, first: int) -> None:
        rows = np.flatnonzero(arrow.flags(bad))
        if len(rows) == 0:
            return
        named = "; ".join(
            f"{origin} record {row + first} ({column[int(row)].as_py()!r})"
            for row in rows[:_MOST_NAMED]
        )
        wanted = "an ISO 8601 time" if self._by_time else "a value"
        raise SourceError(
            f"partition column {self._column!r} needs {wanted} in every record, but has none in "
            f"{named}; correct the records, or name another `partition_column`"
        )


def _microseconds(moments: list[datetime | None]) -> np.ndarray:
    return arrow.numbers(pa.array(moments, UTC_MICROSECONDS).cast(pa.int64()))
