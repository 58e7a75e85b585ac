"""Planning: records -> requests -> payloads that nobody has paid for yet.

One pass over the records, in bounded memory. Each record's request is rendered and keyed; a key
that was answered before, is in a batch of this transform already, is being bought by another, or
stood earlier in this pass is not sent again. What is left fills payloads in the records' order.
Beside each payload stands its manifest (row -> request_key and record), and for each partition a
plan (record -> request_key) from which finishing later fans the answers out.

The pass can be repeated: killed in the middle and started again, it finds what it planned before
among the keys in flight.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from upath import UPath

from batch_etl.batches.keys import KeySet, Mask, halves
from batch_etl.batches.manifest import Filling, PlannedBatch
from batch_etl.batches.outcome import too_large
from batch_etl.batches.packing import fits_alone
from batch_etl.batches.request import KEY_BYTES, keys_array
from batch_etl.batches.task import Packing
from batch_etl.batches.transform import Transform
from batch_etl.files import ParquetSink, read_batches

PLAN = pa.schema(
    [
        ("request_key", pa.binary(KEY_BYTES)),
        ("record_id", pa.string()),
        ("problem", pa.string()),  # why no request was made of the record
    ]
)
"""A partition's records, in their order; a record with a problem has the key of zeros."""


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


class Others(Protocol):
    """What other transforms have answered, and what they are buying."""

    @property
    def answered(self) -> KeySet: ...
    @property
    def buying(self) -> KeySet: ...
    @property
    def awaited(self) -> KeySet:
        """What was left out because another is buying it; the plan adds to it."""
        ...


def plan_path(folder: UPath, ordinal: int) -> UPath:
    return folder / f"plan-{ordinal:06}.parquet"


def plan(
    transform: Transform, folder: UPath, others: Others, in_flight: KeySet, counts: PlanCounts
) -> Iterator[PlannedBatch]:
    """Yield each payload as soon as it is full; write each partition's plan as it is passed.

    What ``others`` have or buy, and what is ``in_flight``, is not sent; ``in_flight`` grows by what
    is yielded. ``counts`` is filled in place. Raises ``RenderError`` before the payload that holds
    the record is yielded.
    """
    filling = Filling(transform.task.packing)
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
                fresh = _fresh(rendered.keys, sendable, others, in_flight, counts)
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
    others: Others,
    in_flight: KeySet,
    counts: PlanCounts,
) -> Mask:
    """Which of these requests nobody has sent yet; they are in flight from now on."""
    prefixes, _ = halves(keys)
    known = others.answered.contains(prefixes) & sendable
    fresh = sendable & ~known & ~in_flight.contains(prefixes)
    elsewhere = fresh & others.buying.contains(prefixes)
    others.awaited.add(prefixes[elsewhere])
    fresh &= ~elsewhere
    _, first = np.unique(prefixes[fresh], return_index=True)
    chosen = np.zeros(len(keys), dtype=bool)
    chosen[np.flatnonzero(fresh)[first]] = True
    in_flight.add(prefixes[chosen])
    counts.records += len(keys)
    counts.unsendable += int((~sendable).sum())
    counts.reused += int(known.sum())
    counts.sent += int(chosen.sum())
    counts.shared += int((sendable & ~known & ~elsewhere & ~chosen).sum())
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
