"""Records and results of partitions -> typed rows, all of one call in one transaction.

For each partition: the files are checked against each other (one result a record, the same ids,
the endpoint that was said), the table is made to fit (``evolution``), the partition's old rows
are deleted and the new ones inserted, and the number inserted is compared with the number of
records. Any failure rolls everything back.

Why DELETE and INSERT and no key: a primary key triples the time and the file; MERGE is about
twice as fast for one partition among ten, but needs a key to match on and a second statement for
NULL partitions, and both are far below a second for 100,000 rows.

``_batch_etl.loads`` remembers a digest of each partition's two files and of the columns; a load
whose digest is there already writes nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import duckdb
import pyarrow as pa

from batch_etl.errors import WarehouseError
from batch_etl.warehouse.answers import Answers, Misfit
from batch_etl.warehouse.columns import Column, TableSpec, layout, lineage_sql, schema_of
from batch_etl.warehouse.evolution import Change, Table, converted
from batch_etl.warehouse.partition import (
    Counts,
    Files,
    checked,
    digest_of,
    one,
    record_columns,
    records_sql,
    results_sql,
)
from batch_etl.warehouse.sql import comma, identifier

_MISFITS_SHOWN = 5
_ROWS_PER_INSERT = 10_000

_BOOKKEEPING = """
CREATE SCHEMA IF NOT EXISTS _batch_etl;
CREATE TABLE IF NOT EXISTS _batch_etl.loads (
    schema_name VARCHAR, table_name VARCHAR, partition VARCHAR, endpoint VARCHAR, digest VARCHAR,
    row_count BIGINT, answered BIGINT, review BIGINT, misfits BIGINT, loaded_at TIMESTAMPTZ);
CREATE TABLE IF NOT EXISTS _batch_etl.columns (
    schema_name VARCHAR, table_name VARCHAR, column_name VARCHAR, role VARCHAR, source VARCHAR);
