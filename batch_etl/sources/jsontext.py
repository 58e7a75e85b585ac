"""JSON Lines and JSON documents, decoded by msgspec and ``json``, typed by what is in them.

Each column's type is found by one reading of the files before the one that delivers, because a
type that holds for the first thousand records may not hold for the last:

- text is text, also when it looks like a date or a number;
- whole numbers within 64 bits are int64; with fractions among them float64, if that is exact;
- an object is a STRUCT and a list a LIST, so that ``{{ record.user.name }}`` works in a template
  and ``user.name`` in DuckDB; a key that is missing in one record is null there;
- a column of mixed types, of numbers beyond 64 bits, of empty objects or of more than 100
  different keys is text: strings as they are, anything else as its JSON. ``types: {column:
  string}`` asks for that.

A ``.json`` document is an array of objects, or objects one after another, or an object that holds
the array at ``records_at`` (``data.items``); it is read piece by piece, and no more than one record
and one block is in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute
from upath import UPath

from batch_etl.errors import SourceError
from batch_etl.files import ROWS_PER_READ
from batch_etl.sources.columns import FileSchema
from batch_etl.sources.jsonscan import Scan
from batch_etl.sources.streams import BLOCK_BYTES, open_utf8, reading, undecodable

pc: Any = pyarrow.compute  # its functions are made at import: type checkers see none

Record = dict[str, Any]

_MOST_KEYS = 100
_EXACT = 2**53
_WIDER = {
    frozenset({pa.int32(), pa.int64()}): pa.int64(),
    frozenset({pa.int32(), pa.float64()}): pa.float64(),
}


@dataclass(frozen=True)
class JsonText:
    """One file of JSON. ``records_at`` is for documents only."""

    path: UPath
    encoding: str
    lines: bool
    records_at: str | None = None

    def schema(self) -> FileSchema:
        """Reads the whole file."""
        kinds: dict[str, pa.DataType] = {}
        for records in self._records():
            for name in names_of(records):
                kind = kind_of([record.get(name) for record in records])
                kinds[name] = merged(kinds.get(name, pa.null()), kind) or pa.string()
        fields = [(name, settled(kind)) for name, kind in kinds.items()]
        return FileSchema(str(self.path), pa.schema(fields), loose=True)

    def batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        first = 1
        known = set(schema.names)
        for records in self._records():
            if not known.issuperset(names := names_of(records)):
                raise SourceError(f"{self.path} was changed while it was read; run again")
            columns = [self._column(records, schema.field(name), first) for name in names]
            yield pa.RecordBatch.from_arrays(columns, names=list(names))
            first += len(records)

    def _column(self, records: list[Record], field: pa.Field, first: int) -> pa.Array:
        values = [record.get(field.name) for record in records]
        try:
            return pa.array(values, field.type)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            pass
        except UnicodeEncodeError as error:
            raise self._bad_text(records, field.name, first) from error
        if pa.types.is_string(field.type):
            return pa.array([as_text(value) for value in values], pa.string())
        raise SourceError(
            f"{self.path}, records {first} to {first + len(records) - 1}: {field.name!r} holds a "
            f"value that is no {field.type} without loss; declare types: {{{field.name}: string}}"
        )

    def _bad_text(self, records: list[Record], name: str, first: int) -> SourceError:
        for number, record in enumerate(records, first):
            try:
                str(record.get(name)).encode()
            except UnicodeEncodeError:
                return SourceError(
                    f"{self.path} record {number}: {name!r} holds half of a surrogate pair "
                    "(\\ud800 to \\udfff alone), which is no character; write the text again"
                )
        return SourceError(f"{self.path}: {name!r} holds half of a surrogate pair")

    def _records(self) -> Iterator[list[Record]]:
        with reading(self.path), open_utf8(self.path, self.encoding) as stream:
            if self.lines:
                yield from self._from_lines(stream)
            else:
                yield from self._from_document(stream)

    def _from_document(self, stream: Any) -> Iterator[list[Record]]:
        scan = Scan(stream, str(self.path))
        found = scan.records(self.records_at.split(".") if self.records_at else [])
        try:
            while records := list(islice(found, ROWS_PER_READ)):
                yield records
        except UnicodeDecodeError as error:
            raise undecodable(self.path, self.encoding) or SourceError(str(error)) from error

    def _from_lines(self, stream: Any) -> Iterator[list[Record]]:
        line = 1
        for block in _whole_lines(stream):
            try:
                records = _LINES.decode_lines(block)
            except (msgspec.DecodeError, UnicodeDecodeError):
                raise self._bad_line(block, line) from None
            line += block.count(b"\n")
            for start in range(0, len(records), ROWS_PER_READ):
                yield records[start : start + ROWS_PER_READ]

    def _bad_line(self, block: bytes, first: int) -> SourceError:
        for number, text in enumerate(block.split(b"\n"), first):
            try:
                _LINES.decode_lines(text)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                if isinstance(error, UnicodeDecodeError) or not _is_utf8(text):
                    return undecodable(self.path, self.encoding) or SourceError(str(error))
                shown = text.decode(errors="replace").strip()
                return SourceError(
                    f"{self.path} line {number} is not one JSON object: {error}; it "
                    f"begins {shown[:60]!r}. Correct the line, or set `format` if the file is not "
                    "JSON Lines"
                )
        return SourceError(f"{self.path}: invalid JSON after line {first}")


_LINES = msgspec.json.Decoder(Record)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _whole_lines(stream: Any) -> Iterator[bytes]:
    """The stream in blocks that end with a line's end (but for the last)."""
    rest: list[bytes] = []
    while block := stream.read(BLOCK_BYTES):
        end = block.rfind(b"\n") + 1
        if end == 0:
            rest.append(block)
            continue
        yield b"".join([*rest, block[:end]])
        rest = [block[end:]]
    if tail := b"".join(rest):
        yield tail


