"""Load: records and results (Parquet) -> typed DuckDB tables that analysts query.

Two files. Loads write the *working* file, one at a time; :meth:`Warehouse.publish` swaps a copy
of it in as the *published* file, the only one that people open. So a reader never blocks a load
and a load never breaks a reader. Both can be rebuilt from the Parquet files.

A pipeline is one table; the endpoint that answered chooses the schema: ``main`` for the real API,
``emulator``, ``custom_...``; a table never mixes endpoints. ``_batch_etl`` is this module's own.

    types        JSON Schema -> DuckDB types; what a changed type becomes        pure
    columns      which columns, in which order, filled from what                 pure
    answers      JSON text -> typed values; what does not fit is kept and said
    evolution    a table that exists meets the columns that are wanted
    partition    one partition's two files, checked against each other
    load         one transaction: check, fit, replace the partition, remember
    publish      copy and rename
    connection   one writer, short, always closed
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb
from upath import UPath

from batch_etl.errors import WarehouseError
from batch_etl.warehouse import connection, publish
from batch_etl.warehouse.answers import Misfit
from batch_etl.warehouse.columns import TableSpec, schema_of
from batch_etl.warehouse.connection import Settings, WarehouseBusy
from batch_etl.warehouse.evolution import Change, Table
from batch_etl.warehouse.load import Load, PartitionReport
from batch_etl.warehouse.partition import Files

__all__ = [
    "Change",
    "ColumnInfo",
    "LoadReport",
    "Misfit",
    "PartitionLoad",
    "PartitionReport",
    "Settings",
    "TableInfo",
    "TableSpec",
    "Warehouse",
    "WarehouseBusy",
    "schema_of",
]


@dataclass(frozen=True)
class PartitionLoad:
    """One partition to load: its key (None: the pipeline has none) and its two Parquet files."""

    partition: str | None
    records: UPath
    results: UPath


@dataclass(frozen=True)
class ColumnInfo:
    """One column as an analyst sees it."""

    name: str
    type: str
    description: str | None


@dataclass(frozen=True)
class TableInfo:
    """One table: all its rows (every partition) and its columns in order."""

    schema: str
    name: str
    rows: int
    columns: tuple[ColumnInfo, ...]

    @property
    def qualified_name(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True)
class LoadReport:
    """What one load did: per partition, to the columns, and the table as it is now."""

    table: TableInfo
    partitions: tuple[PartitionReport, ...]
    changes: tuple[Change, ...]

    @property
    def rows(self) -> int:
        """Rows of the partitions of this call."""
        return sum(partition.rows for partition in self.partitions)

    @property
    def unchanged(self) -> bool:
        """True if the table had all of it already: nothing was written."""
        return all(partition.unchanged for partition in self.partitions) and not self.changes


class Warehouse:
    """The working and the published DuckDB file. Holds no connection between calls."""

    def __init__(self, working: UPath, published: UPath, settings: Settings | None = None) -> None:
        self.working = _local(working)
        self.published = _local(published)
        self.settings = settings or Settings()

    def load(self, spec: TableSpec, endpoint: str, loads: Sequence[PartitionLoad]) -> LoadReport:
        """Replace these partitions of the spec's table, all in one transaction.

        The same files again change nothing. Raises WarehouseError, with nothing written, for files
        that do not belong together, another endpoint's results or a column that cannot be; and
        WarehouseBusy when the working file stays locked.
        """
        files = [
            Files(load.partition, _local(load.records), _local(load.results)) for load in loads
        ]
        if len({file.partition for file in files}) < len(files):
            raise WarehouseError(f"table {spec.name}: a partition is given twice in one load.")
        publish.restore(self.working, self.published)
        with connection.writing(self.working, self.settings) as open_connection:
            return _loaded(open_connection, spec, endpoint, files)

    def publish(self) -> None:
        """Swap a fresh copy of the working file in; open readers keep the one they have."""
        publish.publish(self.working, self.published, self.settings)

    @contextmanager
    def read_only(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection to the published file.

        A process that still has an older published file open gets that one again.
        """
        with connection.reading(self.published) as open_connection:
            yield open_connection

    def table(self, name: str, endpoint: str) -> TableInfo:
        """A published table's columns and row count; WarehouseError if there is no such table."""
        with self.read_only() as open_connection:
            return _table_info(open_connection, schema_of(endpoint), name)


def _loaded(
    open_connection: duckdb.DuckDBPyConnection,
    spec: TableSpec,
    endpoint: str,
    files: Sequence[Files],
) -> LoadReport:
    open_connection.execute("BEGIN")
    try:
        done = Load(open_connection, spec, endpoint, datetime.now(UTC)).run(files)
        info = _table_info(open_connection, schema_of(endpoint), spec.name)
        open_connection.execute("COMMIT")
    except duckdb.Error as error:
        open_connection.execute("ROLLBACK")
        raise WarehouseError(
            f"table {spec.name}: DuckDB refused the load, nothing was written: {error}"
        ) from error
    except BaseException:
        open_connection.execute("ROLLBACK")
        raise
    return LoadReport(info, done.partitions, done.changes)


def _table_info(open_connection: duckdb.DuckDBPyConnection, schema: str, name: str) -> TableInfo:
    rows = open_connection.execute(
        "SELECT column_name, data_type, comment FROM duckdb_columns() "
        "WHERE database_name = current_database() AND schema_name = ? AND table_name = ? "
        "ORDER BY column_index",
        [schema, name],
    ).fetchall()
    if not rows:
        raise WarehouseError(f"there is no table {schema}.{name}: load it first.")
    table = Table(open_connection, schema, name)
    counted = open_connection.execute(f"SELECT count(*) FROM {table.sql}").fetchone()
    columns = tuple(ColumnInfo(*row) for row in rows)
    return TableInfo(schema, name, counted[0] if counted else 0, columns)


def _local(path: UPath | os.PathLike[str] | str) -> Path:
    upath = UPath(path)
    if upath.protocol not in ("", "file", "local"):
        raise WarehouseError(
            f"{path}: DuckDB files and what is loaded into them must lie on a local disk."
        )
    return Path(upath.path)
