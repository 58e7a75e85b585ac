"""CSV and TSV, read by pyarrow with nothing guessed: every cell is text, byte for byte.

A cell may hold delimiters, quotes (doubled), any line end and NUL. An unquoted cell equal to one of
``null_values`` is null; a quoted one never is, so ``""`` is an empty text. Blank lines are skipped.

pyarrow is quick but says little when a file is broken, and takes a quote that is never closed for
text up to the end of the file. So quotes are counted on the way, and a file that fails, or whose
quotes do not pair, is read once more by Python's ``csv``, which knows the line.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc
from upath import UPath

from batch_etl.errors import SourceError
from batch_etl.sources.columns import FileSchema
from batch_etl.sources.streams import BLOCK_BYTES, open_utf8, reading, undecodable

_MAX_ROW_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Dialect:
    delimiter: str
    quote: str | None
    encoding: str
    header: bool
    columns: tuple[str, ...] | None
    null_values: tuple[str, ...]


@dataclass(frozen=True)
class Delimited:
    """One file of delimited text."""

    path: UPath
    dialect: Dialect

    def schema(self) -> FileSchema:
        names, _ = self._head()
        return FileSchema(str(self.path), pa.schema([(name, pa.string()) for name in names]))

    def batches(self, _: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Stream the rows; a row larger than a block is read again with blocks that hold it."""
        names, skip = self._head()
        if skip is None:
            return
        done = 0
        block_bytes = BLOCK_BYTES
        while True:
            try:
                for batch in self._after(done, names, skip, block_bytes):
                    done += batch.num_rows
                    yield batch
                return
            except pa.ArrowInvalid as error:
                if "straddling" not in str(error) or block_bytes >= _MAX_ROW_BYTES:
                    raise self._diagnosis(names, error) from error
                block_bytes *= 8

    def _after(
        self, done: int, names: list[str], skip: int, block_bytes: int
    ) -> Iterator[pa.RecordBatch]:
        for batch in self._parsed(names, skip, block_bytes):
            if done < batch.num_rows:
                yield batch.slice(done)
            done = max(0, done - batch.num_rows)

    def _parsed(self, names: list[str], skip: int, block_bytes: int) -> Iterator[pa.RecordBatch]:
        quote = self.dialect.quote
        with reading(self.path), open_utf8(self.path, self.dialect.encoding) as stream:
            stream.counted = quote.encode() if quote else None
            yield from pc.open_csv(
                pa.PythonFile(stream, mode="r"),
                read_options=pc.ReadOptions(
                    column_names=names, skip_rows=skip, block_size=block_bytes
                ),
                parse_options=pc.ParseOptions(
                    delimiter=self.dialect.delimiter,
                    quote_char=quote or False,
                    newlines_in_values=True,
                ),
                convert_options=pc.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()),
                    null_values=list(self.dialect.null_values),
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            )
            if stream.count % 2:
                self._check_quotes(names)

    def _head(self) -> tuple[list[str], int | None]:
        """The column names, and the lines above the first record (None: there is no record)."""
        with self._rows() as rows:
            first = next(rows, None)
            if first is None:
                raise SourceError(
                    f"{self.path} has no header line, only blank lines; write one, or take the "
                    "file out of `path`"
                )
            skip = rows.line_num if self.dialect.header else 0
            has_records = not self.dialect.header or _has_more(rows)
        names = list(self.dialect.columns or _names(first, self.dialect.header))
        if len(names) != len(first):
            raise SourceError(
                f"{self.path} line 1 has {len(first)} cells, but `columns` names {len(names)}"
            )
        for name in names:
            if names.count(name) > 1:
                raise SourceError(
                    f"{self.path}: the header names {name!r} twice; give each column its own name"
                )
        return names, skip if has_records else None

    @contextmanager
    def _rows(self) -> Iterator[Any]:
        """The rows that are not blank, by Python's csv, strictly."""
        limit = csv.field_size_limit(sys.maxsize)
        try:
            with reading(self.path), open_utf8(self.path, self.dialect.encoding) as stream:
                text = io.TextIOWrapper(io.BufferedReader(stream), encoding="utf-8", newline="")
                yield _Rows(csv.reader(text, strict=True, **self._csv_format()))
        except csv.Error as error:
            raise SourceError(f"{self.path}: {error}") from error
        except UnicodeDecodeError as error:
            raise undecodable(self.path, self.dialect.encoding) or SourceError(
                str(error)
            ) from error
        finally:
            csv.field_size_limit(limit)

    def _csv_format(self) -> dict[str, Any]:
        if self.dialect.quote is None:
            return {"delimiter": self.dialect.delimiter, "quoting": csv.QUOTE_NONE}
        return {"delimiter": self.dialect.delimiter, "quotechar": self.dialect.quote}

    def _check_quotes(self, names: list[str]) -> None:
        error = self._broken_row(names)
        if error is not None:
            raise error

    def _diagnosis(self, names: list[str], error: Exception) -> SourceError:
        wrong_text = undecodable(self.path, self.dialect.encoding)
        return wrong_text or self._broken_row(names) or SourceError(f"{self.path}: {error}")

    def _broken_row(self, names: list[str]) -> SourceError | None:
        with self._rows() as rows:
            while True:
                line = rows.line_num + 1
                try:
                    row = next(rows, None)
                except csv.Error as error:
                    return self._unclosed(line, error)
                if row is None:
                    return None
                if len(row) != len(names):
                    return self._ragged(line, row, names)

    def _unclosed(self, line: int, error: csv.Error) -> SourceError:
        if "unexpected end" in str(error):
            return SourceError(
                f"{self.path}: a quote opened in the record that begins at line {line} is never "
                "closed; close it, or double the quotes inside quoted cells"
            )
        return SourceError(
            f"{self.path} line {line}: {error}; double the quotes inside quoted cells"
        )

    def _ragged(self, line: int, row: list[str], names: list[str]) -> SourceError:
        return SourceError(
            f"{self.path} line {line}: {len(row)} cells where the header has {len(names)} "
            f"({', '.join(names)}); quote cells that hold {self.dialect.delimiter!r} or line ends, "
            "or set `delimiter`"
        )


class _Rows:
    """A csv reader without its blank rows; ``line_num`` as there."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    @property
    def line_num(self) -> int:
        return self._reader.line_num

    def __iter__(self) -> _Rows:
        return self

    def __next__(self) -> list[str]:
        row = next(self._reader)
        while not row:
            row = next(self._reader)
        return row


def _has_more(rows: Any) -> bool:
    try:
        return next(rows, None) is not None
    except csv.Error:
        return True


def _names(first: list[str], header: bool) -> list[str]:
    """Names from the header; a column without one is called by its place."""
    return [
        name if header and name else f"column_{number}"
        for number, name in enumerate(first, start=1)
    ]
