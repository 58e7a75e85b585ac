"""The ``queue`` source: work items that wait in a table until a drain takes them.

A drain is a partition. Which items it has was decided when it was made, in one transaction
(``batch_etl/queue``), so reading it again gives the same records for ever. This module knows how
items become typed columns; where they are kept, whoever binds the source says.

Items that came as JSON stay JSON until they are read, and get their types from the whole drain, as
the lines of one file would (``jsontext.py``). Items that came in CSV and Parquet keep their types.
Where two of a drain do not meet, the column is text: an item that waits beside another must not
keep it from being sent. ``types`` settles a column for all drains; a declared column is always
there, null where no item has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self

import msgspec
import pyarrow as pa
from pydantic import Field, model_validator
from upath import UPath

from batch_etl.errors import SourceError
from batch_etl.sources.columns import FileSchema, Types, as_read, conform, declared_type, unified
from batch_etl.sources.jsontext import JsonText, Record, as_text
from batch_etl.sources.source import Cut, OnDuplicate, PartitionSlice, Portion
from batch_etl.strict import Strict

JSON = "json"
"""The kind of items that came as JSON; any other kind is the digest of an Arrow schema."""

ITEM = "item"
"""The one column of a batch of JSON items: each as its text."""


class DrainAt(Strict):
    """When a sensor drains by itself: at whichever comes first."""

    count: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="As soon as so many items wait."
    )
    age_s: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="As soon as an item has waited for so many seconds."
    )
    interval_s: Annotated[int, Field(ge=5, le=3600)] = Field(
        default=30, description="Seconds between two looks at the queue."
    )
    default_status: Literal["running", "stopped"] = Field(
        default="running", description="Of the sensor, until somebody switches it in the UI."
    )

    @model_validator(mode="after")
    def _has_a_limit(self) -> Self:
        if self.count is None and self.age_s is None:
            raise ValueError("give `count`, `age_s` or both")
        return self


class Queued(Protocol):
    """Where a pipeline's items are kept."""

    def kinds(self, drain: str) -> list[str]:
        """The kinds of items that the drain has. Raises SourceError if there is no such drain."""
        ...

    def batches(self, drain: str, kind: str) -> Iterator[pa.RecordBatch]:
        """Its items of one kind, in the order in which they came."""
        ...


class QueueSource(Strict):
    """Items that were enqueued, a drain at a time."""

    type: Literal["queue"]
    id: str = Field(description="The item's key that identifies it: never null")
    drain_at: DrainAt | None = Field(
        default=None,
        description="When a sensor drains by itself; without it only `batch-etl run` drains",
    )
    on_duplicate: OnDuplicate = Field(
        default="refuse",
        description="An item whose id waits already: refuse it, or keep the first or the last",
    )
    types: Types = Field(default_factory=dict, description="Types of columns by name, as of files")

    def check_partitions(self, cut: Cut | None) -> None:
        """Raise ValueError for any: the drains are the partitions."""
        if cut is not None:
            raise ValueError("each drain of a queue is a partition: remove `partitions`")

    def anchored(self, folder: Path) -> Self:  # noqa: ARG002 - it has no paths
        return self

    def bound(self, queued: Queued) -> Drains:
        """The source that reads these items."""
        return Drains(self.id, self.on_duplicate, queued, self.types)

    def read(self, slices: Sequence[PartitionSlice] | None) -> Iterator[Portion]:  # noqa: ARG002
        raise SourceError("a queue is read through the resource `queue`; bind the source to it")


@dataclass(frozen=True)
class Drains:
    """A pipeline's drains as a source of records."""

    id: str
    on_duplicate: OnDuplicate
    queued: Queued = field(repr=False)
    types: Mapping[str, str]

    def read(self, slices: Sequence[PartitionSlice] | None) -> Iterator[Portion]:
        """Stream the items of the wanted drains, each drain's in one schema."""
        if slices is None:
            raise SourceError("a queue is read a drain at a time: choose a partition")
        for piece in slices:
            yield from self._drain(piece.key)

    def _drain(self, key: str) -> Iterator[Portion]:
        items = [_items(self.queued, key, kind) for kind in self.queued.kinds(key)]
        schemas = [one.schema() for one in items]
        declared = {name: declared_type(kind) for name, kind in self.types.items()}
        always = FileSchema("`types`", pa.schema(list(declared.items())), loose=True)
        schema = unified([*schemas, always], declared)
        origin = f"drain {key}"
        yield Portion(key, pa.RecordBatch.from_pylist([], schema), origin, [])
        first = 1
        for one, own in zip(items, schemas, strict=True):
            for found in one.batches(as_read(own.schema, schema, declared)):
                batch = conform(found, schema, self.types, origin, first)
                yield Portion(key, batch, origin, range(first, first + batch.num_rows))
                first += batch.num_rows


def _items(queued: Queued, drain: str, kind: str) -> _JsonItems | _ArrowItems:
    if kind != JSON:
        return _ArrowItems(queued, drain, kind)
    return _JsonItems(UPath(f"drain {drain}"), "utf-8", lines=True, queued=queued, drain=drain)


@dataclass(frozen=True, kw_only=True)
class _JsonItems(JsonText):
    """JSON items, read as if they were the lines of one file."""

    queued: Queued = field(repr=False)
    drain: str

    def _records(self) -> Iterator[list[Record]]:
        for batch in self.queued.batches(self.drain, JSON):
            yield [_DECODER.decode(text) for text in batch.column(ITEM).to_pylist()]


_DECODER = msgspec.json.Decoder(Record)


@dataclass(frozen=True)
class _ArrowItems:
    """Items of one Arrow schema."""

    queued: Queued
    drain: str
    kind: str

    def schema(self) -> FileSchema:
        first = next(self.queued.batches(self.drain, self.kind))
        return FileSchema(f"drain {self.drain}", first.schema, loose=True)

    def batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        for batch in self.queued.batches(self.drain, self.kind):
            columns = [_readable(batch.column(one.name), one.type) for one in schema]
            yield pa.RecordBatch.from_arrays(columns, names=schema.names)


def _readable(column: pa.Array[Any], wanted: pa.DataType) -> pa.Array[Any]:
    """What is nested as its JSON where text is wanted; else as it is."""
    if pa.types.is_string(wanted) and pa.types.is_nested(column.type):
        return pa.array([as_text(value) for value in column.to_pylist()], pa.string())
    return column
