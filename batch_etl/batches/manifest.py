"""Manifests: which record's request stands in which row of a batch.

A manifest is on disk before the ledger knows of its batch, and the batch is in the ledger before it
is sent. The parameters' bytes are not kept: rendering is deterministic, so :func:`render_again`
makes them anew from the manifest and the records.
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

from batch_etl.batches.keys import Mask, from_arrow
from batch_etl.batches.packing import Payload, Room
from batch_etl.batches.request import KEY_BYTES, keys_array, new_token
from batch_etl.batches.task import Packing
from batch_etl.batches.transform import Transform
from batch_etl.errors import SourceError
from batch_etl.files import read_batches, replacing

MANIFEST = pa.schema(
    [
        ("request_key", pa.binary(KEY_BYTES)),
        ("partition", pa.int32()),  # ordinal of the transform's partition
        ("record_row", pa.int64()),  # row in the partition's records file
        ("record_id", pa.string()),
    ]
)
"""A batch's requests, in the order of their rows."""


@dataclass(frozen=True)
class PlannedBatch:
    """A payload ready to be sent, and its manifest."""

    token: str
    payload: Payload
    manifest: pa.Table

    def without(self, rows: Mask) -> pa.Table:
        """The manifest without these rows."""
        return self.manifest.filter(pa.array(~rows))


def manifest_path(folder: UPath, token: str) -> UPath:
    return folder / f"{token}.manifest.parquet"


@dataclass
class Filling:
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


def write_manifest(folder: UPath, batch: PlannedBatch) -> None:
    with replacing(manifest_path(folder, batch.token)) as temporary:
        pq.write_table(batch.manifest, str(temporary), compression="zstd")


def read_manifest(folder: UPath, token: str, columns: list[str] | None = None) -> pa.Table:
    return pq.read_table(str(manifest_path(folder, token)), columns=columns)


def manifest_keys(folder: UPath, token: str) -> npt.NDArray[np.bytes_]:
    """A batch's request_keys in the order of its rows."""
    return keys_of(read_manifest(folder, token, ["request_key"]))


def keys_of(manifest: pa.Table) -> npt.NDArray[np.bytes_]:
    """The request_keys of a manifest's rows."""
    return from_arrow(manifest.column("request_key").combine_chunks())


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
