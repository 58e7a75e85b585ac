"""One record, many requests: each record of a source once for each of a list of values.

    for_each: {values: [de, fr, pt-BR], into: language}          the same list for all records
    for_each: {column: languages, into: language}                each record's own list

A record ``s1`` becomes the records ``s1:de``, ``s1:fr``, ...: all its columns as they were, the
value in a column of its own (``into``), and a new id made of the two. From there on each is a
record like any other, with its own request, outcome and row.

A value that is null is passed over; a record whose list is null or empty has nothing to be asked,
and makes no record. Rows are multiplied in slices of a few megabytes, however long the texts are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
from pydantic import Field, StrictInt, StrictStr, field_validator, model_validator
from upath import UPath

from batch_etl import arrow
from batch_etl.errors import SourceError
from batch_etl.files import read_batches
from batch_etl.sources.columns import no_column
from batch_etl.sources.source import OnDuplicate, PartitionSlice, Portion, Source
from batch_etl.strict import Strict

pc: Any = pyarrow.compute  # its functions are made at import: type checkers see none

_SLICE_BYTES = 16 * 2**20
"""Of multiplied rows; a single row's values are never cut apart."""

Counts = npt.NDArray[np.int64]


class ForEach(Strict):
    """The values for each of which a record is asked about."""

    values: Annotated[list[StrictStr | StrictInt], Field(min_length=1)] | None = Field(
        default=None, description="The values, the same for all records."
    )
    column: str | None = Field(
        default=None, description="Or the column in which each record has its own list."
    )
    into: str = Field(description="The new column with one value.")
    id: str | None = Field(
        default=None, description="The new id's column; by default `<source id>_<into>`."
    )

    @field_validator("values", mode="before")
    @classmethod
    def _are_no_booleans(cls, values: Any) -> Any:
        if isinstance(values, list) and any(isinstance(value, bool) for value in values):  # pyright: ignore[reportUnknownVariableType]
            raise ValueError("YAML reads yes, no, on and off as true and false: put quotes around")
        return values

    @field_validator("values")
    @classmethod
    def _are_told_apart(cls, values: list[str | int] | None) -> list[str | int] | None:
        texts = [str(value) for value in values or ()]
        for text in texts:
            if not text:
                raise ValueError("a value is empty, and would be no part of an id")
            if texts.count(text) > 1:
                raise ValueError(f"{text!r} is there twice")
        return values

    @model_validator(mode="after")
    def _one_list(self) -> Self:
        if (self.values is None) == (self.column is None):
            raise ValueError("give either `values` or `column`")
        if self.into in (self.column, self.id):
            raise ValueError(f"into: {self.into!r} must be a name of its own")
        return self

    def id_column(self, source_id: str) -> str:
        return self.id or f"{source_id}_{self.into}"


