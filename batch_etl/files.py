"""Where things lie under one root, and how files come to be there whole or not at all.

    <home>/
      records/<pipeline>/<partition>.parquet              extract
      transforms/<transform id>/                          plans, manifests, records as planned
      answers/<endpoint>/<batch>.parquet, .jsonl.zst      outcomes by request; the raw result lines
      results/<endpoint>/<pipeline>/<partition>.parquet   what the transform hands to the load
      reviews/<endpoint>/<pipeline>/<time>-<random>.parquet  what people decided
      ledger.db                                           transforms, batches, events
      queue.db                                            items that were enqueued, and their drains
      warehouse.duckdb                                    what analysts open: a link to the newest
      warehouse.versions/<time>-<random>/warehouse.duckdb   copy of what was loaded
      warehouse/working.duckdb                            what loads write
      report.html                                         cost, volume, quality, latency over time
      dagster/                                            Dagster's own storage
      emulator/                                           the emulator's batches

Every file is written under a temporary name in its own folder, synced, and renamed into place, so a
reader sees the old file or the new one and a killed writer leaves nothing but a ``.tmp`` file that
nobody reads. Paths are ``UPath``: a local folder today, an object store where the same calls hold
(there a put is atomic by itself).
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from batch_etl.effects import effect

UNPARTITIONED = "all"
"""The file stem of a pipeline without partitions."""

_STEM_BYTES = 255 - len(".parquet.123456789abc.tmp")
"""The longest file stem: a file's name has at most 255 bytes, that of :func:`replacing` too."""

ROWS_PER_READ = 2_000
"""Rows in one batch of a streamed read: measured to be the cheapest size for time and memory."""

ROWS_PER_GROUP = 20_000
"""Rows in one Parquet row group: what a writer holds in memory."""


RECORDS_FACT = "batch_etl.records"
"""In the metadata of a plan and of results: the digest of the records file that they are of."""


@dataclass(frozen=True)
class Home:
    """The one folder (``BATCH_ETL_HOME``, default ``data``) below which all state lies."""

    root: UPath

    @classmethod
    def at(cls, root: str | os.PathLike[str]) -> Home:
        return cls(UPath(root).absolute())

    def records(self, pipeline: str, partition: str | None) -> UPath:
        return self.root / "records" / pipeline / f"{partition_stem(partition)}.parquet"

    def results(self, endpoint: str, pipeline: str, partition: str | None) -> UPath:
        folder = self.root / "results" / quote(endpoint, safe="") / pipeline
        return folder / f"{partition_stem(partition)}.parquet"

    def transform(self, transform_id: str) -> UPath:
        return self.root / "transforms" / transform_id

    def answers(self, endpoint: str) -> UPath:
        return self.root / "answers" / quote(endpoint, safe="")

    @property
    def ledger(self) -> UPath:
        return self.root / "ledger.db"

    @property
    def queue(self) -> UPath:
        return self.root / "queue.db"

    @property
    def warehouse(self) -> UPath:
        """The published DuckDB file, which analysts open: a link to the newest copy."""
        return self.root / "warehouse.duckdb"

    @property
    def report(self) -> UPath:
        """The page of cost, volume, quality and latency."""
        return self.root / "report.html"

    @property
    def warehouse_working(self) -> UPath:
        """The DuckDB file that loads write."""
        return self.root / "warehouse" / "working.duckdb"

    @property
    def dagster(self) -> UPath:
        return self.root / "dagster"

    @property
    def emulator(self) -> UPath:
        return self.root / "emulator"


def partition_stem(partition: str | None) -> str:
    """A partition key as a file stem: unsafe characters percent-encoded, so any key is one file.

    What is too long for a file's name is cut, and ends with a digest of the whole; the ``%-``
    between them is in no key that is encoded.
    """
    if partition is None:
        return UNPARTITIONED
    stem = quote(partition, safe=" ,=+@()")
    if stem.startswith(".") or stem == UNPARTITIONED:
        stem = f"%{ord(stem[0]):02X}{stem[1:]}"
    if len(stem) <= _STEM_BYTES:
        return stem
    return f"{stem[:160]}%-{hashlib.sha256(stem.encode()).hexdigest()[:32]}"


@contextmanager
def replacing(path: UPath, what: str = "file") -> Generator[UPath]:
    """Yield a temporary path beside ``path``: synced and renamed on success, else removed.

    ``what`` it is names the rename among the effects.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{path.name}.{uuid.uuid4().hex[:12]}.tmp"
    try:
        yield temporary
        with effect(f"{what} renamed"):
            _settle(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise


def is_local(path: UPath) -> bool:
    """Whether a path is on this machine's disks, not in an object store."""
    return path.protocol in ("", "file", "local")


