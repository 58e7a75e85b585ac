"""Records from files: CSV, TSV, JSON Lines, JSON and Parquet; plain, gz or zst; one, many or globs.

Nothing is guessed from the data of a CSV file: every cell is text (``007`` stays ``007``) unless
``types`` says otherwise. Files that differ in their columns are read as one table (``columns.py``).
JSON is typed by what is in it (``jsontext.py``), Parquet brings its types.

A partition's rows are found in one of two ways. With ``partition_column`` all files are read once
for however many partitions are wanted, and each row goes where its value says (``routing.py``).
With ``{partition}`` (or ``{start:%Y/%m/%d}``) in ``path`` each partition has files of its own.

Memory: a few blocks of 1 MB, or one record where a record is larger; Parquet, what one row group's
columns need to be decoded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, Self

import pyarrow as pa
from pydantic import Field, field_validator, model_validator
from upath import UPath

from batch_etl.errors import SourceError
from batch_etl.sources.columns import Types, as_read, conform, declared_type, no_column, unified
from batch_etl.sources.delimited import Delimited, Dialect
from batch_etl.sources.jsontext import JsonText
from batch_etl.sources.listing import fill_placeholders, has_placeholder, list_files
from batch_etl.sources.parquet import Parquet
from batch_etl.sources.routing import Router
from batch_etl.sources.source import Cut, OnDuplicate, PartitionSlice, Portion
from batch_etl.sources.streams import Encoding, without_compression
from batch_etl.strict import Strict

Format = Literal["csv", "tsv", "jsonl", "json", "parquet"]
File = Delimited | JsonText | Parquet

_FORMATS: dict[str, str] = {
    "csv": "csv",
    "tsv": "tsv",
    "tab": "tsv",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "json": "json",
    "parquet": "parquet",
    "pq": "parquet",
}


class FilesSource(Strict):
    """Which files, how they are written, and which columns name a record and its partition."""

    type: Literal["files"] = "files"
    path: str | list[str] = Field(
        description="A file, a glob (`posts/*.csv.gz`, `**`), or a list of them; relative to the "
        "folder of the YAML file. `{partition}` or `{start:%Y/%m/%d}`: each partition has its files"
    )
    id: str = Field(description="The column that identifies a record: never null, never twice")
    format: Format | None = Field(
        default=None, description="How the files are written; by default the extension says"
    )
    partition_column: str | None = Field(
        default=None,
        description="The column whose value is the partition's key, or a time within its window",
    )
    on_duplicate: OnDuplicate = Field(
        default="refuse",
        description="Records of a partition with the same id: refuse, or keep the first or last",
    )
    missing: Literal["refuse", "empty"] = Field(
        default="refuse",
        description="A pattern that matches no file: refuse, or take it as no records",
    )
    types: Types = Field(
        default_factory=dict,
        description="Types of columns by name: string, int64, float64, bool, date, timestamp, "
        "timestamp_s, timestamp_ms, decimal(18,2)",
    )
    encoding: Encoding = Field(
        default="utf-8", description="Of CSV, TSV and JSON; any name Python knows"
    )
    delimiter: str | None = Field(default=None, description="CSV: `,` by default; TSV: a tab")
    quote: str = Field(default='"', description="CSV, TSV: the quote character; empty for none")
    header: bool = Field(
        default=True, description="CSV, TSV: whether the first line names the columns"
    )
    columns: list[str] | None = Field(
        default=None, description="CSV, TSV: the columns' names, instead of the header's"
    )
    null_values: list[str] = Field(
        default=[""], description="CSV, TSV: unquoted cells that are null; a quoted cell never is"
    )
    records_at: str | None = Field(
        default=None,
        description="JSON: the way to the list of records in an object, as `data.items`",
    )
    base_folder: Path = Field(default=Path(), description="What a relative `path` is relative to")

    @field_validator("delimiter", "quote")
    @classmethod
    def _is_one_ascii_character(cls, mark: str | None) -> str | None:
        if mark and (len(mark) > 1 or not mark.isascii() or mark in "\r\n\0"):
            raise ValueError(f"must be one ASCII character, not {mark!r}")
        return mark

    @model_validator(mode="after")
    def _one_way_to_partition(self) -> Self:
        if not self.patterns:
            raise ValueError("path: name at least one file or glob")
        if self.delimiter == "":
            raise ValueError("delimiter: must be one ASCII character, not empty")
        placed = {has_placeholder(pattern) for pattern in self.patterns}
        if len(placed) > 1:
            raise ValueError("path: either all patterns have a {partition} placeholder, or none")
        if placed == {True} and self.partition_column is not None:
            raise ValueError(
                "partition_column: `path` has a {partition} placeholder already; use one of the two"
            )
        return self

    @property
    def patterns(self) -> list[str]:
        return [self.path] if isinstance(self.path, str) else self.path

    def check_partitions(self, cut: Cut | None) -> None:
        """Raise ValueError unless the source says which record is of which partition, if any."""
        says = self.partition_column is not None or has_placeholder(self.patterns[0])
        if cut is None and says:
            raise ValueError("the source is partitioned; add a `partitions` block")
        if cut is not None and not says:
            raise ValueError(
                "`partitions` needs `source.partition_column`, or {partition} in `source.path`"
            )

    def anchored(self, folder: Path) -> Self:
        return self.model_copy(update={"base_folder": folder / self.base_folder})

    def read(self, slices: Sequence[PartitionSlice] | None = None) -> Iterator[Portion]:
        """Stream the rows of the wanted partitions (``None``: everything, unpartitioned).

        Every wanted partition yields at least one portion, maybe of zero rows; all its portions
        have one schema. Raises SourceError, naming file and record or line.
        """
        if slices is None:
            self._refuse_placeholder()
            yield from self._read(self.patterns, None)
        elif has_placeholder(self.patterns[0]):
            for piece in slices:
                patterns = [fill_placeholders(pattern, piece) for pattern in self.patterns]
                for portion in self._read(patterns, None):
                    yield portion._replace(partition=piece.key)
        elif slices:
            yield from self._read(self.patterns, slices)

    def _read(
        self, patterns: list[str], slices: Sequence[PartitionSlice] | None
    ) -> Iterator[Portion]:
        paths = list_files(patterns, UPath(self.base_folder), missing_ok=self.missing == "empty")
        files = [self._file(path) for path in paths]
        schemas = [file.schema() for file in files]
        declared = {name: declared_type(kind) for name, kind in self.types.items()}
        schema = unified(schemas, declared)
        self._check_columns(schema, paths)
        if not schema.names:
            schema = pa.schema([(self.id, declared.get(self.id, pa.string()))])
        for key in [None] if slices is None else [piece.key for piece in slices]:
            yield Portion(key, pa.RecordBatch.from_pylist([], schema), "", [])
        router = None if slices is None else Router(slices, self._partition_column())
        for file, own in zip(files, schemas, strict=True):
            batches = file.batches(as_read(own.schema, schema, declared))
            yield from self._portions(own.origin, batches, schema, router)

    def _portions(
        self,
        origin: str,
        batches: Iterator[pa.RecordBatch],
        schema: pa.Schema,
        router: Router | None,
    ) -> Iterator[Portion]:
        first = 1
        for found in batches:
            batch = conform(found, schema, self.types, origin, first)
            if router is None:
                yield Portion(None, batch, origin, range(first, first + batch.num_rows))
            else:
                yield from router.route(batch, origin, first)
            first += batch.num_rows

    def _file(self, path: UPath) -> File:
        match self.format or self._by_extension(path):
            case "parquet":
                return Parquet(path)
            case "json":
                return JsonText(path, self.encoding, lines=False, records_at=self.records_at)
            case "jsonl":
                return JsonText(path, self.encoding, lines=True)
            case written:
                return Delimited(path, self._dialect("\t" if written == "tsv" else ","))

    def _by_extension(self, path: UPath) -> str:
        extension = without_compression(path.name).rpartition(".")[2].lower()
        if extension not in _FORMATS:
            raise SourceError(
                f"{path}: the extension does not say how the file is written; set `format` to one "
                "of csv, tsv, jsonl, json, parquet (each may also be .gz or .zst)"
            )
        return _FORMATS[extension]

    def _dialect(self, delimiter: str) -> Dialect:
        return Dialect(
            delimiter=self.delimiter or delimiter,
            quote=self.quote or None,
            encoding=self.encoding,
            header=self.header,
            columns=None if self.columns is None else tuple(self.columns),
            null_values=tuple(self.null_values),
        )

    def _check_columns(self, schema: pa.Schema, paths: list[UPath]) -> None:
        wanted = {"id": self.id, "partition_column": self.partition_column}
        for key, name in wanted.items():
            if schema.names and name is not None and name not in schema.names:
                raise no_column(key, name, schema.names, f" in {_some(paths)}")

    def _partition_column(self) -> str:
        if self.partition_column is None:
            raise SourceError(
                "the pipeline has partitions, but nothing says which record is of which: set "
                "`partition_column`, or put {partition} into `path`"
            )
        return self.partition_column

    def _refuse_placeholder(self) -> None:
        if has_placeholder(self.patterns[0]):
            raise SourceError(
                f"path {self.patterns[0]!r} has a placeholder, but the pipeline has no partitions; "
                "give it partitions, or use a glob"
            )


def _some(paths: list[UPath]) -> str:
    return str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more files"
