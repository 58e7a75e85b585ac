"""Records from an asset of the user's own Dagster project.

What the asset hands over is a table in memory, as its IO manager gives it back (``via: value``), or
a file that its materialization names (``via: file``). Both are known only in a run, so whoever runs
opens the source with an :data:`Opener`. Anything that speaks Arrow is taken (pandas, Polars,
pyarrow, DuckDB), a list of dictionaries, and the path of a file.

With partitions, the asset's partition of the same key has the records, or ``partition_column``
tells them apart in an asset that has them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Self

import pyarrow as pa
from pydantic import Field

from batch_etl.errors import SourceError
from batch_etl.files import ROWS_PER_READ
from batch_etl.sources.asked import AskedSource, Block, distinct
from batch_etl.sources.bounds import Bounds
from batch_etl.sources.columns import conform, declared_type, plain
from batch_etl.sources.files import FilesSource
from batch_etl.sources.source import Cut

Opener = Callable[[str | None], Any]
"""The value that the asset handed over for a partition; None: the only one, or of all."""


class AssetSource(AskedSource):
    """Which asset, and how it hands its records over."""

    type: Literal["asset"]
    asset: str = Field(description="The asset's key, its parts joined by `/`")
    via: Literal["value", "file"] = Field(
        default="value",
        description="`value`: the asset's value, through its IO manager (a pandas, Polars or Arrow "
        "table). `file`: the file that its materialization's metadata names",
    )
    metadata_key: str | None = Field(
        default=None,
        description="`via: file`: the metadata entry with the path; by default `dagster/uri`, else "
        "`path`",
    )

    @property
    def bounds(self) -> frozenset[str]:
        return frozenset()

    def bound(self, name: str) -> str:
        return f":{name}"

    def check_partitions(self, cut: Cut | None) -> None:
        """Raise ValueError for a column without partitions; else the asset's own are taken."""
        if cut is None and self.partition_column is not None:
            raise ValueError("the source is partitioned; add a `partitions` block")

    def anchored(self, folder: Path) -> Self:  # noqa: ARG002 - its paths are the asset's own
        return self

    def opened(self, opener: Opener) -> OpenedAsset:
        """The same source, which reads what ``opener`` gives."""
        return OpenedAsset(**dict(self), opener=opener)

    def blocks(self, bounds: Bounds) -> Iterator[Block]:  # noqa: ARG002
        raise SourceError("an asset is read in a Dagster run; open the source with its value")


class OpenedAsset(AssetSource):
    """An asset's records in a run."""

    opener: Opener

    def blocks(self, bounds: Bounds) -> Iterator[Block]:
        """Stream what was handed over, in batches of one schema."""
        key = bounds.get("partition")
        origin = f"asset {self.asset}" + (f" partition {key}" if key else "")
        value = self.opener(None if key is None else str(key))
        if isinstance(value, str | PathLike):
            yield from self._of_file(str(value))
            return
        reader = _reader(value, origin)
        schema = self._schema(reader.schema)
        yield Block(origin, pa.RecordBatch.from_pylist([], schema), 1)
        first = 1
        for batch in _small(reader):
            yield Block(origin, conform(batch, schema, self.types, origin, first), first)
            first += batch.num_rows

    def _schema(self, found: pa.Schema) -> pa.Schema:
        distinct(found.names)
        declared = {name: declared_type(kind) for name, kind in self.types.items()}
        kinds = [(field.name, _settled(plain(field.type))) for field in found]
        return pa.schema([(name, declared.get(name, kind)) for name, kind in kinds])

    def _of_file(self, path: str) -> Iterator[Block]:
        files = FilesSource(path=path.removeprefix("file://"), id=self.id, types=self.types)
        for portion in files.read(None):
            first = portion.rows[0] if portion.rows else 1
            yield Block(portion.origin or path, portion.batch, first)


def _settled(kind: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_null(kind) else kind


def _reader(value: Any, origin: str) -> pa.RecordBatchReader:
    """The value as a stream of Arrow batches. Raises SourceError for what is no table."""
    try:
        return _arrow(value)
    except (ValueError, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise SourceError(
            f"{origin}: its value is no table whose columns have a name and a type each: {error}; "
            "mend it in the asset"
        ) from error
    except TypeError:
        raise SourceError(
            f"{origin}: its value is {type(value).__name__}, and must be a table (pandas, Polars, "
            "pyarrow), a list of dictionaries, or the path of a file"
        ) from None


def _arrow(value: Any) -> pa.RecordBatchReader:
    if _is_pandas(value):
        named = value.reset_index() if any(value.index.names) else value
        return pa.Table.from_pandas(named, preserve_index=False).to_reader()
    if hasattr(value, "__arrow_c_stream__"):
        return pa.RecordBatchReader.from_stream(value)
    if isinstance(value, pa.RecordBatch):
        return pa.Table.from_batches([value]).to_reader()
    if isinstance(value, Sequence) and all(isinstance(row, Mapping) for row in value):  # pyright: ignore[reportUnknownVariableType]
        return pa.Table.from_pylist(list(value)).to_reader()  # pyright: ignore[reportUnknownArgumentType]
    raise TypeError


def _is_pandas(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "columns")


def _small(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    for batch in reader:
        for start in range(0, batch.num_rows, ROWS_PER_READ):
            yield batch.slice(start, ROWS_PER_READ)
