"""Load: records and results (Parquet) -> typed DuckDB tables that analysts query.

Two files. Loads write the *working* file, one at a time; :meth:`Warehouse.publish` swaps a copy
of it in as the *published* file, the only one that people open. So a reader never blocks a load
and a load never breaks a reader. Both can be rebuilt from the Parquet files.

A pipeline is one table; the endpoint that answered chooses the schema: ``main`` for the real API,
``emulator``, ``custom_...``; a table never mixes endpoints. ``_batch_etl`` is this module's own.

    types        JSON Schema -> DuckDB types; what a changed type becomes        pure
    columns      which columns, in which order, filled from what                 pure
    answers      JSON text -> typed values; what does not fit is kept and said
    misfits      those answers of a partition, looked at one by one
    evolution    a table that exists meets the columns that are wanted
    partition    one partition's two files, checked against each other
    rows         the rows that they make, as SQL                                pure
    unchanged    rows that they would make again just so, kept
    load         one transaction: check, fit, replace the partition, remember
    earlier      answers that a changed task replaces, kept for comparison
    decisions    what people decided on records in review: files, shown in the table
    newest       rows that a newer one of the same record supersedes, marked
    history      the ledger's transforms and batches, as the caller hands them over
    made         tables that are made whole each time: an evaluation's
    views        what analysts find beside the tables
    review       the records in review, counted and as text
    contents     all tables and views with their columns and comments
    export       a table or view as Parquet or CSV
    texts        a column as text files, one a row
    bookkeeping  the small tables of ``_batch_etl``
    publish      copy and rename
    connection   one writer, short, always closed
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb
from upath import UPath

from batch_etl.effects import effect
from batch_etl.errors import WarehouseError
from batch_etl.files import is_local
from batch_etl.warehouse import bookkeeping, connection, made, publish, views
from batch_etl.warehouse.answers import Misfit
from batch_etl.warehouse.bookkeeping import LoadedTable, loaded_partitions, loaded_tables
from batch_etl.warehouse.columns import TableSpec, schema_of
from batch_etl.warehouse.connection import Settings, WarehouseBusy
from batch_etl.warehouse.contents import (
    ColumnInfo,
    Relation,
    TableInfo,
    dictionary,
    relations,
    table_info,
)
from batch_etl.warehouse.decisions import (
    Decided,
    Decision,
    Standing,
    check_unmoved,
    folder_of,
    standings,
    write,
)
from batch_etl.warehouse.evolution import Change, Table
from batch_etl.warehouse.export import export, format_of
from batch_etl.warehouse.history import Row, batches_table, merge, transforms_table
from batch_etl.warehouse.load import Load, PartitionReport
from batch_etl.warehouse.newest import Newest
from batch_etl.warehouse.partition import Files
from batch_etl.warehouse.texts import export_texts

__all__ = [
    "Change",
    "ColumnInfo",
    "Decision",
    "LoadReport",
    "LoadedTable",
    "Misfit",
    "PartitionLoad",
    "PartitionReport",
    "Relation",
    "Settings",
    "Standing",
    "TableInfo",
    "TableSpec",
    "Warehouse",
    "WarehouseBusy",
    "dictionary",
    "export",
    "export_texts",
    "format_of",
    "loaded_partitions",
    "loaded_tables",
    "relations",
    "schema_of",
    "standings",
    "table_info",
]


@dataclass(frozen=True)
class PartitionLoad:
    """One partition to load: its key (None: the pipeline has none) and its two Parquet files."""

    partition: str | None
    records: UPath
    results: UPath


@dataclass(frozen=True)
class LoadReport:
    """What one load did: per partition, to the columns, and the table as it is now."""

    table: TableInfo
    partitions: tuple[PartitionReport, ...]
    changes: tuple[Change, ...]
    decisions: int = 0
    """Rows that this load gave an answer which a person had decided on."""

    @property
    def rows(self) -> int:
        """Rows of the partitions of this call."""
        return sum(partition.rows for partition in self.partitions)

    @property
    def unchanged(self) -> bool:
        """True if the table had all of it already: nothing was written."""
        same = all(partition.unchanged for partition in self.partitions)
        return same and not self.changes and not self.decisions


class Warehouse:
    """The working and the published DuckDB file. Holds no connection between calls.

    ``reviews`` is the folder of what people decided; by default it lies beside ``published``.
    """

    def __init__(
        self,
        working: UPath,
        published: UPath,
        settings: Settings | None = None,
        *,
        reviews: UPath | None = None,
    ) -> None:
        self.working = _local(working)
        self.published = _local(published)
        self.reviews = _local(reviews) if reviews else self.published.parent / "reviews"
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
        with self._transaction(f"table {spec.name}") as tx:
            done = Load(tx, spec, endpoint, datetime.now(UTC), self.reviews).run(files)
            info = table_info(tx, schema_of(endpoint), spec.name)
        return LoadReport(info, done.partitions, done.changes, done.decisions)

    def load_history(self, transforms: Iterable[Row], batches: Iterable[Row]) -> int:
        """Bring the history that the views show up to date; returns the rows that were not.

        Rows are mappings as ``history`` describes them; they are merged by their ``id``.
        """
        rows = {"transforms": transforms_table(transforms), "batches": batches_table(batches)}
        publish.restore(self.working, self.published)
        with self._transaction("the history of batches") as tx:
            bookkeeping.prepare(tx)
            changed = sum(merge(tx, name, table) for name, table in rows.items())
            views.rebuild(tx)
        return changed

    def replace_tables(self, endpoint: str, tables: Mapping[str, made.MadeTable]) -> None:
        """Put made tables into the endpoint's schema, all in one transaction.

        Raises ``WarehouseError``, with nothing written, for a name that is a pipeline's.
        """
        publish.restore(self.working, self.published)
        with self._transaction(", ".join(tables)) as tx:
            made.replace(tx, schema_of(endpoint), tables)

    def decide(self, table: LoadedTable, decisions: Sequence[Decision], decided_by: str) -> Path:
        """Keep what a person decided, and show it in the working table; returns the file.

        Raises WarehouseError, with nothing written, if a record is no longer as it was when it was
        decided on. Once the file is there, the decisions show after the next load at the latest.
        """
        folder = folder_of(self.reviews, table.spec, table.endpoint)
        publish.restore(self.working, self.published)
        with self._transaction(f"table {table.qualified_name}") as tx:
            check_unmoved(tx, table, decisions)
            path = write(folder, table, decisions, decided_by)
            decided = Decided(tx, table, folder)
            decided.take_new_files()
            decided.show()
            if Newest(tx, Table(tx, table.schema, table.name)).settle_decisions(table):
                views.rebuild(tx)
        return path

    @contextmanager
    def _transaction(self, what: str) -> Iterator[duckdb.DuckDBPyConnection]:
        """Commit at the end, or leave the working file as it was."""
        with connection.writing(self.working, self.settings) as tx:
            tx.execute("BEGIN")
            try:
                yield tx
                with effect("warehouse committed"):
                    tx.execute("COMMIT")
            except duckdb.Error as error:
                with suppress(duckdb.TransactionException):  # a commit that failed has undone it
                    tx.execute("ROLLBACK")
                raise WarehouseError(
                    f"{what}: DuckDB refused it, nothing was written: {error}"
                ) from error
            except BaseException:
                tx.execute("ROLLBACK")
                raise

    def publish(self) -> None:
        """Swap a fresh copy of the working file in; open readers keep the one they have."""
        publish.publish(self.working, self.published, self.settings)

    @contextmanager
    def read_only(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection to the newest published copy."""
        with connection.reading(self.published) as open_connection:
            yield open_connection

    def table(self, name: str, endpoint: str) -> TableInfo:
        """A published table's columns and row count; WarehouseError if there is no such table."""
        with self.read_only() as open_connection:
            return table_info(open_connection, schema_of(endpoint), name)


def _local(path: UPath | os.PathLike[str] | str) -> Path:
    upath = UPath(path)
    if not is_local(upath):
        raise WarehouseError(
            f"{path}: DuckDB files and what is loaded into them must lie on a local disk."
        )
    return Path(upath.path)
