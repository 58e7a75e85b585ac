"""Any source to one Parquet file a partition, with the promise of one id a record.

All partitions of a call are read, checked and written to temporary files before the first of them
is put in place, so a bad record leaves every file as it was. A source is read once for up to
``PARTITIONS_PER_READ`` partitions (each has a file open meanwhile), and once more only to name the
places of what is wrong.

Memory: rows that wait for their row group are bounded over all partitions together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from upath import UPath

from batch_etl import arrow
from batch_etl.errors import SourceError
from batch_etl.files import ParquetSink, content_digest, read_batches, replacing, row_count
from batch_etl.sources import duplicates
from batch_etl.sources.columns import can_identify, no_column
from batch_etl.sources.source import PartitionSlice, Portion, Source

pc: Any = pyarrow.compute  # its functions are made at import: type checkers see none

PARTITIONS_PER_READ = 200

_MAX_HELD_BYTES = 64 * 2**20
_MOST_NAMED = 3


@dataclass(frozen=True)
class Extracted:
    """One partition's records, in place."""

    partition: str | None
    path: UPath
    rows: int
    schema: pa.Schema
    size_bytes: int
    duplicates_dropped: int
    digest: str
    """SHA-256 of the file: equal for equal records read in the same order."""


def extract(
    source: Source,
    slices: Sequence[PartitionSlice] | None,
    destination: Callable[[str | None], UPath],
) -> list[Extracted]:
    """Write each wanted partition to ``destination(key)``; all of them appear, or none.

    Raises SourceError: nothing was put in place then.
    """
    extracted: list[Extracted] = []
    with ExitStack() as placing:
        for wanted in _grouped(slices):
            keys = [None] if wanted is None else [piece.key for piece in wanted]
            temporary = {
                key: placing.enter_context(replacing(destination(key), "records")) for key in keys
            }
            schemas = _write(source, wanted, temporary)
            for key in keys:
                schema = schemas[key]
                dropped = _make_unique(source, _only(wanted, key), temporary[key], schema)
                extracted.append(_described(key, destination(key), temporary[key], schema, dropped))
    return extracted


def _grouped(
    slices: Sequence[PartitionSlice] | None,
) -> Iterator[Sequence[PartitionSlice] | None]:
    if slices is None:
        yield None
        return
    unique = list({piece.key: piece for piece in slices}.values())
    for start in range(0, len(unique), PARTITIONS_PER_READ):
        yield unique[start : start + PARTITIONS_PER_READ]


def _only(wanted: Sequence[PartitionSlice] | None, key: str | None) -> list[PartitionSlice] | None:
    return None if wanted is None else [piece for piece in wanted if piece.key == key]


def _write(
    source: Source,
    wanted: Sequence[PartitionSlice] | None,
    paths: dict[str | None, UPath],
) -> dict[str | None, pa.Schema]:
    """One pass over the source; sinks are told to write when they hold too much together.

    Returns each partition's schema.
    """
    sinks: dict[str | None, ParquetSink] = {}
    held_bytes = 0
    with ExitStack() as open_sinks:
        for portion in source.read(wanted):
            key = portion.partition
            if key not in sinks:
                _check_id_column(source.id, portion)
                sinks[key] = open_sinks.enter_context(ParquetSink(paths[key], portion.batch.schema))
            _check_ids(source.id, portion)
            sink = sinks[key]
            before = sink.held_bytes
            sink.write(portion.batch)
            held_bytes += sink.held_bytes - before
            if held_bytes > _MAX_HELD_BYTES:
                fullest = max(sinks.values(), key=lambda each: each.held_bytes)
                held_bytes -= fullest.held_bytes
                fullest.flush()
    return {key: sink.schema for key, sink in sinks.items()}


