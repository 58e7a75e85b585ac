"""Planning: records -> requests -> payloads that nobody has paid for yet.

One pass over the records, in bounded memory. Each record's request is rendered and keyed; a key
that was answered before, is in a batch of this transform already, or stood earlier in this pass is
not sent again. What is left fills payloads in the records' order. Beside each payload stands its
manifest (row -> request_key and record), and for each partition a plan (record -> request_key)
from which finishing later fans the answers out. The parameters' bytes are not kept: rendering is
deterministic, so :func:`render_again` makes them anew from the manifest.

The pass can be repeated: killed in the middle and started again, it finds what it planned before
among the keys in flight.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from batch_etl.batches.keys import KeySet, Mask, from_arrow, halves
from batch_etl.batches.outcome import too_large
from batch_etl.batches.packing import Payload, Room, fits_alone
from batch_etl.batches.request import KEY_BYTES, Renderer, keys_array, new_token
from batch_etl.batches.task import Packing, Task
from batch_etl.errors import SourceError
from batch_etl.files import ParquetSink, read_batches, replacing

MANIFEST = pa.schema(
    [
        ("request_key", pa.binary(KEY_BYTES)),
        ("partition", pa.int32()),  # ordinal of the transform's partition
        ("record_row", pa.int64()),  # row in the partition's records file
        ("record_id", pa.string()),
    ]
)
"""A batch's requests, in the order of their rows."""

PLAN = pa.schema(
    [
        ("request_key", pa.binary(KEY_BYTES)),
        ("record_id", pa.string()),
        ("problem", pa.string()),  # why no request was made of the record
    ]
)
"""A partition's records, in their order; a record with a problem has the key of zeros."""


@dataclass(frozen=True)
class Partition:
    """One partition's records on disk; ``key`` is None where the pipeline has no partitions."""

    key: str | None
    records: UPath


@dataclass(frozen=True)
class Transform:
    """One task applied to the records of one or more partitions."""

    pipeline: str
    task: Task
    id_column: str
    partitions: tuple[Partition, ...]

    @property
    def scope(self) -> tuple[str | None, ...]:
        return tuple(partition.key for partition in self.partitions)

    def renderer(self, partition: Partition) -> Renderer:
        """The task's renderer for one partition's columns."""
        if not partition.records.exists():
            raise SourceError(
                f"pipeline {self.pipeline!r}: {partition.records} does not exist; "
                f"materialize {self.pipeline}/records first"
            )
        names = pq.read_schema(str(partition.records)).names
        return Renderer(self.task, self.id_column, names, f"pipeline {self.pipeline!r}")


@dataclass(frozen=True)
class PlannedBatch:
    """A payload ready to be sent, and its manifest."""

    token: str
    payload: Payload
    manifest: pa.Table


@dataclass
class PlanCounts:
    """What became of the records at planning."""

    records: int = 0
    reused: int = 0
    """Answered in an earlier transform."""
    shared: int = 0
    """Equal to another record's request, in this pass or in a batch of this transform."""
    sent: int = 0
    """In a payload of this pass."""
    unsendable: int = 0


def plan_path(folder: UPath, ordinal: int) -> UPath:
    return folder / f"plan-{ordinal:06}.parquet"


def manifest_path(folder: UPath, token: str) -> UPath:
    return folder / f"{token}.manifest.parquet"


@dataclass
class _Filling:
    """The payload that is being filled, with its manifest's columns."""

    limits: Packing
    payload: Payload = field(init=False)
    keys: list[bytes] = field(init=False)
    partitions: list[int] = field(init=False)
    rows: list[int] = field(init=False)
    ids: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.payload = Payload(new_token(), Room(self.limits))
        self.keys, self.partitions, self.rows, self.ids = [], [], [], []

    def add(self, params: bytes, key: bytes, partition: int, row: int, record_id: str) -> None:
        self.payload.add(params)
        self.keys.append(key)
        self.partitions.append(partition)
        self.rows.append(row)
        self.ids.append(record_id)

    def batch(self) -> PlannedBatch:
        columns = [
            keys_array(np.array(self.keys, dtype=f"S{KEY_BYTES}")),
            pa.array(self.partitions, pa.int32()),
            pa.array(self.rows, pa.int64()),
            pa.array(self.ids, pa.string()),
        ]
        manifest = pa.Table.from_arrays(columns, schema=MANIFEST)
        return PlannedBatch(self.payload.token, self.payload, manifest)


