"""Manifests: which record's request stands in which row of a batch.

A manifest is on disk before the ledger knows of its batch, and the batch is in the ledger before it
is sent. The parameters' bytes are not kept: rendering is deterministic, so :func:`render_again`
makes them anew from the manifest, the records and, for a repair, the faulty answer on disk.

A row of a later attempt says how its request differs from the question (:class:`Asked`): null
columns say that it does not. Manifests that were written before there were such columns are read
as if all were null.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from batch_etl import arrow
from batch_etl.batches.answers import Answers, completed, faulty_answers
from batch_etl.batches.keys import Mask, from_arrow
from batch_etl.batches.packing import Payload, Room
from batch_etl.batches.repair import further_turns
from batch_etl.batches.request import KEY_BYTES, Params, Renderer, keys_array, new_token
from batch_etl.batches.task import Packing
from batch_etl.batches.transform import Partition, Transform
from batch_etl.errors import SourceError
from batch_etl.files import ROWS_PER_READ, lean_options, read_table, replacing

MANIFEST = pa.schema(
    [
        ("request_key", pa.binary(KEY_BYTES)),
        ("partition", pa.int32()),  # ordinal of the transform's partition
        ("record_row", pa.int64()),  # row in the partition's records file
        ("record_id", pa.string()),
        ("claude_model", pa.string()),  # asked instead of the task's; null: the task's
        ("max_tokens", pa.int32()),  # asked for instead of the task's
        ("faulty", pa.string()),  # custom_id of the answer that the further turns repair
        ("failed", pa.int16()),  # answers to the question that had failed before; null: none
    ]
)
"""A batch's requests, in the order of their rows."""


class Asked(NamedTuple):
    """How a request differs from its question, which is what attempt 1 sends."""

    claude_model: str | None = None
    max_tokens: int | None = None
    faulty: str | None = None
    failed: int | None = None


AS_IT_IS = Asked()


@dataclass(frozen=True)
class PlannedBatch:
    """A payload ready to be sent, and its manifest."""

    token: str
    payload: Payload
    manifest: pa.Table

    def without(self, rows: Mask) -> pa.Table:
        """The manifest without these rows."""
        return self.manifest.filter(arrow.column(~rows))


def manifest_path(folder: UPath, token: str) -> UPath:
    return folder / f"{token}.manifest.parquet"


@dataclass
class Filling:
    """The payload that is being filled, with its manifest's rows."""

    limits: Packing
    payload: Payload = field(init=False)
    _parts: list[pa.RecordBatch] = field(init=False)
    _added: list[tuple[Any, ...]] = field(init=False)
    """Rows of which no part is made yet."""

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.payload = Payload(new_token(), Room(self.limits))
        self._parts, self._added = [], []

    def add(
        self,
        params: bytes,
        key: bytes,
        partition: int,
        row: int,
        record_id: str,
        *,
        asked: Asked = AS_IT_IS,
    ) -> None:
        self.payload.add(params)
        self._added.append((key, partition, row, record_id, *asked))

    def fill(
        self,
        params: Params,
        keys: npt.NDArray[np.bytes_],
        partition: int,
        rows: npt.NDArray[np.int64],
        record_ids: pa.Array[Any],
    ) -> Iterator[PlannedBatch]:
        """Add questions as they are, in order; yields each batch that the next one is too much for.

        Each fits a payload of its own.
        """
        sizes = params.sizes
        start = 0
        while start < len(params):
            end = start + self.payload.room.fitting(sizes[start:])
            if end == start:
                yield self.batch()
                self.start()
                continue
            self.payload.extend(params.cut(start, end), sizes[start:end])
            self._gather()
            ids = record_ids.slice(start, end - start)
            self._parts.append(_questions_part(keys[start:end], partition, rows[start:end], ids))
            start = end

    def batch(self) -> PlannedBatch:
        self._gather()
        manifest = pa.Table.from_batches(self._parts, MANIFEST).combine_chunks()
        return PlannedBatch(self.payload.token, self.payload, manifest)

    def _gather(self) -> None:
        """Make a part of the rows that were added one by one."""
        if not self._added:
            return
        key, *others = (list(column) for column in zip(*self._added, strict=True))
        types = MANIFEST.types[1:]
        columns = [pa.array(one, kind) for one, kind in zip(others, types, strict=True)]
        keys = keys_array(np.array(key, dtype=f"S{KEY_BYTES}"))
        self._parts.append(pa.RecordBatch.from_arrays([keys, *columns], schema=MANIFEST))
        self._added = []


def _questions_part(
    keys: npt.NDArray[np.bytes_],
    partition: int,
    rows: npt.NDArray[np.int64],
    record_ids: pa.Array[Any],
) -> pa.RecordBatch:
    """Manifest rows of requests that are as their questions."""
    columns = [
        keys_array(keys),
        arrow.column(np.full(len(keys), partition, dtype=np.int32)),
        arrow.column(rows),
        record_ids,
        *(pa.nulls(len(keys), MANIFEST.field(name).type) for name in Asked._fields),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=MANIFEST)


