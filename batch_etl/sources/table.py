"""Records from another pipeline's table: classify first, then ask more of what was flagged.

Which file the table is in, and in which schema, depends on where the pipeline runs and whom it
asks, so whoever does binds the source to a :class:`Place`. A pipeline with partitions takes the
rows that the other pipeline loaded for the partition of the same key, and refuses a key that was
not loaded: no rows for lack of a run are not the same as no rows.

Records carry in their file's metadata whose answers they are: made-up answers of the emulator must
not be sent to Claude as records, only because they were read before the endpoint was changed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import pyarrow.parquet as pq
from pydantic import Field, field_validator
from upath import UPath

from batch_etl.errors import SourceError
from batch_etl.sources.bounds import names_in
from batch_etl.sources.columns import no_column
from batch_etl.sources.duckdb_file import DuckdbSource
from batch_etl.sources.source import Cut, OnDuplicate, PartitionSlice, Portion
from batch_etl.strict import Strict

_ENDPOINT = b"batch_etl.answers_of"


@dataclass(frozen=True)
class Place:
    """Where the other pipeline's table is, and what of it was loaded."""

    path: Path
    schema: str
    table: str
    columns: Sequence[str]
    partitions: Collection[str | None]
    endpoint: str

    def __str__(self) -> str:
        return f"table {self.schema}.{self.table}"


class TableSource(Strict):
    """Whose table, and which rows of it."""

    type: Literal["table"]
    pipeline: str = Field(description="The other pipeline's name")
    id: str = Field(description="The column that identifies a record: never null, never twice")
    where: str | None = Field(
        default=None,
        description="Which rows, as a condition in DuckDB's SQL; all by default, also those that "
        "wait in review. It may use columns that begin with an underscore",
    )
    columns: list[str] | None = Field(
        default=None,
        description="Which columns; by default all that do not begin with an underscore",
    )
    on_duplicate: OnDuplicate = Field(
        default="refuse",
        description="Records of a partition with the same id: refuse, or keep the first or last",
    )

    @field_validator("where")
    @classmethod
    def _has_no_bounds(cls, where: str | None) -> str | None:
        if names_in(where or ""):
            raise ValueError("a partition's rows are chosen already: leave its bounds away")
        return where

    def check_partitions(self, cut: Cut | None) -> None:
        """Any will do: which partitions the other pipeline has is seen when it is read."""

    def anchored(self, folder: Path) -> Self:  # noqa: ARG002 - it has no paths
        return self

    def bound(self, place: Place) -> TableRows:
        """The source that reads this table."""
        return TableRows(self, place)

    def read(self, slices: Sequence[PartitionSlice] | None) -> Iterator[Portion]:  # noqa: ARG002
        raise SourceError("a pipeline's table is read through its warehouse; bind the source to it")

    def check_records(self, path: UPath, endpoint: str) -> None:
        """Raise SourceError where the records at ``path`` are answers of another endpoint."""
        if not path.exists():
            return
        with path.open("rb") as file:
            metadata = pq.read_schema(file).metadata or {}
        answered = metadata.get(_ENDPOINT, b"").decode()
        if answered != endpoint:
            raise SourceError(
                f"{path}: these records are answers of endpoint {answered!r}, and are not sent to "
                f"{endpoint!r}; materialize the records anew with this endpoint, and "
                f"{self.pipeline} before them"
            )


@dataclass(frozen=True)
class TableRows:
    """The rows of one table as a source of records."""

    source: TableSource
    place: Place

    @property
    def id(self) -> str:
        return self.source.id

    @property
    def on_duplicate(self) -> OnDuplicate:
        return self.source.on_duplicate

    def read(self, slices: Sequence[PartitionSlice] | None) -> Iterator[Portion]:
        """Stream the rows; of the wanted partitions, those that were loaded under their keys."""
        self._check_loaded(slices)
        keys = None if slices is None else [PartitionSlice(piece.key) for piece in slices]
        try:
            for portion in self._query(keys is not None).read(keys):
                batch = portion.batch.replace_schema_metadata(self._metadata)
                yield portion._replace(batch=batch, origin=str(self.place))
        except SourceError as error:
            raise SourceError(f"{self.place}: {error}") from error.__cause__

    @property
    def _metadata(self) -> dict[bytes, bytes]:
        return {_ENDPOINT: self.place.endpoint.encode()}

    def _query(self, by_partition: bool) -> DuckdbSource:
        conditions = [f"({self.source.where}\n)"] if self.source.where else []
        conditions += ["_partition = :partition"] if by_partition else []
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        table = f"{_quoted(self.place.schema)}.{_quoted(self.place.table)}"
        query = f"SELECT {', '.join(map(_quoted, self._columns()))} FROM {table}{where}"
        return DuckdbSource(type="duckdb", path=str(self.place.path), id=self.id, query=query)

    def _columns(self) -> list[str]:
        known = list(self.place.columns)
        for name in self.source.columns or ():
            if name not in known:
                raise no_column("columns", name, known)
        chosen = self.source.columns or [name for name in known if not name.startswith("_")]
        return chosen if self.id in chosen or self.id not in known else [self.id, *chosen]

    def _check_loaded(self, slices: Sequence[PartitionSlice] | None) -> None:
        if slices is None:
            return
        whole = f"pipeline {self.source.pipeline!r}"
        if None in self.place.partitions:
            raise SourceError(
                f"{whole} has no partitions: leave `partitions` away here, or give it the same"
            )
        missing = [piece.key for piece in slices if piece.key not in self.place.partitions]
        if missing:
            raise SourceError(
                f"{self.place} has no partition {missing[0]!r}"
                f"{f' and {len(missing) - 1} more' if missing[1:] else ''}: run {whole} for it "
                "first (both pipelines need the same partitions)"
            )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
