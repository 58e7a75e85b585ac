"""Rows of a loaded partition that its new files make again just so: they stay where they are.

After a run in which one record in a hundred changed, a load writes one row in a hundred, and the
file does not grow by the whole partition. Rows are compared by a hash of all their columns but
``_loaded_at``, which goes on saying when a row was written. Never kept are rows that a person
decided on and rows whose answer is doubtful (``misfits``).

Where it does not pay, or the rows that stay are not to the last one those that need not be written
(a row that is there twice), nothing is kept: the partition is replaced as a whole.
"""

from __future__ import annotations

import re

import duckdb

from batch_etl.warehouse.evolution import Existing, Table
from batch_etl.warehouse.partition import one, results_sql
from batch_etl.warehouse.rows import Rows
from batch_etl.warehouse.sql import comma, identifier, literal
from batch_etl.warehouse.types import ListOf, Struct

MIN_ROWS = 10_000
"""Smaller partitions are replaced: that takes no longer than to compare them."""

_MOST_CHANGED = 0.2
"""Share of rows beyond which a partition is replaced."""

_ONE_IN = 37
"""One result in so many tells whether a comparison is worth its time."""

_PLAIN = re.compile(
    r"VARCHAR|JSON|BOOLEAN|U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER|FLOAT|DOUBLE|DECIMAL\(.*\)|DATE|"
    r"TIME|TIMESTAMP( WITH TIME ZONE|_S|_MS|_NS)?|UUID|BLOB"
)
"""Types whose values are equal exactly if they look the same."""

Connection = duckdb.DuckDBPyConnection


def keep(connection: Connection, table: Table, rows: Rows, count: int) -> int:
    """Delete the partition's rows but those that stay; returns how many do.

    The rest of the ``count`` rows is in the temporary table ``fresh``, by ``record_row``. If none
    stays, some rows may be left to delete, and ``fresh`` means nothing.
    """
    existing = list(table.existing().values())
    if count < MIN_ROWS or not all(map(_is_comparable, existing)):
        return 0
    scope = partition_is(rows.files.partition)
    if not _is_promising(connection, table, rows, scope):
        return 0
    _hash_new_rows(connection, rows, existing, count)
    hashed = _hash({identifier(column.name): column for column in existing})
    connection.execute(
        f"DELETE FROM {table.sql} WHERE {scope} AND (_decided_by IS NOT NULL OR "
        f"{hashed} NOT IN (SELECT h FROM hashes WHERE h IS NOT NULL))"
    )
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE kept AS SELECT {hashed} AS h FROM {table.sql} WHERE {scope}"
    )
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE fresh AS "
        "SELECT record_row FROM hashes ANTI JOIN kept USING (h)"
    )
    stay = _sum(connection, "kept")
    unwritten = _sum(connection, "hashes ANTI JOIN fresh USING (record_row)")
    enough = stay[0] >= count * (1 - _MOST_CHANGED)
    return stay[0] if stay == unwritten and enough else 0


def partition_is(partition: str | None) -> str:
    """SQL: whether a row is of the partition."""
    return "_partition IS NULL" if partition is None else f"_partition = {literal(partition)}"


def _is_comparable(column: Existing) -> bool:
    return _is_nested(column) or _PLAIN.fullmatch(column.type.sql) is not None


def _is_nested(column: Existing) -> bool:
    return isinstance(column.type, ListOf | Struct)


def _is_promising(connection: Connection, table: Table, rows: Rows, scope: str) -> bool:
    """Whether most of some results' requests are in the table already."""
    some = f"FROM {results_sql(rows.files)} WHERE record_row % {_ONE_IN} = 0"
    asked, known = one(
        connection,
        f"SELECT (SELECT count(*) {some}), count(*) FROM {table.sql} "
        f"WHERE {scope} AND _request_key IN (SELECT request_key {some})",
    )
    return known >= asked * (1 - _MOST_CHANGED)


def _hash_new_rows(
    connection: Connection, rows: Rows, existing: list[Existing], count: int
) -> None:
    """Fill the temporary table ``hashes``: a NULL where the row is to be written in any case."""
    columns = {column.name.casefold(): column for column in rows.columns}
    values: list[str] = []
    for number, old in enumerate(existing):
        column = columns.get(old.name.casefold())
        value = rows.value(column) if column and old.name != "_misfits" else "NULL"
        values.append(f"CAST({value} AS {old.type.sql}) AS v{number}")
    hashed = _hash({f"v{number}": old for number, old in enumerate(existing)})
    connection.execute("CREATE OR REPLACE TEMP TABLE hashes (record_row BIGINT, h UBIGINT)")
    for source in rows.sources(results_sql(rows.files), count):
        connection.execute(
            f"INSERT INTO hashes SELECT record_row, CASE WHEN NOT doubtful THEN {hashed} END FROM "
            f"(SELECT p.record_row, p.doubtful, {comma(values)} {source})"
        )


def _hash(values: dict[str, Existing]) -> str:
    """SQL: the hash of a row's values. Alone it does not tell an empty list or STRUCT from NULL."""
    plain = [sql for sql, column in values.items() if column.name != "_loaded_at"]
    texts = [f"{sql}::VARCHAR" for sql, column in values.items() if _is_nested(column)]
    return f"hash({comma([*plain, *texts])})"


def _sum(connection: Connection, source: str) -> tuple[int, int | None]:
    """How many hashes, and their sum: equal for the same hashes, each as often, in any order."""
    count, total = one(connection, f"SELECT count(*), sum(h::HUGEINT) FROM {source}")
    return count, total
