"""Which rows a newer row of the same record supersedes: marked by the load that makes it so.

A record's id may come back in a later partition. To find each record's newest row is to sort the
whole table, whatever a query asks for; so it is found once, by the load that brings the row: those
that are not the newest any more get ``true`` in the column ``_superseded``, and a query on the
newest rows is a filter like any other. The column comes with the first such row; most tables never
have one.

A load looks at the ids of the partitions that it replaces, and elsewhere at the rows that were the
newest till now, one a record: its work does not grow with the rows that are superseded already.
Only where a record's newest row has gone (its partition came without it, or it lost its answer) are
all rows of that record looked at.

``_batch_etl.newest`` has the tables whose marks are kept, and their id's column. One that is not
there (an earlier version of this program wrote it) or that has another id column by now is looked
at as a whole, once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb

from batch_etl.warehouse.bookkeeping import SCHEMA, LoadedTable, tables_in
from batch_etl.warehouse.columns import SUPERSEDED, Column
from batch_etl.warehouse.evolution import Table
from batch_etl.warehouse.partition import one
from batch_etl.warehouse.sql import comma, identifier, literal
from batch_etl.warehouse.unchanged import partition_is

NEWEST_FIRST = (
    "CASE WHEN regexp_matches(_partition, '^[0-9]{4}-[0-9]{2}-[0-9]{2}') THEN _partition END "
    "DESC NULLS LAST, _answered_at DESC NULLS LAST, _partition DESC, _request_key"
)
"""SQL: the order of a record's answered rows."""

_ROWS_PER_UPDATE = 2**20
"""Marks that are written at once: of more, the join that finds their rows leaves memory."""

_ANY_ROW = 2**63 - 1

Connection = duckdb.DuckDBPyConnection


@dataclass(frozen=True)
class Marks:
    """A table's marks are kept; in ``column``, or no row is superseded."""

    column: str | None


def marks(connection: Connection) -> dict[tuple[str, str], Marks]:
    """The tables whose marks are kept, by schema and name."""
    if "newest" not in tables_in(connection, SCHEMA):
        return {}
    rows = connection.execute(
        f"SELECT n.schema_name, n.table_name, any_value(d.column_name) FROM {SCHEMA}.newest n "
        f"LEFT JOIN {SCHEMA}.columns c ON c.schema_name = n.schema_name "
        "AND c.table_name = n.table_name AND c.role = ? AND c.source = ? "
        "LEFT JOIN duckdb_columns() d ON d.database_name = current_database() "
        "AND d.schema_name = c.schema_name AND d.table_name = c.table_name "
        "AND d.column_name = c.column_name GROUP BY ALL",
        [SUPERSEDED.role, SUPERSEDED.source],
    ).fetchall()
    return {(schema, name): Marks(column) for schema, name, column in rows}