def _check_id_column(name: str, portion: Portion) -> None:
    schema = portion.batch.schema
    if name not in schema.names:
        raise no_column("id", name, schema.names)
    kind = schema.field(name).type
    if not can_identify(kind):
        raise SourceError(
            f"id: column {name!r} is {kind}, which cannot identify a record; name another column, "
            f"or declare types: {{{name}: string}}"
        )


def _check_ids(name: str, portion: Portion) -> None:
    column = portion.batch.column(name)
    missing = pc.is_null(column)
    if pa.types.is_string(column.type):
        missing = pc.or_kleene(missing, pc.equal(column, pa.scalar("", pa.string())))
    elif column.null_count == 0:
        return
    rows = np.flatnonzero(arrow.flags(missing))
    if len(rows):
        places = ", ".join(portion.place(int(row)) for row in rows[:_MOST_NAMED])
        raise SourceError(
            f"id: column {name!r} is empty in {places}; every record needs an id: fill it in, or "
            "name another column"
        )


def _make_unique(
    source: Source, wanted: list[PartitionSlice] | None, path: UPath, schema: pa.Schema
) -> int:
    """Refuse duplicate ids, or drop all but one of each; how many rows were dropped."""
    kind = schema.field(source.id).type

    def ids() -> Iterator[pa.Array]:
        return (batch.column(0) for batch in read_batches(path, [source.id], rows=20_000))

    if source.on_duplicate == "refuse":
        found = duplicates.find(ids, kind, _MOST_NAMED)
        if found is not None:
            raise _duplicated(source, wanted, found, kind)
        return 0
    surplus = duplicates.surplus(ids, kind, source.on_duplicate)
    if len(surplus):
        _drop(path, schema, surplus)
    return len(surplus)


def _drop(path: UPath, schema: pa.Schema, rows: np.ndarray) -> None:
    """Write the file again without these rows (ascending numbers, from 0)."""
    with ParquetSink(path, schema) as sink:
        start = 0
        for batch in read_batches(path):
            low, high = np.searchsorted(rows, [start, start + batch.num_rows])
            kept = np.ones(batch.num_rows, bool)
            kept[rows[low:high] - start] = False
            sink.write(batch.filter(pa.array(kept)))
            start += batch.num_rows


def _duplicated(
    source: Source,
    wanted: list[PartitionSlice] | None,
    found: duplicates.Duplicates,
    kind: pa.DataType,
) -> SourceError:
    values = pa.array([value for value, _ in found.first], kind)
    places = _places(source, wanted, values)
    named = "; ".join(
        f"{value!r} {times} times ({_listed(places.get(value, []), times)})"
        for value, times in found.first
    )
    where = f" in partition {wanted[0].key!r}" if wanted else ""
    many = "1 value occurs" if found.values == 1 else f"{found.values} values occur"
    return SourceError(
        f"id: in column {source.id!r} {many} more than once{where}: {named}. Give each record its "
        "own id, name another column, or set `on_duplicate` to first or last to keep one of each"
    )


def _listed(places: list[str], times: int) -> str:
    return ", ".join([*places, "..."] if times > len(places) else places)


def _places(
    source: Source, wanted: list[PartitionSlice] | None, values: pa.Array
) -> dict[object, list[str]]:
    """Where the values are: the first few places of each, by reading the source once more."""
    places: dict[object, list[str]] = {}
    for portion in source.read(wanted):
        column = portion.batch.column(source.id)
        found = arrow.flags(pc.is_in(column, values))
        for row in np.flatnonzero(found):
            of_value = places.setdefault(column[int(row)].as_py(), [])
            if len(of_value) < _MOST_NAMED:
                of_value.append(portion.place(int(row)))
    return places


def _described(
    key: str | None, path: UPath, temporary: UPath, schema: pa.Schema, dropped: int
) -> Extracted:
    return Extracted(
        partition=key,
        path=path,
        rows=row_count(temporary),
        schema=schema,
        size_bytes=temporary.stat().st_size,
        duplicates_dropped=dropped,
        digest=content_digest(str(temporary)),
    )
