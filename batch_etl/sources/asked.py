"""What sources have in common that are asked for their rows: by a query, by a request.

The partition's bounds can be in the question, in the rows, or in both:

==========================  =====================================================================
bounds in the question      one question for each partition; all rows of its answer are the
                            partition's
``partition_column``        one question for all partitions; each row goes where its value says
                            (``routing.py``)
start and end, and column   one question for each stretch of neighbouring partitions; each row goes
                            where its value says
==========================  =====================================================================

A kind of source says which bounds it names and how it asks (:meth:`AskedSource.blocks`); all blocks
of one answer have one schema, and the first one comes even where there are no rows.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

import pyarrow as pa
from pydantic import Field, model_validator

from batch_etl.errors import SourceError
from batch_etl.sources.bounds import Bounds, bounds_of, names_in
from batch_etl.sources.columns import Types, no_column
from batch_etl.sources.routing import Router
from batch_etl.sources.source import Cut, OnDuplicate, PartitionSlice, Portion
from batch_etl.strict import Strict


class Block(NamedTuple):
    """Rows of an answer; ``first`` is the number of the first of them in ``origin``, from 1."""

    origin: str
    batch: pa.RecordBatch
    first: int


@dataclass(frozen=True)
class Question:
    """One thing to ask, and whose rows the answer has."""

    bounds: Bounds
    keys: Sequence[str | None]
    routed: Sequence[PartitionSlice] | None = None
    """The partitions among which the rows are told apart by their column; else all are of one."""


class AskedSource(Strict):
    """Which columns name a record and its partition, whatever is asked, and how."""

    type: Any
    id: str = Field(description="The column that identifies a record: never null, never twice")
    partition_column: str | None = Field(
        default=None,
        description="The column whose value is the partition's key, or a time within its window",
    )
    on_duplicate: OnDuplicate = Field(
        default="refuse",
        description="Records of a partition with the same id: refuse, or keep the first or last",
    )
    types: Types = Field(
        default_factory=dict,
        description="Types of columns by name: string, int64, float64, bool, date, timestamp, "
        "timestamp_s, timestamp_ms, decimal(18,2)",
    )

    @property
    @abstractmethod
    def bounds(self) -> frozenset[str]:
        """The bounds that the question names. Raises ValueError for one that there is not."""

    @abstractmethod
    def bound(self, name: str) -> str:
        """How a bound is written in the question, for an error."""

    @abstractmethod
    def blocks(self, bounds: Bounds) -> Iterator[Block]:
        """Ask, and stream the answer; at least one block, all of one schema."""

    @model_validator(mode="after")
    def _bounds_go_together(self) -> Self:
        named = self.bounds
        start, end, partition = map(self.bound, ("start", "end", "partition"))
        if len(named & {"start", "end"}) == 1:
            raise ValueError(f"{start} and {end} go together: a window has both")
        if "partition" in named and len(named) > 1:
            raise ValueError(f"{partition}, or {start} and {end}: use one of the two")
        if "partition" in named and self.partition_column is not None:
            raise ValueError(f"partition_column: {partition} says it already; use one of the two")
        return self

    def check_partitions(self, cut: Cut | None) -> None:
        """Raise ValueError unless the source says which record is of which partition, if any."""
        says = bool(self.bounds) or self.partition_column is not None
        if cut is None and says:
            raise ValueError("the source is partitioned; add a `partitions` block")
        start, end, partition = map(self.bound, ("start", "end", "partition"))
        if cut is not None and not says:
            raise ValueError(
                f"`partitions` needs `source.partition_column`, or {start} and {end} (or "
                f"{partition}) in what is asked"
            )
        if cut == "keys" and "start" in self.bounds:
            raise ValueError(
                f"{start} and {end} are of partitions by time; for keys there is {partition}"
            )

    def read(self, slices: Sequence[PartitionSlice] | None = None) -> Iterator[Portion]:
        """Stream the rows of the wanted partitions (``None``: all rows, unpartitioned)."""
        for question in self._questions(slices):
            yield from self._portions(question)

    def _questions(self, slices: Sequence[PartitionSlice] | None) -> Iterator[Question]:
        if slices is None:
            yield Question({}, [None])
        elif self.partition_column is None:
            for piece in slices:
                yield Question(bounds_of(piece), [piece.key])
        elif not self.bounds:
            yield Question({}, [piece.key for piece in slices], slices)
        else:
            for stretch in _stretches(slices):
                hull = {"start": stretch[0].start, "end": stretch[-1].end}
                bounds = {name: time for name, time in hull.items() if time is not None}
                yield Question(bounds, [piece.key for piece in stretch], stretch)

    def _portions(self, question: Question) -> Iterator[Portion]:
        router: Router | None = None
        for number, block in enumerate(self.blocks(question.bounds)):
            if number == 0:
                self._check_columns(block.batch.schema.names)
                router = self._router(question)
                for key in question.keys:
                    yield Portion(key, block.batch.slice(0, 0), block.origin, [])
            if router is not None:
                yield from router.route(block.batch, block.origin, block.first)
            elif block.batch.num_rows:
                rows = range(block.first, block.first + block.batch.num_rows)
                yield Portion(question.keys[0], block.batch, block.origin, rows)

    def _router(self, question: Question) -> Router | None:
        if question.routed is None or self.partition_column is None:
            return None
        return Router(question.routed, self.partition_column)

    def _check_columns(self, names: list[str]) -> None:
        wanted: Mapping[str, str | None] = {
            "id": self.id,
            "partition_column": self.partition_column,
            **{f"types.{name}": name for name in self.types},
        }
        for key, name in wanted.items():
            if name is not None and name not in names:
                raise no_column(key, name, names)


def distinct(names: Sequence[str]) -> list[str]:
    """The names of an answer's columns. Raises SourceError where two are equal."""
    for name in names:
        if names.count(name) > 1:
            raise SourceError(
                f"two columns are called {name!r}; name them apart, for instance with AS"
            )
    return list(names)


class QuerySource(AskedSource):
    """A source that is asked in SQL, of a database that may be a file."""

    query: str = Field(
        description="One SELECT; `:start` and `:end`, or `:partition`, are the partition's bounds"
    )
    base_folder: Path = Field(default=Path(), description="What a relative `path` is relative to")

    @property
    def bounds(self) -> frozenset[str]:
        return names_in(self.query)

    def bound(self, name: str) -> str:
        return f":{name}"

    def anchored(self, folder: Path) -> Self:
        return self.model_copy(update={"base_folder": folder / self.base_folder})


def _stretches(slices: Sequence[PartitionSlice]) -> list[list[PartitionSlice]]:
    """Time windows in order, those that follow each other without a gap together."""
    stretches: list[list[PartitionSlice]] = []
    windows = [(piece.window, piece) for piece in slices if piece.window is not None]
    until: datetime | None = None
    for (start, end), piece in sorted(windows, key=lambda pair: pair[0]):
        if start == until:
            stretches[-1].append(piece)
        else:
            stretches.append([piece])
        until = end
    return stretches