def _settle(temporary: UPath, path: UPath) -> None:
    if not is_local(temporary):
        temporary.rename(path)
        return
    with open(str(temporary), "rb+") as file:
        os.fsync(file.fileno())
    os.replace(str(temporary), str(path))
    sync_folder(str(path.parent))


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Have the names in a local folder on disk: what was renamed there stays so."""
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


_ZSTD = {"compression": "zstd", "compression_level": 1}


def lean_options(schema: pa.Schema, noise: Sequence[str] = ()) -> dict[str, Any]:
    """Options of a Parquet writer for columns of unique values, beside those of dictionaries.

    Numbers become small by their differences, and need no compression then. What is random (binary
    of fixed size, and text columns that are named ``noise``) is kept as it is: compression would
    cost more than all else and gain little.
    """
    words = [field.name for field in schema if pa.types.is_dictionary(field.type)]
    numbers = [field.name for field in schema if _is_number(field.type)]
    random = [field.name for field in schema if pa.types.is_fixed_size_binary(field.type)]
    as_they_are = {*numbers, *random, *noise}
    return {
        "use_dictionary": words,
        "write_statistics": False,
        "column_encoding": dict.fromkeys(numbers, "DELTA_BINARY_PACKED"),
        "compression": {name: "lz4" for name in schema.names if name not in as_they_are},
    }


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_timestamp(kind)


class ParquetSink:
    """Write Arrow batches to one Parquet file that appears only when the ``with`` body succeeds.

    Memory: at most ``ROWS_PER_GROUP`` rows or 64 MB, whichever comes first, are held before they
    become a row group.
    """

    _MAX_HELD_BYTES = 64 * 2**20
    _BATCH_OVERHEAD_BYTES = 4096  # what a batch costs beside its rows, for tiny batches

    def __init__(
        self,
        path: UPath,
        schema: pa.Schema,
        what: str = "file",
        *,
        lean: bool = False,
        noise: Sequence[str] = (),
        facts: Mapping[str, str] | None = None,
    ) -> None:
        """``lean``: nearly every value of a column is another one, unless the column's type is a
        dictionary. To look for values that stand twice, and for the least and the greatest of each
        group, costs as much as all the rest then. ``noise``: text columns of random letters.
        ``facts`` go into the file's metadata (:func:`facts_of`).
        """
        self.path = path
        self._what = what
        self._options = lean_options(schema, noise) if lean else _ZSTD
        self.schema = schema
        self.rows = 0
        self._facts = dict(facts or {})
        self._held: list[pa.RecordBatch] = []
        self._held_rows = 0
        self._held_bytes = 0

    def __enter__(self) -> Self:
        self._replacing = replacing(self.path, self._what)
        self._writer = pq.ParquetWriter(
            str(self._replacing.__enter__()),
            self.schema,
            **self._options,
        )
        return self

    def write(self, batch: pa.RecordBatch) -> None:
        """Take one batch of rows; its schema must equal the sink's."""
        if batch.num_rows == 0:
            return
        if self._held_rows + batch.num_rows > ROWS_PER_GROUP:
            self.flush()
        self._held.append(batch)
        self._held_rows += batch.num_rows
        self._held_bytes += batch.nbytes + self._BATCH_OVERHEAD_BYTES
        if self._held_rows >= ROWS_PER_GROUP or self._held_bytes >= self._MAX_HELD_BYTES:
            self.flush()

    @property
    def held_bytes(self) -> int:
        """Bytes of rows that wait for their row group."""
        return self._held_bytes

    def flush(self) -> None:
        """Write the waiting rows as a row group now, to free their memory."""
        if not self._held:
            return
        table = pa.Table.from_batches(self._held, self.schema)
        # words of several dictionaries would be written out one by one
        self._writer.write_table(table.unify_dictionaries(), row_group_size=ROWS_PER_GROUP)
        self.rows += self._held_rows
        self._held, self._held_rows, self._held_bytes = [], 0, 0

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.flush()
                self._writer.add_key_value_metadata(self._facts)
            self._writer.close()
        except BaseException as broken:
            self._replacing.__exit__(type(broken), broken, broken.__traceback__)
            raise
        self._replacing.__exit__(kind, error, trace)


def read_batches(
    path: UPath, columns: list[str] | None = None, rows: int = ROWS_PER_READ
) -> Iterator[pa.RecordBatch]:
    """Stream a Parquet file one row group at a time, in batches of at most ``rows`` rows."""
    with pq.ParquetFile(str(path), pre_buffer=False) as file:
        for group in range(file.num_row_groups):
            yield from file.iter_batches(
                rows, row_groups=[group], columns=columns, use_threads=False
            )


def read_table(path: UPath, columns: list[str] | None = None) -> pa.Table:
    """The columns of a Parquet file, whole."""
    with pq.ParquetFile(str(path), pre_buffer=False) as file:
        return file.read(columns, use_threads=False)


def row_count(path: UPath) -> int:
    """Rows of a Parquet file, read from its footer."""
    with pq.ParquetFile(str(path), pre_buffer=False) as file:
        return file.metadata.num_rows


def facts_of(path: UPath) -> dict[str, str]:
    """What a Parquet file's metadata says beside its schema."""
    with pq.ParquetFile(str(path), pre_buffer=False) as file:
        found = file.metadata.metadata or {}
    return {key.decode("utf-8", "replace"): found[key].decode("utf-8", "replace") for key in found}


def content_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class RowsOf:
    """Rows of a stream of record batches, as many at a time as are asked for."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._held: list[pa.RecordBatch] = []

    def next(self, rows: int) -> pa.RecordBatch | None:
        """The next rows, as one batch; None where there are fewer, and ever after."""
        taken: list[pa.RecordBatch] = []
        while rows:
            batch = self._held.pop() if self._held else next(self._batches, None)
            if batch is None:
                return None
            taken.append(batch.slice(0, rows))
            if batch.num_rows > rows:
                self._held.append(batch.slice(rows))
            rows -= taken[-1].num_rows
        return taken[0] if len(taken) == 1 else pa.concat_batches(taken)
