"""Records and results of partitions -> typed rows, all of one call in one transaction.

For each partition: the files are checked against each other (one result a record, the endpoint that
was said), the table is made to fit (``evolution``), the partition's old rows are deleted
(``earlier`` keeps what another task version had answered) and the new ones inserted, but for those
whose record has another id than their result; so the partition has as many rows as records, or the
load is refused. Rows that would be the same stay where they are (``unchanged``). Doubtful answers
are looked at (``misfits``), the records in review get what people decided (``decisions``), rows
that are not their record's newest any more are marked (``newest``), and the views are made to fit
(``views``). Any failure rolls everything back.

Why DELETE and INSERT and no key: a primary key triples the time and the file; MERGE is about
twice as fast for one partition among ten, but needs a key to match on and a second statement for
NULL partitions, and both are far below a second for 100,000 rows.

``_batch_etl.loads`` remembers a digest of each partition's two files and of the columns; a load
whose digest is there already writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import duckdb

from batch_etl.errors import WarehouseError
from batch_etl.warehouse import bookkeeping, earlier, misfits, unchanged, views
from batch_etl.warehouse.answers import Answers, Misfit
from batch_etl.warehouse.bookkeeping import LoadedTable
from batch_etl.warehouse.columns import Column, TableSpec, layout, schema_of
from batch_etl.warehouse.decisions import Decided, folder_of
from batch_etl.warehouse.evolution import Change, Table
from batch_etl.warehouse.newest import Newest
from batch_etl.warehouse.partition import (
    Counts,
    Files,
    checked,
    digest_of,
    one,
    record_columns,
    refuse_others,
    results_sql,
)
from batch_etl.warehouse.rows import Rows
from batch_etl.warehouse.sql import comma, identifier
from batch_etl.warehouse.unchanged import partition_is

_ORDER = ("id", "record", "answer", "lineage")


@dataclass(frozen=True)
class PartitionReport:
    """What one partition's load did. ``misfits`` counts answers that the columns do not hold
    wholly; ``decided`` those of the answered that people gave.
    """

    partition: str | None
    rows: int
    answered: int
    review: int
    misfits: int = 0
    examples: tuple[Misfit, ...] = ()
    unchanged: bool = False
    decided: int = 0


@dataclass(frozen=True)
class Loaded:
    """All that one transaction did. ``decisions`` is how many rows were given a person's answer."""

    partitions: tuple[PartitionReport, ...]
    changes: tuple[Change, ...]
    decisions: int