def write_manifest(folder: UPath, batch: PlannedBatch) -> None:
    with replacing(manifest_path(folder, batch.token), "manifest") as temporary:
        pq.write_table(
            batch.manifest,
            str(temporary),
            **lean_options(MANIFEST),
        )


def read_manifest(folder: UPath, token: str, columns: list[str] | None = None) -> pa.Table:
    names = MANIFEST.names if columns is None else columns
    table = read_table(manifest_path(folder, token), names)
    return completed(table, pa.schema([MANIFEST.field(name) for name in names]))


def manifest_keys(folder: UPath, token: str) -> npt.NDArray[np.bytes_]:
    """A batch's request_keys in the order of its rows."""
    return keys_of(read_manifest(folder, token, ["request_key"]))


def keys_of(manifest: pa.Table) -> npt.NDArray[np.bytes_]:
    """The request_keys of a manifest's rows."""
    return from_arrow(manifest.column("request_key").combine_chunks())


def render_again(
    transform: Transform, token: str, manifest: pa.Table, answers: Answers
) -> PlannedBatch:
    """The payload of a manifest, from the records: byte for byte what was planned.

    ``answers`` is the folder of the answers that repairs show. Raises ``SourceError`` when the
    records have changed since.
    """
    payload = Payload(token, Room(transform.task.packing))
    found: dict[int, bytes] = {}  # what comes before its place: the records' order is another
    for place, params in rendered_rows(transform, manifest, answers, f"batch {token} was planned"):
        found[place] = params
        while payload.count in found:
            payload.add(found.pop(payload.count))
    return PlannedBatch(token, payload, manifest)


def rendered_rows(
    transform: Transform, manifest: pa.Table, answers: Answers, since: str
) -> Iterator[tuple[int, bytes]]:
    """(row, parameters) of each row of a manifest, in the records' order.

    Raises ``SourceError`` for records that are not those any more that they were ``since``.
    """
    asked = [Asked(*row) for row in zip(*_lists(manifest, Asked._fields), strict=True)]
    faulty = faulty_answers(answers, {one.faulty for one in asked if one.faulty})
    as_json = transform.task.answer_schema is not None
    wanted = keys_of(manifest)
    partitions = arrow.numbers(manifest.column("partition"))
    rows = arrow.numbers(manifest.column("record_row"))
    for ordinal in np.flatnonzero(np.bincount(partitions)).tolist():
        places = np.flatnonzero(partitions == ordinal)
        places = places[np.argsort(rows[places], kind="stable")]
        partition = transform.partitions[ordinal]
        renderer = transform.renderer(partition)
        done = 0
        for place, params, key in _questions(renderer, partition, rows[places], places):
            if key != wanted[place]:
                break
            one = asked[place]
            if one != AS_IT_IS:
                turns = further_turns(faulty[one.faulty], as_json=as_json) if one.faulty else b""
                params = renderer.asked(params, one.claude_model, one.max_tokens, turns)  # noqa: PLW2901
            yield place, params
            done += 1
        if done < len(places):
            raise SourceError(
                f"pipeline {transform.pipeline!r}: the records of partition {partition.key!r} have "
                f"changed since {since}; run the transform again"
            )


def _lists(table: pa.Table, names: Iterable[str]) -> list[list[Any]]:
    return [table.column(name).to_pylist() for name in names]


def _questions(
    renderer: Renderer,
    partition: Partition,
    rows: npt.NDArray[np.int64],
    places: npt.NDArray[Any],
) -> Iterator[tuple[int, bytes, bytes]]:
    """(place, parameters, key) of chosen rows of one partition, in ascending order, in one pass.

    Row groups that hold none of them are not read.
    """
    with pq.ParquetFile(str(partition.records), pre_buffer=False) as file:
        start = 0
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            if np.searchsorted(rows, start) < np.searchsorted(rows, start + size):
                batches = file.iter_batches(
                    ROWS_PER_READ, row_groups=[group], columns=renderer.columns
                )
                yield from _of_batches(renderer, batches, start, rows, places)
            start += size


def _of_batches(
    renderer: Renderer,
    batches: Iterable[pa.RecordBatch],
    start: int,
    rows: npt.NDArray[np.int64],
    places: npt.NDArray[Any],
) -> Iterator[tuple[int, bytes, bytes]]:
    for records in batches:
        low, high = np.searchsorted(rows, [start, start + records.num_rows])
        if high > low:
            chosen = records.take(arrow.column(rows[low:high] - start))
            at = low
            for rendered in renderer.parts(chosen):
                mine = places[at : at + len(rendered)].tolist()
                yield from zip(mine, rendered.params, rendered.keys.tolist(), strict=True)
                at += len(rendered)
        start += records.num_rows