class Newest:
    """The marks of one table, inside a transaction that changes its rows."""

    def __init__(self, connection: Connection, table: Table) -> None:
        self._connection = connection
        self._table = table
        self._replaced: list[str | None] = []
        self._decided = False
        self._has_gone = False

    def replacing(self, partition: str | None, id_column: Column) -> None:
        """Note a partition that is about to be replaced, and which of its rows are the newest."""
        self._replaced.append(partition)
        mark = self._mark()
        if mark is None or not self._is_kept_by(id_column):
            return
        into = "INSERT INTO gone" if self._has_gone else "CREATE OR REPLACE TEMP TABLE gone AS"
        self._connection.execute(
            f"{into} SELECT {identifier(id_column.name)} AS id, _partition AS partition, "
            f"_answered_at AS answered_at FROM {self._table.sql} "
            f"WHERE {partition_is(partition)} AND _state = 'answered' AND {mark} IS NULL"
        )
        self._has_gone = True

    def decided(self) -> None:
        """Note that rows were given a person's answer, or lost it."""
        self._decided = True

    def settle(self, table: LoadedTable) -> None:
        """Mark the rows that are superseded now, and unmark those that are not any more."""
        if not self._table.has_rowids:
            self._keep_by(None)
            return
        kept = self._is_kept_by(table.id_column)
        if kept and not self._replaced and not self._decided:
            return
        self._connection.execute(
            "CREATE OR REPLACE TEMP TABLE contested "
            f"(id {table.id_column.type.sql}, everywhere BOOLEAN)"
        )
        scope = _any_of(self._replaced) if kept else "true"
        for contest in self._contests(table, scope, kept=kept):
            self._connection.execute(f"INSERT INTO contested {contest}")
        if one(self._connection, "SELECT count(*) FROM contested") != (0,):
            self._rank(identifier(table.id_column.name), scope)
        if not kept:
            self._keep_by(table.id_column)

    def settle_decisions(self, table: LoadedTable) -> bool:
        """The same where people's decisions alone changed the rows; False: no marks are kept."""
        if not self._is_kept_by(table.id_column):
            return False
        self.decided()
        self.settle(table)
        return True

    def _is_kept_by(self, id_column: Column) -> bool:
        """Whether the marks are kept, by this id."""
        return "newest" in tables_in(self._connection, SCHEMA) and bool(
            self._connection.execute(
                f"SELECT 1 FROM {SCHEMA}.newest WHERE schema_name = ? AND table_name = ? "
                "AND id_column = ? AND id_type = ?",
                [self._table.schema, self._table.name, id_column.name, id_column.type.sql],
            ).fetchone()
        )

    def _keep_by(self, id_column: Column | None) -> None:
        key = [self._table.schema, self._table.name]
        self._connection.execute(
            f"DELETE FROM {SCHEMA}.newest WHERE schema_name = ? AND table_name = ?", key
        )
        if id_column is not None:
            self._connection.execute(
                f"INSERT INTO {SCHEMA}.newest VALUES (?, ?, ?, ?)",
                [*key, id_column.name, id_column.type.sql],
            )

    def _mark(self) -> str | None:
        """SQL: the marks' column, if the table has one."""
        for column in self._table.existing().values():
            if column.is_mark:
                return identifier(column.name)
        return None

    def _contests(self, table: LoadedTable, scope: str, *, kept: bool) -> Iterator[str]:
        """SQL: the ids whose rows must be ranked, and whether that are all of an id's rows, or
        those of ``scope`` and those that are not superseded.
        """
        name, mark, rows = identifier(table.id_column.name), self._mark(), self._table.sql
        answered = "_state = 'answered'"
        several = f"GROUP BY {name} HAVING count(*) FILTER ({answered}) > 1" + (
            f" OR bool_or({mark})" if mark else ""
        )
        yield f"SELECT {name}, false FROM {rows} WHERE {scope} {several}"
        yield f"SELECT {name}, true FROM {rows} WHERE {name} IS NULL {several}"
        if not kept:
            return
        elsewhere = f"({scope}) IS NOT TRUE AND {answered}" + (
            f" AND {mark} IS NULL" if mark else ""
        )
        if self._connection.execute(f"SELECT 1 FROM {rows} WHERE {elsewhere} LIMIT 1").fetchone():
            yield (
                f"SELECT DISTINCT {name}, false FROM {rows} WHERE {elsewhere} AND {name} IN "
                f"(SELECT {name} FROM {rows} WHERE {scope} AND {answered})"
            )
        if self._has_gone:
            yield (
                f"SELECT g.id, true FROM gone g WHERE NOT EXISTS (SELECT 1 FROM {rows} t "
                f"WHERE {scope} AND {answered} AND t.{name} = g.id "
                "AND t._partition IS NOT DISTINCT FROM g.partition "
                "AND coalesce(t._answered_at >= g.answered_at, g.answered_at IS NULL))"
            )
        if self._decided:
            yield (
                f"SELECT {name}, true FROM {rows} WHERE {name}::VARCHAR IN "
                f"(SELECT record_id FROM {SCHEMA}.decisions WHERE endpoint = "
                f"{literal(table.endpoint)} AND pipeline = {literal(table.pipeline)}) {several}"
            )

    def _rank(self, name: str, scope: str) -> None:
        """Rank the rows of the contested ids, and mark all but the first of each."""
        mark = self._mark() or identifier(self._table.add(SUPERSEDED).name)
        contested = f"{name} IN (SELECT id FROM contested"
        rivals = (
            f"({mark} IS NULL OR {scope}) AND {contested})",
            f"{mark} AND ({scope}) IS NOT TRUE AND {contested} WHERE everywhere)",
            f"{name} IS NULL",
        )
        columns = (
            f"rowid AS row, {mark} AS marked, {name} AS id, _state, _partition, _answered_at, "
            "_request_key"
        )
        union = " UNION ALL ".join(
            f"SELECT {columns} FROM {self._table.sql} WHERE {rows}" for rows in rivals
        )
        self._connection.execute(
            "CREATE OR REPLACE TEMP TABLE ranked AS SELECT row, superseded FROM (SELECT row, "
            "marked, CASE WHEN _state = 'answered' AND row_number() OVER (PARTITION BY id, _state "
            f"ORDER BY {NEWEST_FIRST}) > 1 THEN true END AS superseded FROM ({union})) "
            "WHERE superseded IS DISTINCT FROM marked"
        )
        self._write(mark)

    def _write(self, mark: str) -> None:
        """Write the marks that changed, in the order of the rows; many of them by stretches of the
        table. In another order an update takes forty times as long.
        """
        (count,) = one(self._connection, "SELECT count(*) FROM ranked")
        step = _ROWS_PER_UPDATE if count > _ROWS_PER_UPDATE else _ANY_ROW
        stretches = self._connection.execute(
            f"SELECT DISTINCT row // {step}, superseded FROM ranked ORDER BY ALL"
        ).fetchall()
        for stretch, superseded in stretches:
            between = f"BETWEEN {stretch * step} AND {stretch * step + step - 1}"
            value = "true" if superseded else "NULL"
            self._connection.execute(
                f"UPDATE {self._table.sql} SET {mark} = {value} WHERE rowid {between} AND rowid IN "
                f"(SELECT row FROM ranked WHERE row {between} AND "
                f"superseded IS NOT DISTINCT FROM {value})"
            )


def _any_of(partitions: list[str | None]) -> str:
    """SQL: whether a row is of one of the partitions."""
    named = [literal(partition) for partition in partitions if partition is not None]
    parts = [f"_partition IN ({comma(named)})"] if named else []
    if None in partitions:
        parts.append(partition_is(None))
    return f"({' OR '.join(parts)})" if parts else "false"