class Load:
    """One call's work on an open connection, within its transaction."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        spec: TableSpec,
        endpoint: str,
        loaded_at: datetime,
        reviews: Path,
    ) -> None:
        self._connection = connection
        self._spec = spec
        self._endpoint = endpoint
        self._loaded_at = loaded_at
        self._reviews = reviews
        self._table = Table(connection, schema_of(endpoint), spec.name)
        self._newest = Newest(connection, self._table)
        self._columns: tuple[Column, ...] | None = None
        self._says: dict[str, str | None] = {}

    def run(self, partitions: Sequence[Files]) -> Loaded:
        """Load the partitions; the caller commits, or rolls back what was raised."""
        bookkeeping.prepare(self._connection)
        self._refuse_other_endpoint()
        views.give_way(self._connection, self._table.schema, self._table.name)
        if not partitions:
            return Loaded((), (), 0)
        reports = [self._partition(files) for files in partitions]
        table = self._current()
        decisions = self._decide(reports, table)
        self._newest.settle(table)
        views.rebuild(self._connection)
        return Loaded(tuple(reports), tuple(self._table.changes), decisions)

    def _loaded(self, columns: Sequence[Column]) -> LoadedTable:
        """The table as it is now, with record columns that only other partitions have."""
        names = {column.name.casefold() for column in columns}
        others = [
            Column(old.name, old.type, "record", old.source or old.name, old.comment)
            for key, old in self._table.existing().items()
            if old.role == "record" and key not in names and "__old" not in key
        ]
        mine = sorted([*columns, *others], key=lambda column: _ORDER.index(column.role))
        return LoadedTable(self._table.schema, self._endpoint, self._spec, tuple(mine))

    def _current(self) -> LoadedTable:
        """The table after this load, noted for whoever has no definitions."""
        if self._columns is not None:
            table = self._loaded(self._columns)
        else:
            table = self._described()
        bookkeeping.remember(self._connection, table)
        return table

    def _described(self) -> LoadedTable:
        """The table as it was noted, with the descriptions of today."""
        tables = bookkeeping.loaded_tables(self._connection)
        place = (self._table.schema, self._table.name)
        table = next(one for one in tables if (one.schema, one.name) == place)
        columns = [
            replace(column, description=self._says.get(column.name, column.description))
            for column in table.columns
        ]
        return LoadedTable(table.schema, table.endpoint, self._spec, tuple(columns))

    def _decide(self, reports: list[PartitionReport], table: LoadedTable) -> int:
        """Show what people decided, and count it in the reports; returns the rows changed."""
        folder = folder_of(self._reviews, self._spec, self._endpoint)
        decided = Decided(self._connection, table, folder)
        new = decided.take_new_files()
        shown = decided.show() if new or self._columns is not None else 0
        if new or shown:
            self._newest.decided()
        counts = decided.by_partition()
        for number, report in enumerate(reports):
            reports[number] = _with_decided(report, counts.get(report.partition, 0))
        return shown

    def _refuse_other_endpoint(self) -> None:
        other = bookkeeping.other_endpoint(self._connection, self._table.schema, self._endpoint)
        if other:
            raise WarehouseError(
                f"schema {self._table.schema} holds answers of endpoint {other!r} and never "
                f"mixes them with those of {self._endpoint!r}; give one of the two another id."
            )

    def _partition(self, files: Files) -> PartitionReport:
        record = record_columns(self._connection, files)
        names = [name for name, _ in record]
        wanted = layout(self._spec, record)
        self._says = {column.name: column.description for column in wanted}
        digest = digest_of(files, wanted)
        if known := self._known(files, digest):
            self._table.comment(self._spec.says, wanted)
            return known
        counts = checked(self._connection, files, self._endpoint)
        columns = self._table.fit(wanted)
        self._table.retire(columns)
        self._table.comment(self._spec.says, columns)
        self._columns = columns
        answers = Answers.of(self._spec, columns)
        earlier.keep(self._connection, self._table, columns[0].name, files, self._loaded_at)
        rows = Rows(files, names, wanted, columns, answers, self._loaded_at)
        self._newest.replacing(files.partition, columns[0])
        made = self._replace(rows, counts.rows)
        if made != counts.rows:
            refuse_others(self._connection, files, names, wanted[0])
            raise WarehouseError(
                f"{files}: {made} rows were made of {counts.rows} records; nothing was kept."
            )
        count, examples = misfits.settle(
            self._connection, answers, self._table, files, self._loaded_at
        )
        self._leave_no_twins(files, columns[0])
        self._remember(files, digest, counts, count)
        return PartitionReport(
            files.partition, counts.rows, counts.answered, counts.review, count, examples
        )

    def _known(self, files: Files, digest: str) -> PartitionReport | None:
        key = (self._table.schema, self._table.name, files.partition)
        facts = bookkeeping.known_load(self._connection, key, digest)
        if facts is None or not self._table.existing():
            return None
        return PartitionReport(files.partition, *facts, unchanged=True)

    def _replace(self, rows: Rows, count: int) -> int:
        """Put these rows in place of the partition's; returns how many it has then."""
        results = results_sql(rows.files)
        kept = unchanged.keep(self._connection, self._table, rows, count)
        if kept:
            fresh = f"(FROM {results} SEMI JOIN moved USING (record_row))"
            made = kept + self._insert(rows, fresh, count - kept)
        else:
            self._delete(rows.files)
            made = self._insert(rows, results, count)
        self._leave_no_partitions(rows.files)
        return made

    def _insert(self, rows: Rows, results: str, count: int) -> int:
        names = comma([identifier(column.name) for column in rows.columns])
        values = comma([rows.value(column) for column in rows.columns])
        insert = f"INSERT INTO {self._table.sql} ({names}) SELECT {values}"
        sources = rows.sources(results, count)
        return sum(one(self._connection, f"{insert} {source}")[0] for source in sources)

    def _delete(self, files: Files) -> None:
        """Make room: for a partition its own rows, for the only partition all rows."""
        self._connection.execute(
            f"DELETE FROM {self._table.sql} WHERE {partition_is(files.partition)}"
        )

    def _leave_no_partitions(self, files: Files) -> None:
        """Records that were loaded while the pipeline had partitions are in the only one now."""
        if files.partition is None:
            self._forget(
                f"DELETE FROM {self._table.sql} WHERE _partition IS NOT NULL",
                "the pipeline has no partitions any more",
            )

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
        key = (self._table.schema, self._table.name, files.partition)
        facts = (counts.rows, counts.answered, counts.review, misfits)
        bookkeeping.remember_load(
            self._connection, key, (self._endpoint, digest, *facts, self._loaded_at)
        )


def _with_decided(report: PartitionReport, decided: int) -> PartitionReport:
    return replace(
        report,
        answered=report.answered + decided,
        review=report.review - decided,
        decided=decided,
    )
