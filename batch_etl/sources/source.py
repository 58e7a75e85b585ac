"""The seam between a source of records and everything after it.

A source yields portions: runs of rows that belong to one partition, with the place each row came
from, so that any later complaint can name it. Two promises make ``extract`` simple: every partition
that was asked for yields at least one portion (of zero rows, if it has none), and all portions of
one partition have the same schema.

``SourceBlock`` is a source as a pipeline's YAML describes it: it also says whether it can be cut
into partitions, and takes relative paths from the YAML's folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, Self

import pyarrow as pa

OnDuplicate = Literal["refuse", "first", "last"]
"""What to do with records that share an id: refuse them all, or keep the first or the last read."""

Cut = Literal["time", "keys"]
"""What a pipeline's partitions are: windows of time, or keys that are matched by their text."""


@dataclass(frozen=True)
class PartitionSlice:
    """One wanted partition.

    With ``start`` and ``end`` (aware datetimes) it is the window ``start <= time < end``; without
    them it is the rows whose partition value, as text, equals ``key``.
    """

    key: str
    start: datetime | None = None
    end: datetime | None = None

    def __post_init__(self) -> None:
        if (self.start is None) != (self.end is None):
            raise ValueError(f"partition {self.key!r}: give both start and end, or neither")
        if any(time and time.tzinfo is None for time in (self.start, self.end)):
            raise ValueError(f"partition {self.key!r}: start and end need a time zone")
        if self.window and self.window[0] >= self.window[1]:
            raise ValueError(f"partition {self.key!r}: start is not before end")

    @property
    def window(self) -> tuple[datetime, datetime] | None:
        """Its bounds in UTC: times of one zone compare by the clock, which repeats an hour."""
        if self.start is None or self.end is None:
            return None
        return self.start.astimezone(UTC), self.end.astimezone(UTC)


class Portion(NamedTuple):
    """Rows of one partition, and where each was found."""

    partition: str | None
    batch: pa.RecordBatch
    origin: str
    """What the rows were read from, in words for an error: a file's path, a page's address."""
    rows: Sequence[int]
    """The number of each row in ``origin``, counted in records from 1."""

    def place(self, row: int) -> str:
        return f"{self.origin} record {self.rows[row]}"


class Source(Protocol):
    """Where records come from."""

    @property
    def id(self) -> str:
        """The column that identifies a record."""
        ...

    @property
    def on_duplicate(self) -> OnDuplicate: ...

    def read(self, slices: Sequence[PartitionSlice] | None) -> Iterator[Portion]:
        """Stream the wanted partitions' rows (``None``: all rows, of the one partition ``None``).

        Raises :class:`~batch_etl.errors.SourceError`.
        """
        ...


class SourceBlock(Source, Protocol):
    """A source as it is written in YAML: a strict model whose ``type`` names its kind."""

    def check_partitions(self, cut: Cut | None) -> None:
        """Raise ValueError where it cannot be read in such partitions (``None``: as a whole)."""
        ...

    def anchored(self, folder: Path) -> Self:
        """The same source, its relative paths below ``folder``."""
        ...
