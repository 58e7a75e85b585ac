"""Records that are as they were when they were planned before: their request_keys are known.

Where a source is extracted again, most of its records are what they were. To render and hash their
requests once more is most of what planning costs; to see that their columns are the same is little.
So a transform keeps its partitions' records beside their plans, and the next transform with the
same task takes from these plans the keys of records that stand unchanged in the same row. All
others are rendered, as are all whose request has no answer yet. What is compared is each value that
rendering reads, exactly; a hash would let somebody who writes records make a changed one pass for
the one that was answered.

To keep records is to link their file: it takes no room until the partition is extracted anew, and
is dropped when a later transform has planned the partition. Its name says its size and when it was
written, so a file that somebody has written into is not taken for what was planned. Where a file
cannot be linked (an object store), where a prompt shows other files, or where columns are of types
whose equal values may be written differently, nothing is kept or found, and all is rendered.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from upath import UPath

from batch_etl import arrow
from batch_etl.batches.keys import KeySet, Mask, from_arrow, halves
from batch_etl.batches.plan import plan_path
from batch_etl.batches.request import Rendered, Renderer
from batch_etl.batches.tables import TransformRow
from batch_etl.batches.transform import Partition, Transform
from batch_etl.effects import effect
from batch_etl.files import Home, RowsOf, is_local, read_batches

pc: Any = pyarrow.compute  # its functions are made at import; a type checker sees none

_RENDERING = 1
"""Raised when the same task and record would make another request than before."""

_TRIED_ROWS = 20_000
"""Once so many rows were compared and not one in ten is the same, the others are not compared."""

_PLANNED = ("open", "done")
_STEM = "records-"


class _Planned:
    """One transform: its plans, and the records that it keeps beside them."""

    def __init__(self, folder: UPath, row: TransformRow) -> None:
        self.row = row
        self._folder = folder
        self._ordinals = {key: ordinal for ordinal, key in enumerate(row.scope)}

    def plan(self, partition: Partition) -> UPath | None:
        """The plan of a partition; None where the transform is not over it."""
        ordinal = self._ordinals.get(partition.key)
        return None if ordinal is None else plan_path(self._folder, ordinal)

    def records(self, partition: Partition) -> UPath | None:
        """The partition's records as they were planned, if they are kept."""
        ordinal = self._ordinals.get(partition.key)
        return None if ordinal is None else _as_planned(self._kept, ordinal)

    def let_go(self, partition: Partition) -> None:
        for kept in self._kept.pop(self._ordinals.get(partition.key, -1), []):
            kept.unlink(missing_ok=True)

    @cached_property
    def _kept(self) -> dict[int, list[UPath]]:
        return _kept_in(self._folder)


class EarlierPlans:
    """What a pipeline's other transforms have planned, newest first."""

    def __init__(self, home: Home, transforms: Sequence[TransformRow]) -> None:
        self._transforms = [_Planned(home.transform(row.id), row) for row in transforms]

    def find(
        self, transform: Transform, partition: Partition, renderer: Renderer, answered: KeySet
    ) -> Unchanged | None:
        """What the newest of them that kept a partition's records has planned of these.

        Requests that are not among ``answered`` are rendered.
        """
        if renderer.content is not None:
            return None
        for one in self._transforms:
            same_task = one.row.fingerprint == transform.task.fingerprint
            if same_task and one.row.status in _PLANNED:
                kept, plan = one.records(partition), one.plan(partition)
                if kept is not None and plan is not None and plan.exists():
                    before = Partition(partition.key, kept)
                    alike = _alike(transform, partition, before, renderer)
                    return Unchanged(kept, plan, renderer, answered) if alike else None
        return None

    def of_results(self, partition: Partition) -> UPath | None:
        """The plan of the results that the partition has now."""
        plans = (one.plan(partition) for one in self._transforms if one.row.status == "done")
        return next((plan for plan in plans if plan is not None), None)

    def let_go(self, partition: Partition) -> None:
        """Keep the partition's records no longer."""
        for one in self._transforms:
            one.let_go(partition)


class Keeping:
    """Keeps the records of a transform that is being planned, if nobody replaces them meanwhile."""

    def __init__(self, transform: Transform, folder: UPath) -> None:
        """To be made before the plan."""
        self._partitions = transform.partitions
        self._folder = folder
        self._planned = [_Identity.of(one.records) for one in transform.partitions]

    def keep(self, instead_of: EarlierPlans) -> None:
        """To be called after the plan."""
        kept = _kept_in(self._folder)
        for ordinal, partition in enumerate(self._partitions):
            planned = self._planned[ordinal]
            if planned is not None and _as_planned(kept, ordinal) is None:
                self._link(partition, ordinal, planned)
            instead_of.let_go(partition)

    def _link(self, partition: Partition, ordinal: int, planned: _Identity) -> None:
        temporary = self._folder / f"{_STEM}{ordinal:06}.tmp"
        temporary.unlink(missing_ok=True)
        with suppress(OSError):  # a file system without links
            os.link(str(partition.records), str(temporary))
            if _Identity.of(temporary) == planned:
                with effect("records kept"):
                    os.replace(str(temporary), str(self._folder / planned.name(ordinal)))
            else:
                temporary.unlink()