def names_of(records: Iterable[Mapping[str, Any]]) -> dict[str, None]:
    """All keys, in order of first appearance."""
    return dict.fromkeys(chain.from_iterable(records))


def kind_of(values: list[Any]) -> pa.DataType:
    """The Arrow type of one column's values; text where they have no common one.

    Whole numbers that a float64 holds exactly are int32 for as long as types are being merged: they
    may meet fractions, and larger ones may not.
    """
    try:
        column = pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.string()
    except UnicodeEncodeError:  # half a surrogate pair: told with its place when it is delivered
        return pa.string()
    if pa.types.is_int64(column.type):
        bounds = pc.min_max(column).as_py()
        is_small = max(-bounds["min"], bounds["max"]) <= _EXACT
        return pa.int32() if is_small else pa.int64()
    return column.type


def merged(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type of two runs of values, or None where only text serves both."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    for pair, wide in _WIDER.items():
        if {one, other} == pair:
            return wide
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        return _merged_structs(one, other)
    if pa.types.is_list(one) and pa.types.is_list(other):
        item = merged(one.value_type, other.value_type)
        return None if item is None else pa.list_(item)
    return None


def _merged_structs(one: pa.StructType, other: pa.StructType) -> pa.DataType | None:
    kinds = {field.name: field.type for field in one}
    for field in other:
        kind = merged(kinds.get(field.name, pa.null()), field.type)
        if kind is None:
            return None
        kinds[field.name] = kind
    if len(kinds) > _MOST_KEYS:
        return None
    return pa.struct(sorted(kinds.items()))


def settled(kind: pa.DataType) -> pa.DataType:
    """The type a column gets in the end: what holds nothing, or too many keys, is text."""
    if pa.types.is_int32(kind):
        return pa.int64()
    return pa.string() if _leaves(kind) > _MOST_KEYS else _without_nulls(kind)


def _leaves(kind: pa.DataType) -> int:
    """How many plain values one value holds; an empty object cannot be kept as one (Parquet)."""
    if pa.types.is_struct(kind):
        return sum(_leaves(field.type) for field in kind) or _MOST_KEYS + 1
    return _leaves(kind.value_type) if pa.types.is_list(kind) else 1


def _without_nulls(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _without_nulls(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(_without_nulls(kind.value_type))
    return pa.string() if pa.types.is_null(kind) else kind


def as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