def plan(
    transform: Transform, folder: UPath, answered: KeySet, in_flight: KeySet, counts: PlanCounts
) -> Iterator[PlannedBatch]:
    """Yield each payload as soon as it is full; write each partition's plan as it is passed.

    ``answered`` and ``in_flight`` are not sent; ``in_flight`` grows by what is yielded. ``counts``
    is filled in place. Raises ``RenderError`` before the payload that holds the record is yielded.
    """
    filling = _Filling(transform.task.packing)
    for ordinal, partition in enumerate(transform.partitions):
        renderer = transform.renderer(partition)
        with ParquetSink(plan_path(folder, ordinal), PLAN) as sink:
            first_row = 0
            for records in read_batches(partition.records, renderer.columns):
                rendered = renderer.render(records)
                sizes = [len(params) for params in rendered.params]
                limits = transform.task.packing
                sendable = np.array([fits_alone(size, limits) for size in sizes], dtype=bool)
                sink.write(_plan_rows(rendered.keys, rendered.record_ids, sizes, sendable, limits))
                fresh = _fresh(rendered.keys, sendable, answered, in_flight, counts)
                for at in np.flatnonzero(fresh).tolist():
                    if not filling.payload.room.fits(sizes[at]):
                        yield filling.batch()
                        filling.start()
                    filling.add(
                        rendered.params[at],
                        rendered.keys[at],
                        ordinal,
                        first_row + at,
                        rendered.record_ids[at],
                    )
                first_row += len(rendered)
    if filling.payload.count:
        yield filling.batch()


def _fresh(
    keys: npt.NDArray[np.bytes_],
    sendable: Mask,
    answered: KeySet,
    in_flight: KeySet,
    counts: PlanCounts,
) -> Mask:
    """Which of these requests nobody has sent yet; they are in flight from now on."""
    prefixes, _ = halves(keys)
    known = answered.contains(prefixes) & sendable
    fresh = sendable & ~known & ~in_flight.contains(prefixes)
    _, first = np.unique(prefixes[fresh], return_index=True)
    chosen = np.zeros(len(keys), dtype=bool)
    chosen[np.flatnonzero(fresh)[first]] = True
    in_flight.add(prefixes[chosen])
    counts.records += len(keys)
    counts.unsendable += int((~sendable).sum())
    counts.reused += int(known.sum())
    counts.sent += int(chosen.sum())
    counts.shared += int((sendable & ~known & ~chosen).sum())
    return chosen


def _plan_rows(
    keys: npt.NDArray[np.bytes_],
    ids: list[str],
    sizes: list[int],
    sendable: Mask,
    limits: Packing,
) -> pa.RecordBatch:
    problems: list[str | None] = [None] * len(ids)
    if not sendable.all():
        keys = np.where(sendable, keys, b"")
        for at in np.flatnonzero(~sendable).tolist():
            problems[at] = too_large(sizes[at], limits.max_bytes).reason
    columns = [keys_array(keys), pa.array(ids, pa.string()), pa.array(problems, pa.string())]
    return pa.RecordBatch.from_arrays(columns, schema=PLAN)


def write_manifest(folder: UPath, batch: PlannedBatch) -> None:
    with replacing(manifest_path(folder, batch.token)) as temporary:
        pq.write_table(batch.manifest, str(temporary), compression="zstd")


def read_manifest(folder: UPath, token: str, columns: list[str] | None = None) -> pa.Table:
    return pq.read_table(str(manifest_path(folder, token)), columns=columns)


def manifest_keys(folder: UPath, token: str) -> npt.NDArray[np.bytes_]:
    """A batch's request_keys in the order of its rows."""
    column = read_manifest(folder, token, ["request_key"]).column(0).combine_chunks()
    return from_arrow(column)


def render_again(transform: Transform, token: str, manifest: pa.Table) -> PlannedBatch:
    """The payload of a manifest, from the records: byte for byte what was planned.

    Raises ``SourceError`` when the records have changed since.
    """
    payload = Payload(token, Room(transform.task.packing))
    wanted = from_arrow(manifest.column("request_key").combine_chunks())
    partitions = manifest.column("partition").to_numpy()
    rows = manifest.column("record_row").to_numpy()
    found: dict[int, bytes] = {}
    for ordinal in np.unique(partitions).tolist():
        places = np.flatnonzero(partitions == ordinal)
        rendered = _rendered_rows(transform, ordinal, rows[places], places)
        found.update({place: params for place, params, key in rendered if key == wanted[place]})
        if not all(place in found for place in places.tolist()):
            raise SourceError(
                f"pipeline {transform.pipeline!r}: the records of partition "
                f"{transform.partitions[ordinal].key!r} have changed since batch {token} was "
                "planned; run the transform again"
            )
    for place in range(manifest.num_rows):
        payload.add(found.pop(place))
    return PlannedBatch(token, payload, manifest)


def _rendered_rows(
    transform: Transform,
    ordinal: int,
    rows: npt.NDArray[np.int64],
    places: npt.NDArray[Any],
) -> Iterator[tuple[int, bytes, bytes]]:
    """(place, parameters, key) of chosen rows of one partition, read in one pass."""
    partition = transform.partitions[ordinal]
    renderer = transform.renderer(partition)
    order = np.argsort(rows, kind="stable")
    rows, places = rows[order], places[order]
    start = 0
    for records in read_batches(partition.records, renderer.columns):
        low, high = np.searchsorted(rows, [start, start + records.num_rows])
        if high > low:
            chosen = records.take(pa.array(rows[low:high] - start))
            rendered = renderer.render(chosen)
            yield from zip(
                places[low:high].tolist(), rendered.params, rendered.keys.tolist(), strict=True
            )
        start += records.num_rows