"""


@dataclass(frozen=True)
class PartitionReport:
    """What one partition's load did. ``misfits`` counts answers that the columns do not hold
    wholly.
    """

    partition: str | None
    rows: int
    answered: int
    review: int
    misfits: int = 0
    examples: tuple[Misfit, ...] = ()
    unchanged: bool = False


@dataclass(frozen=True)
class Loaded:
    """All that one transaction did."""

    partitions: tuple[PartitionReport, ...]
    changes: tuple[Change, ...]


class Load:
    """One call's work on an open connection, within its transaction."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        spec: TableSpec,
        endpoint: str,
        loaded_at: datetime,
    ) -> None:
        self._connection = connection
        self._spec = spec
        self._endpoint = endpoint
        self._loaded_at = loaded_at
        self._table = Table(connection, schema_of(endpoint), spec.name)

    def run(self, partitions: Sequence[Files]) -> Loaded:
        """Load the partitions; the caller commits, or rolls back what was raised."""
        self._connection.execute(_BOOKKEEPING)
        self._refuse_other_endpoint()
        reports = tuple(self._partition(files) for files in partitions)
        return Loaded(reports, tuple(self._table.changes))

    def _refuse_other_endpoint(self) -> None:
        other = self._connection.execute(
            "SELECT endpoint FROM _batch_etl.loads WHERE schema_name = ? AND endpoint <> ?",
            [self._table.schema, self._endpoint],
        ).fetchone()
        if other:
            raise WarehouseError(
                f"schema {self._table.schema} holds answers of endpoint {other[0]!r} and never "
                f"mixes them with those of {self._endpoint!r}; give one of the two another id."
            )

    def _partition(self, files: Files) -> PartitionReport:
        record = record_columns(self._connection, files)
        names = [name for name, _ in record]
        wanted = layout(self._spec, record)
        digest = digest_of(files, wanted)
        if known := self._known(files, digest):
            self._table.comment(self._spec.description, wanted)
            return known
        counts = checked(self._connection, files, self._endpoint, names, wanted[0])
        columns = self._table.fit(wanted)
        self._table.retire(columns)
        self._table.comment(self._spec.description, columns)
        misfits, examples = self._find_misfits(files, columns)
        self._delete(files)
        inserted = self._insert(files, names, columns, wanted)
        if inserted != counts.rows:
            raise WarehouseError(
                f"{files}: {inserted} rows were made of {counts.rows} records; nothing was kept."
            )
        self._leave_no_twins(files, columns[0])
        self._remember(files, digest, counts, misfits)
        return PartitionReport(
            files.partition, counts.rows, counts.answered, counts.review, misfits, examples
        )

    def _known(self, files: Files, digest: str) -> PartitionReport | None:
        row = self._connection.execute(
            "SELECT row_count, answered, review, misfits FROM _batch_etl.loads "
            "WHERE schema_name = ? AND table_name = ? AND partition IS NOT DISTINCT FROM ? "
            "AND digest = ?",
            [self._table.schema, self._table.name, files.partition, digest],
        ).fetchone()
        if row is None or not self._table.existing():
            return None
        return PartitionReport(files.partition, *row, unchanged=True)

    def _find_misfits(
        self, files: Files, columns: Sequence[Column]
    ) -> tuple[int, tuple[Misfit, ...]]:
        """Fill the temporary table ``misfits`` (record_row, paths); returns its size and
        examples.
        """
        self._connection.execute(
            "CREATE OR REPLACE TEMP TABLE misfits (record_row BIGINT, paths VARCHAR[])"
        )
        answers = Answers.of(self._spec, columns)
        found = answers.misfits(self._connection.cursor(), str(files.results))
        by_row = itertools.groupby(found, key=lambda pair: pair[0])
        count, examples = 0, list[Misfit]()
        rows = ((row, [misfit for _, misfit in group]) for row, group in by_row)
        while block := list(itertools.islice(rows, _ROWS_PER_INSERT)):
            count += len(block)
            examples += [misfit for _, group in block for misfit in group][:_MISFITS_SHOWN]
            self._keep_misfits(block)
        return count, tuple(examples[:_MISFITS_SHOWN])

    def _keep_misfits(self, block: list[tuple[int, list[Misfit]]]) -> None:
        rows = pa.table(
            {
                "record_row": pa.array([row for row, _ in block], pa.int64()),
                "paths": pa.array(
                    [[misfit.path for misfit in group] for _, group in block], pa.list_(pa.string())
                ),
            }
        )
        self._connection.register("misfits_block", rows)
        self._connection.execute("INSERT INTO misfits SELECT * FROM misfits_block")
        self._connection.unregister("misfits_block")

    def _insert(
        self,
        files: Files,
        record: list[str],
        columns: Sequence[Column],
        wanted: Sequence[Column],
    ) -> int:
        answers = Answers.of(self._spec, columns)
        source = {column.name: column.type for column in wanted}

        def value(column: Column) -> str:
            if column.role == "lineage":
                return lineage_sql(column, files.partition, self._loaded_at.isoformat())
            if column.role == "answer":
                return answers.value(column)
            sql = f"r.c{record.index(column.source)}"
            return converted(sql, source[column.name], column.type)

        names = comma([identifier(column.name) for column in columns])
        return one(
            self._connection,
            f"INSERT INTO {self._table.sql} ({names}) SELECT {comma([value(c) for c in columns])} "
            f"FROM (SELECT *, {answers.parsed} AS answer FROM {results_sql(files)}) p "
            f"JOIN {records_sql(files, len(record))} ON r.k = p.record_row"
            " LEFT JOIN misfits m ON m.record_row = p.record_row",
        )[0]

    def _delete(self, files: Files) -> None:
        """Make room: for a partition its own rows, for the only partition all rows."""
        if files.partition is not None:
            where = "_partition = ?"
            self._connection.execute(
                f"DELETE FROM {self._table.sql} WHERE {where}", [files.partition]
            )
            return
        self._connection.execute(f"DELETE FROM {self._table.sql} WHERE _partition IS NULL")
        self._forget(f"DELETE FROM {self._table.sql}", "the pipeline has no partitions any more")

    def _leave_no_twins(self, files: Files, id_column: Column) -> None:
        """Records that were loaded before the pipeline had partitions have moved into one."""
        if files.partition is None:
            return
        name = identifier(id_column.name)
        self._forget(
            f"DELETE FROM {self._table.sql} WHERE _partition IS NULL AND {name} IN "
            f"(SELECT {name} FROM {self._table.sql} WHERE _partition IS NOT NULL)",
            "loaded before the pipeline had partitions",
        )

    def _forget(self, delete: str, why: str) -> None:
        """Delete rows that another cut of the records left behind, and say so."""
        gone = one(self._connection, delete)[0]
        if not gone:
            return
        self._table.changes.append(Change("replaced", "_partition", f"{gone} rows, {why}"))
        self._connection.execute(
            "DELETE FROM _batch_etl.loads l WHERE schema_name = ? AND table_name = ? "
            f"AND NOT EXISTS (FROM {self._table.sql} t "
            "WHERE t._partition IS NOT DISTINCT FROM l.partition)",
            [self._table.schema, self._table.name],
        )

    def _remember(self, files: Files, digest: str, counts: Counts, misfits: int) -> None:
        key = [self._table.schema, self._table.name, files.partition]
        self._connection.execute(
            "DELETE FROM _batch_etl.loads WHERE schema_name = ? AND table_name = ? "
            "AND partition IS NOT DISTINCT FROM ?",
            key,
        )
        self._connection.execute(
            "INSERT INTO _batch_etl.loads VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                *key,
                self._endpoint,
                digest,
                counts.rows,
                counts.answered,
                counts.review,
                misfits,
                self._loaded_at,
            ],
        )