@dataclass(frozen=True)
class FanOut:
    """A source whose records are those of another, once for each value."""

    source: Source
    each: ForEach

    @property
    def id(self) -> str:
        return self.each.id_column(self.source.id)

    @property
    def on_duplicate(self) -> OnDuplicate:
        return self.source.on_duplicate

    def read(self, slices: Sequence[PartitionSlice] | None) -> Iterator[Portion]:
        """The other source's portions, multiplied. Raises SourceError."""
        for portion in self.source.read(slices):
            if portion.batch.schema.names == [self.source.id] and not portion.batch.num_rows:
                yield portion._replace(batch=self._nothing(portion.batch))
                continue
            self._check(portion.batch.schema)
            counts = self._counts(portion.batch)
            for low, high in _slices(portion.batch, counts):
                yield self._multiplied(portion, low, high)

    def _nothing(self, empty: pa.RecordBatch) -> pa.RecordBatch:
        """Of a source without any file, of whose columns only the id is known."""
        ids = pa.array([], pa.string())
        values = ids if self.each.values is None else _constant(self.each.values).slice(0, 0)
        return self._joined(ids, values, empty)

    def _check(self, schema: pa.Schema) -> None:
        column = self.each.column
        if column is not None:
            if column not in schema.names:
                raise no_column("for_each.column", column, schema.names)
            if not _is_list(schema.field(column).type):
                raise SourceError(
                    f"for_each.column: {column!r} is {schema.field(column).type}, and must be a "
                    "list; JSON Lines and Parquet have lists, CSV has none"
                )
            if pa.types.is_nested(schema.field(column).type.value_type):
                raise SourceError(
                    f"for_each.column: the items of {column!r} are {schema.field(column).type}; "
                    "they must be texts or numbers, to be part of an id"
                )
        if self.source.id not in schema.names:
            raise no_column("id", self.source.id, schema.names)
        for key, name in (("into", self.each.into), ("id", self.id)):
            if name in schema.names:
                raise SourceError(
                    f"for_each.{key}: the records have a column {name!r} already; choose another "
                    "name"
                )

    def _counts(self, batch: pa.RecordBatch) -> Counts:
        """How many records each row becomes."""
        if self.each.column is None:
            return np.full(batch.num_rows, len(self.each.values or ()), dtype=np.int64)
        return _lengths(batch.column(self.each.column))

    def _multiplied(self, portion: Portion, low: int, high: int) -> Portion:
        rows = portion.batch.slice(low, high - low)
        at, values = self._values(rows)
        repeated = rows.take(pa.array(at))
        ids = pc.binary_join_element_wise(
            repeated.column(self.source.id).cast(pa.string()), values.cast(pa.string()), ":"
        )
        numbers = portion.rows[low:high]
        batch = self._joined(ids, values, repeated)
        return portion._replace(batch=batch, rows=[numbers[row] for row in at.tolist()])

    def _joined(
        self, ids: pa.Array[Any], values: pa.Array[Any], rest: pa.RecordBatch
    ) -> pa.RecordBatch:
        own = [pa.field(self.id, ids.type), pa.field(self.each.into, values.type)]
        schema = pa.schema([*own, *rest.schema], metadata=rest.schema.metadata)
        return pa.RecordBatch.from_arrays([ids, values, *rest.columns], schema=schema)

    def _values(self, rows: pa.RecordBatch) -> tuple[Counts, pa.Array[Any]]:
        """(row, value) of each new record."""
        if self.each.column is None:
            constant = _constant(self.each.values or ())
            at = np.repeat(np.arange(rows.num_rows), len(constant))
            return at, constant.take(pa.array(np.tile(np.arange(len(constant)), rows.num_rows)))
        lists = rows.column(self.each.column)
        items = pc.list_flatten(lists)
        there = pc.is_valid(items)
        at = pc.filter(pc.list_parent_indices(lists), there)
        return arrow.numbers(at.cast(pa.int64())), pc.filter(items, there)

    # whether all are there ----------------------------------------------------------------------

    def expected_rows(self, records: UPath) -> int:
        """How many rows a file of extracted records must have: its source's records x values.

        The rows of one source record follow one another in the file.
        """
        total = 0
        previous: Any = None
        columns = [self.source.id, *([self.each.column] if self.each.column else [])]
        for batch in read_batches(records, columns):
            ids = batch.column(self.source.id)
            first = np.ones(len(ids), dtype=bool)
            if len(ids) > 1:
                changes = pc.not_equal(ids.slice(1), ids.slice(0, len(ids) - 1))
                first[1:] = arrow.flags(changes)
            first[0] = not (previous is not None and ids[0].equals(previous))
            total += int(self._counts(batch)[first].sum())
            previous = ids[-1]
        return total


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _lengths(lists: pa.Array[Any]) -> Counts:
    """The items of each list that are not null; 0 where there is no list."""
    there = arrow.flags(pc.is_valid(pc.list_flatten(lists)))
    parents = arrow.numbers(pc.list_parent_indices(lists))[there]
    return np.bincount(parents, minlength=len(lists)).astype(np.int64)


def _constant(values: Sequence[str | int]) -> pa.Array[Any]:
    """As numbers where all of them are, else as texts."""
    if all(isinstance(value, int) for value in values):
        return pa.array(values, pa.int64())
    return pa.array([str(value) for value in values], pa.string())


def _slices(batch: pa.RecordBatch, counts: Counts) -> Iterator[tuple[int, int]]:
    """Runs of rows whose multiplied size is bounded; one empty run of a batch without rows."""
    if not batch.num_rows:
        yield 0, 0
        return
    row_bytes = max(1, batch.nbytes // batch.num_rows)
    ends = np.cumsum(counts * row_bytes)
    low = 0
    while low < batch.num_rows:
        before = int(ends[low - 1]) if low else 0
        high = int(np.searchsorted(ends, before + _SLICE_BYTES, side="right"))
        yield low, max(high, low + 1)
        low = max(high, low + 1)
