"""Rows of Python values, as a database driver gives them, to Arrow batches of one schema.

The types of columns are those that are declared, those that the driver knows, or those of the first
block's values; every later value must fit them exactly, or is refused with its place. A column that
is null in the whole first block, and of which nothing else is known, is text.

What a driver gives and Arrow has no plain type for becomes text: UUIDs and durations as they are
written, objects as JSON. A value that has no obvious text is refused unless its column is declared.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pyarrow as pa

from batch_etl.errors import SourceError
from batch_etl.sources.asked import Block
from batch_etl.sources.columns import conform, converted, declared_type
from batch_etl.sources.times import UTC_MICROSECONDS

MOST_ROWS = 5_000
MOST_BYTES = 8 * 2**20

_MISFITS = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError)
_PLAIN = (bool, int, float, str, bytes, Decimal, dt.datetime, dt.date, dt.time)


@dataclass
class Typed:
    """Turns the rows of one answer into blocks; the first one settles the schema."""

    names: Sequence[str]
    origin: str
    declared: Mapping[str, str]
    known: Mapping[str, pa.DataType] = field(default_factory=dict[str, pa.DataType])
    """What the driver says of its columns' types."""
    schema: pa.Schema | None = None
    rows: int = 0

    def blocks(self, pages: Iterable[Sequence[Sequence[Any]]]) -> Iterator[Block]:
        """Stream the rows of all pages, a few MB at a time; an empty block where there are none."""
        for rows in _gathered(pages):
            yield self._block(rows)
        if self.schema is None:
            yield self._block([])

    def _block(self, rows: Sequence[Sequence[Any]]) -> Block:
        first = self.rows + 1
        columns = list(zip(*rows, strict=True)) if rows else [() for _ in self.names]
        arrays = [
            self._array(name, list(map(_plain, values)), first)
            for name, values in zip(self.names, columns, strict=True)
        ]
        batch = pa.RecordBatch.from_arrays(arrays, names=list(self.names))
        if self.schema is None:
            self.schema = self._settled(batch.schema)
        self.rows += len(rows)
        fitted = conform(batch, self.schema, self.declared, self.origin, first)
        return Block(self.origin, fitted, first)

    def _settled(self, found: pa.Schema) -> pa.Schema:
        return pa.schema([(one.name, self._kind(one.name) or _settled(one.type)) for one in found])

    def _kind(self, name: str) -> pa.DataType | None:
        """What is known of a column before its values are."""
        if name in self.declared:
            return declared_type(self.declared[name])
        return self.known.get(name)

    def _array(self, name: str, values: list[Any], first: int) -> pa.Array:
        kind = self.schema.field(name).type if self.schema else self._kind(name)
        if kind == pa.string():
            return pa.array([None if one is None else _text(one) for one in values], kind)
        try:
            return pa.array(values)
        except _MISFITS:
            return self._one_by_one(name, values, first, kind or _kind_of_first(values))

    def _one_by_one(self, name: str, values: list[Any], first: int, kind: pa.DataType) -> pa.Array:
        """Values that Arrow finds no common type for; the one that does not fit is named."""
        for row, value in enumerate(values):
            try:
                values[row] = _as(value, kind)
            except _MISFITS as error:
                raise SourceError(
                    f"{self.origin} record {first + row}: {name!r} is {_shown(value)}, which is "
                    f"no {kind}; correct it, or declare types: {{{name}: string}}"
                ) from error
        return pa.array(values, kind)


def _gathered(pages: Iterable[Sequence[Sequence[Any]]]) -> Iterator[list[Sequence[Any]]]:
    """Pages together until they are many rows or large."""
    rows: list[Sequence[Any]] = []
    size_bytes = 0
    for page in pages:
        rows.extend(page)
        size_bytes += sum(len(one) for row in page for one in row if isinstance(one, str | bytes))
        if len(rows) >= MOST_ROWS or size_bytes >= MOST_BYTES:
            yield rows
            rows, size_bytes = [], 0
    if rows:
        yield rows


def _settled(kind: pa.DataType) -> pa.DataType:
    """The type of a column for good: a decimal with room, a time in UTC, and never null."""
    if pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_decimal(kind):
        return pa.decimal128(38, kind.scale) if kind.precision <= 38 else kind
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return UTC_MICROSECONDS
    return kind


def _plain(value: Any) -> Any:
    """A driver's value as one that Arrow knows; what has no obvious text is left for an error."""
    if value is None or isinstance(value, _PLAIN):
        return value
    if isinstance(value, memoryview | bytearray):
        return bytes(value)
    if isinstance(value, uuid.UUID | dt.timedelta):
        return str(value)
    if isinstance(value, Mapping) or (isinstance(value, list) and _is_nested(value)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value


def _is_nested(values: list[Any]) -> bool:
    return any(isinstance(one, Mapping | list) for one in values)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value.decode() if isinstance(value, bytes) else str(value)


def _as(value: Any, kind: pa.DataType) -> Any:
    if value is None:
        return None
    try:
        return pa.scalar(value, kind).as_py()
    except _MISFITS:
        return converted(pa.array([value]), kind)[0].as_py()


def _kind_of_first(values: list[Any]) -> pa.DataType:
    try:
        return _settled(pa.scalar(next(one for one in values if one is not None)).type)
    except _MISFITS:
        return pa.string()


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
