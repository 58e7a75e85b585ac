"""What is enqueued, made ready before the database is asked: read whole, checked, in blocks.

A file is read once, in blocks of a few thousand items, into a temporary file; only then is it
known whether all of it can be taken, and the transaction that takes it does nothing but insert. So
a file of a million items holds no lock while it is parsed, and no more than a block in memory.

Each item has an id, which is never empty. JSON is kept as text, whatever it was laid out like; CSV
and Parquet as Arrow. A block is an Arrow stream: ``item`` for JSON, or the columns themselves.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute
from upath import UPath

from batch_etl.errors import SourceError
from batch_etl.files import ROWS_PER_READ, content_digest
from batch_etl.sources import duplicates
from batch_etl.sources.columns import can_identify, converted, declared_type, no_column
from batch_etl.sources.delimited import Delimited, Dialect
from batch_etl.sources.jsontext import JsonText, Record
from batch_etl.sources.parquet import Parquet
from batch_etl.sources.queue import ITEM, JSON
from batch_etl.sources.source import OnDuplicate
from batch_etl.sources.streams import without_compression

pc: Any = pyarrow.compute  # its functions are made at import: type checkers see none

_ZSTD = pa.ipc.IpcWriteOptions(compression="zstd")


@dataclass(frozen=True)
class Wanted:
    """What a pipeline wants of its items: as ``QueueSource`` says it."""

    id: str
    on_duplicate: OnDuplicate = "refuse"
    types: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Block:
    """Some items, ready for the table."""

    kind: str
    ids: list[str]
    rows: list[int]
    """Which rows of ``data`` they are: all, but for those that another of the same id replaces."""
    data: bytes


@dataclass(frozen=True)
class Delivery:
    """One file's items, or one call's; ``key`` says which deliveries are the same."""

    origin: str
    digest: str
    items: int
    key: str | None
    _spool: IO[bytes] = field(repr=False)
    _places: Sequence[tuple[str, int, int, int]] = field(repr=False)
    """Of each block: its kind, how many items it has, where its ids begin and its data end."""
    _dropped: np.ndarray = field(repr=False)

    def blocks(self) -> Iterator[Block]:
        first = 0
        for kind, rows, start, end in self._places:
            self._spool.seek(start)
            ids = _decoded(_framed(self._spool)).column(0).to_pylist()
            data = self._spool.read(end - self._spool.tell())
            low, high = np.searchsorted(self._dropped, [first, first + rows])
            dropped = set((self._dropped[low:high] - first).tolist())
            kept = [row for row in range(rows) if row not in dropped]
            yield Block(kind, [ids[row] for row in kept], kept, data)
            first += rows


@contextmanager
def of_file(path: Path, wanted: Wanted, key: str | None, *, origin: str) -> Iterator[Delivery]:
    """A file of JSON Lines, JSON, CSV, TSV or Parquet, also ``.gz`` and ``.zst``.

    Raises SourceError that names the file and the record which cannot be taken. Without a ``key``
    the same content is the same delivery.
    """
    digest = content_digest(path)
    with _spooled(_of_file(path, wanted), wanted, origin, digest, key or digest) as delivery:
        yield delivery


@contextmanager
def of_items(
    items: Iterable[Mapping[str, Any]], wanted: Wanted, key: str | None
) -> Iterator[Delivery]:
    """Items from Python. Without a ``key`` each call is a delivery of its own."""
    digest = hashlib.sha256()
    with _spooled(_of_items(items, wanted, digest), wanted, "Python", digest, key) as delivery:
        yield delivery


# reading: batches of (kind, ids, columns) ---------------------------------------------------------

_Read = tuple[str, "pa.Array[Any]", pa.RecordBatch]


def _of_file(path: Path, wanted: Wanted) -> Iterator[_Read]:
    place = UPath(path)
    match without_compression(path.name).rpartition(".")[2].lower():
        case "jsonl" | "ndjson":
            yield from _of_json(_Json(place, "utf-8", lines=True), wanted)
        case "json":
            yield from _of_json(_Json(place, "utf-8", lines=False), wanted)
        case "csv":
            yield from _of_columns(Delimited(place, _dialect(",")), wanted)
        case "tsv" | "tab":
            yield from _of_columns(Delimited(place, _dialect("\t")), wanted)
        case "parquet" | "pq":
            yield from _of_columns(Parquet(place), wanted)
        case _:
            raise SourceError(
                f"{path}: the extension does not say how the file is written; it must be one of "
                ".jsonl, .json, .csv, .tsv, .parquet (each may also be .gz or .zst)"
            )


def _dialect(delimiter: str) -> Dialect:
    return Dialect(delimiter, '"', "utf-8", header=True, columns=None, null_values=("",))


@dataclass(frozen=True)
class _Json(JsonText):
    def records(self) -> Iterator[list[Record]]:
        return self._records()


def _of_json(file: _Json, wanted: Wanted) -> Iterator[_Read]:
    first = 1
    for records in file.records():
        yield _json_items(records, _json_text, wanted, str(file.path), first)
        first += len(records)


def _of_items(items: Iterable[Mapping[str, Any]], wanted: Wanted, digest: Any) -> Iterator[_Read]:
    first = 1
    held: list[Record] = []
    for item in items:
        held.append(dict(item))
        if len(held) == ROWS_PER_READ:
            yield _digested(_json_items(held, _python_text, wanted, "item", first), digest)
            first += len(held)
            held = []
    if held:
        yield _digested(_json_items(held, _python_text, wanted, "item", first), digest)


def _digested(read: _Read, digest: Any) -> _Read:
    for text in read[2].column(ITEM).to_pylist():
        digest.update(text.encode() + b"\n")
    return read


def _json_items(
    records: list[Record], text_of: Any, wanted: Wanted, origin: str, first: int
) -> _Read:
    ids: list[str] = []
    texts: list[str] = []
    for number, record in enumerate(records, first):
        try:
            ids.append(_json_id(record.get(wanted.id), wanted.id))
            texts.append(text_of(record))
            texts[-1].encode()
        except (ValueError, TypeError) as error:  # UnicodeEncodeError is a ValueError
            raise SourceError(f"{origin} record {number}: {error}") from None
    batch = pa.record_batch({ITEM: pa.array(texts, pa.string())})
    for name in wanted.types:
        values = pa.array([_plain(record.get(name)) for record in records], pa.string())
        _check_declared(values, name, wanted, origin, first)
    return JSON, pa.array(ids, pa.string()), batch


def _plain(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, default=str)


def _json_text(record: Record) -> str:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _python_text(record: Record) -> str:
    return msgspec.json.encode(record).decode()


def _json_id(value: Any, name: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and value:
        return value
    raise ValueError(
        f"id: {name!r} is {_short(value)}; every item needs an id that is a text or a whole number"
    )


def _short(value: Any) -> str:
    text = "missing or null" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _of_columns(file: Delimited | Parquet, wanted: Wanted) -> Iterator[_Read]:
    origin = str(file.path)
    schema = file.schema().schema
    if wanted.id not in schema.names:
        raise no_column("id", wanted.id, schema.names, f" in {origin}")
    if not can_identify(schema.field(wanted.id).type):
        kind = schema.field(wanted.id).type
        raise SourceError(f"{origin}: id: column {wanted.id!r} is {kind}, which cannot be an id")
    kind = hashlib.sha256(schema.serialize().to_pybytes()).hexdigest()
    first = 1
    batches = (
        whole.slice(start, ROWS_PER_READ)
        for whole in file.batches(schema)
        for start in range(0, whole.num_rows, ROWS_PER_READ)
    )
    for batch in batches:
        ids = batch.column(wanted.id).cast(pa.string())
        empty = np.flatnonzero(pc.fill_null(pc.equal(ids, ""), True).to_numpy(zero_copy_only=False))  # noqa: FBT003
        if len(empty):
            raise SourceError(
                f"{origin} record {first + int(empty[0])}: id: {wanted.id!r} is empty; every item "
                "needs an id"
            )
        for name in wanted.types:
            if name in schema.names:
                _check_declared(batch.column(name), name, wanted, origin, first)
        yield kind, ids, batch
        first += batch.num_rows


def _check_declared(
    column: pa.Array[Any], name: str, wanted: Wanted, origin: str, first: int
) -> None:
    """Raise for a value that the drain could not read as its declared type."""
    kind = declared_type(wanted.types[name])
    try:
        converted(column, kind, wanted.types[name])
        return
    except pa.ArrowInvalid:
        pass
    for row in range(len(column)):
        try:
            converted(column.slice(row, 1), kind, wanted.types[name])
        except pa.ArrowInvalid:
            raise SourceError(
                f"{origin} record {first + row}: {name!r} is {_short(column[row].as_py())}, which "
                f"is no {wanted.types[name]}"
            ) from None


# spooling -----------------------------------------------------------------------------------------


@contextmanager
def _spooled(
    read: Iterable[_Read], wanted: Wanted, origin: str, digest: Any, key: str | None
) -> Iterator[Delivery]:
    with tempfile.TemporaryFile(prefix="batch_etl_enqueue_") as spool:
        places: list[tuple[str, int, int, int]] = []
        for kind, ids, batch in read:
            start = spool.tell()
            encoded = _encoded(pa.record_batch({"id": ids}))
            spool.write(len(encoded).to_bytes(8) + encoded + _encoded(batch))
            places.append((kind, len(ids), start, spool.tell()))
        dropped = _dropped(spool, places, wanted, origin)
        items = sum(rows for _, rows, _, _ in places) - len(dropped)
        text = digest if isinstance(digest, str) else digest.hexdigest()
        yield Delivery(origin, text, items, key, spool, places, dropped)


def _dropped(
    spool: IO[bytes], places: Sequence[tuple[str, int, int, int]], wanted: Wanted, origin: str
) -> np.ndarray:
    """Rows that another row of the same id replaces; SourceError where that is refused."""

    def ids() -> Iterator[pa.Array[Any]]:
        for _, _, start, _ in places:
            spool.seek(start)
            yield _decoded(_framed(spool)).column(0)

    if wanted.on_duplicate != "refuse":
        return duplicates.surplus(ids, pa.string(), wanted.on_duplicate)
    found = duplicates.find(ids, pa.string())
    if found is None:
        return np.array([], np.int64)
    named = ", ".join(f"{value!r} {times} times" for value, times in found.first)
    raise SourceError(
        f"{origin}: {found.values} id(s) in {wanted.id!r} occur more than once: {named}; nothing "
        "was enqueued. Give each item its own id, or set `on_duplicate` to first or last"
    )


def _framed(spool: IO[bytes]) -> bytes:
    return spool.read(int.from_bytes(spool.read(8)))


def _encoded(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=_ZSTD) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def _decoded(data: bytes) -> pa.RecordBatch:
    with pa.ipc.open_stream(data) as reader:
        return reader.read_next_batch()


decoded = _decoded
"""A block's data as the batch that it was made of."""