class _Identity(NamedTuple):
    """Which file it is: another one has taken its place, or it was written anew, if it differs."""

    device: int
    inode: int
    size_bytes: int
    modified_ns: int

    @classmethod
    def of(cls, path: UPath) -> _Identity | None:
        """None for a path that is not on a local disk, or not there."""
        if not is_local(path) or not path.exists():
            return None
        stat = os.stat(str(path))
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)

    def name(self, ordinal: int) -> str:
        """The name under which it is kept: as long as nobody writes into it, it stays true."""
        return f"{_STEM}{ordinal:06}.v{_RENDERING}-{self.size_bytes}-{self.modified_ns}.parquet"


def _kept_in(folder: UPath) -> dict[int, list[UPath]]:
    """All records that are kept in a transform's folder, by the number of their partition."""
    kept: dict[int, list[UPath]] = {}
    for path in folder.iterdir() if is_local(folder) and folder.exists() else ():
        ordinal = path.name.removeprefix(_STEM).partition(".")[0]
        if path.name.startswith(_STEM) and ordinal.isdecimal():
            kept.setdefault(int(ordinal), []).append(path)
    return kept


def _as_planned(kept: dict[int, list[UPath]], ordinal: int) -> UPath | None:
    """Of what is kept of a partition, the file that still is what was planned."""
    for path in kept.get(ordinal, []):
        identity = _Identity.of(path)
        if identity is not None and identity.name(ordinal) == path.name:
            return path
    return None


def _alike(transform: Transform, now: Partition, before: Partition, renderer: Renderer) -> bool:
    """Whether both have the columns that are read, of types whose equal values are written so."""
    if transform.renderer(before).columns != renderer.columns:
        return False
    schemas = [pq.read_schema(str(one.records)) for one in (now, before)]
    types, earlier = ([schema.field(name).type for name in renderer.columns] for schema in schemas)
    return types == earlier and all(map(_is_plain, types))


def _is_plain(kind: pa.DataType) -> bool:
    is_type: Any = pa.types
    return any(
        is_type_of(kind)
        for is_type_of in (
            is_type.is_string,
            is_type.is_large_string,
            is_type.is_integer,
            is_type.is_boolean,
            is_type.is_floating,
            is_type.is_decimal,
            is_type.is_date,
            is_type.is_time,
            is_type.is_timestamp,
        )
    )


class Unchanged:
    """A partition's records as they were planned before, passed beside those of now."""

    def __init__(self, kept: UPath, plan: UPath, renderer: Renderer, answered: KeySet) -> None:
        self._renderer = renderer
        self._answered = answered
        self._records = RowsOf(read_batches(kept, renderer.columns))
        self._plan = RowsOf(read_batches(plan))
        self._compared = self._found = 0

    def rendered(self, records: pa.RecordBatch) -> Rendered | None:
        """The requests of the next records, with those rendered that are not known.

        None where too few are known to be worth it.
        """
        if self._compared >= _TRIED_ROWS and self._found * 10 < self._compared:
            return None
        rows = records.num_rows
        before, plan = self._records.next(rows), self._plan.next(rows)
        if before is None or plan is None:
            return None
        keys = from_arrow(plan.column("request_key"))
        same = _same(records, before, self._renderer.columns)
        same &= arrow.flags(plan.column("problem").is_null())
        same &= self._answered.contains(halves(keys)[0])
        self._compared += rows
        self._found += int(same.sum())
        others = self._renderer.render(records.filter(arrow.column(~same)))
        return others.among(same, keys, self._renderer.ids(records))


def _same(records: pa.RecordBatch, before: pa.RecordBatch, columns: Iterable[str]) -> Mask:
    """Which rows have the same values in all columns; nulls are the same."""
    same = np.ones(records.num_rows, dtype=bool)
    for name in columns:
        now, then = (_bits(one.column(name)) for one in (records, before))
        equal = pc.equal(now, then)
        if equal.null_count:
            both = pc.and_(now.is_null(), then.is_null())
            equal = pc.if_else(equal.is_null(), both, equal)
        same &= arrow.flags(equal)
    return same


def _bits(column: pa.Array[Any]) -> pa.Array[Any]:
    """Floats as integers: 0.0 and -0.0 are equal, and are written differently."""
    if not pa.types.is_floating(column.type):
        return column
    return column.view({16: pa.int16(), 32: pa.int32(), 64: pa.int64()}[column.type.bit_width])
