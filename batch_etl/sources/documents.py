"""Records that are files: a folder of documents, one record a file.

The columns are what there is to know of a file without opening it (``document_id``: its path below
the YAML's folder, ``name``, ``extension``, ``size_bytes``, ``modified_at``), and with
``text: true`` what it says, for text files. Images and PDFs stay where they are: an ``attachments``
entry of the task with ``column: document_id`` reads them when their request is made.

A partition has files of its own, by ``{partition}`` or ``{start:%Y/%m/%d}`` in ``path``.

Memory: one block of rows, or one text where a text is larger.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pyarrow as pa
from pydantic import Field, model_validator
from upath import UPath

from batch_etl.errors import SourceError
from batch_etl.sources.listing import fill_placeholders, has_placeholder, list_files
from batch_etl.sources.source import Cut, OnDuplicate, PartitionSlice, Portion
from batch_etl.sources.streams import Encoding
from batch_etl.strict import Strict

_ROWS_AT_ONCE = 2_000
_TEXT_AT_ONCE_BYTES = 4 * 2**20

_COLUMNS = pa.schema(
    [
        ("document_id", pa.string()),
        ("name", pa.string()),
        ("extension", pa.string()),
        ("size_bytes", pa.int64()),
        ("modified_at", pa.timestamp("us", "UTC")),
    ]
)
_WITH_TEXT = _COLUMNS.append(pa.field("text", pa.string()))


class DocumentsSource(Strict):
    """Which files are records, and whether their text is read."""

    type: Literal["documents"]
    path: str | list[str] = Field(
        description="A glob (`scans/**/*.pdf`), or a list of them; relative to the folder of the "
        "YAML file. `{partition}` or `{start:%Y/%m/%d}`: each partition has its files"
    )
    text: bool = Field(default=False, description="Read each file as text, into the column `text`.")
    encoding: Encoding = Field(
        default="utf-8", description="Of the texts; any name that Python knows."
    )
    max_text_bytes: Annotated[int, Field(ge=1)] = Field(
        default=32_000_000, description="A larger text is refused: no request could carry it."
    )
    missing: Literal["refuse", "empty"] = Field(
        default="refuse",
        description="A pattern that matches no file: `refuse`, or `empty`, no records.",
    )
    base_folder: Path = Field(default=Path(), description="What a relative `path` is relative to.")

    @model_validator(mode="after")
    def _one_way_to_partition(self) -> Self:
        if not self.patterns:
            raise ValueError("path: name at least one file or glob")
        if len({has_placeholder(pattern) for pattern in self.patterns}) > 1:
            raise ValueError("path: either all patterns have a {partition} placeholder, or none")
        return self

    @property
    def id(self) -> str:
        return "document_id"

    @property
    def on_duplicate(self) -> OnDuplicate:
        return "refuse"

    @property
    def patterns(self) -> list[str]:
        return [self.path] if isinstance(self.path, str) else self.path

    def check_partitions(self, cut: Cut | None) -> None:
        """Raise ValueError unless the path says which file is of which partition, if any."""
        placed = has_placeholder(self.patterns[0])
        if cut is None and placed:
            raise ValueError("the source is partitioned; add a `partitions` block")
        if cut is not None and not placed:
            raise ValueError("`partitions` needs {partition} in `source.path`")

    def anchored(self, folder: Path) -> Self:
        return self.model_copy(update={"base_folder": folder / self.base_folder})

    def read(self, slices: Sequence[PartitionSlice] | None = None) -> Iterator[Portion]:
        """Stream one row a file, sorted by path. Raises ``SourceError``, naming the file."""
        if slices is None:
            yield from self._read(None, self.patterns)
            return
        for piece in slices:
            patterns = [fill_placeholders(pattern, piece) for pattern in self.patterns]
            yield from self._read(piece.key, patterns)

    def _read(self, key: str | None, patterns: list[str]) -> Iterator[Portion]:
        folder = UPath(self.base_folder)
        files = list_files(patterns, folder, missing_ok=self.missing == "empty")
        schema = _WITH_TEXT if self.text else _COLUMNS
        yield Portion(key, pa.RecordBatch.from_pylist([], schema), "", [])
        first, rows, held_bytes = 1, list[dict[str, Any]](), 0
        for file in files:
            rows.append(self._row(file, folder))
            held_bytes += len(rows[-1].get("text", ""))
            if len(rows) == _ROWS_AT_ONCE or held_bytes >= _TEXT_AT_ONCE_BYTES:
                yield _portion(key, rows, schema, folder, first)
                first, rows, held_bytes = first + len(rows), [], 0
        if rows:
            yield _portion(key, rows, schema, folder, first)

    def _row(self, file: UPath, folder: UPath) -> dict[str, Any]:
        try:
            facts = file.stat()
            text = {"text": self._text(file, facts.st_size)} if self.text else {}
        except OSError as error:
            raise SourceError(
                f"{file}: {error.strerror or error}; it must be there and readable while the "
                "records are extracted"
            ) from error
        return {
            "document_id": _below(file, folder),
            "name": file.name,
            "extension": file.suffix.lower().removeprefix("."),
            "size_bytes": facts.st_size,
            "modified_at": _time(facts.st_mtime),
            **text,
        }

    def _text(self, file: UPath, size_bytes: int) -> str:
        if size_bytes > self.max_text_bytes:
            raise SourceError(
                f"{file}: {size_bytes:,} bytes of text, and max_text_bytes is "
                f"{self.max_text_bytes:,}; leave the file out, cut it, or raise the limit"
            )
        try:
            return file.read_bytes().decode(self.encoding)
        except UnicodeDecodeError as error:
            raise SourceError(
                f"{file}: byte {error.start:,} is not {self.encoding} ({error.reason}); set "
                "`encoding`, or `text: false` for files that are no text"
            ) from None


def _portion(
    key: str | None, rows: list[dict[str, Any]], schema: pa.Schema, folder: UPath, first: int
) -> Portion:
    batch = pa.RecordBatch.from_pylist(rows, schema)
    return Portion(key, batch, str(folder), range(first, first + len(rows)))


def _below(file: UPath, folder: UPath) -> str:
    """The path below the YAML's folder, or the whole where it lies elsewhere."""
    return str(file.relative_to(folder)) if file.is_relative_to(folder) else str(file)


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
