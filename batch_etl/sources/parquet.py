"""Parquet, one row group and a few thousand rows at a time; types as they are in the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from batch_etl.errors import SourceError
from batch_etl.files import ROWS_PER_READ
from batch_etl.sources.columns import FileSchema
from batch_etl.sources.streams import open_binary, reading


@dataclass(frozen=True)
class Parquet:
    """One Parquet file."""

    path: UPath

    def schema(self) -> FileSchema:
        with self._open() as file:
            return FileSchema(str(self.path), file.schema_arrow.remove_metadata())

    def batches(self, _: pa.Schema) -> Iterator[pa.RecordBatch]:
        with self._open() as file:
            for group in range(file.num_row_groups):
                yield from file.iter_batches(ROWS_PER_READ, row_groups=[group])

    @contextmanager
    def _open(self) -> Iterator[Any]:
        try:
            with (
                reading(self.path),
                open_binary(self.path) as raw,
                pq.ParquetFile(raw, pre_buffer=False) as file,
            ):
                yield file
        except pa.ArrowInvalid as error:
            raise SourceError(
                f"{self.path} is not a whole Parquet file: {error}; write it again, or set `format`"
            ) from error
