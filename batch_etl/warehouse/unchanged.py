"""Rows of a loaded partition that its new files make again just so: they stay where they are.

After a run in which one record in a hundred changed, a load writes one row in a hundred, and the
file does not grow by the whole partition. Rows are compared by a hash of all their columns but
``_loaded_at``, which goes on saying when a row was written, and ``_superseded``. Never kept are
rows that a person decided on and rows whose answer is doubtful (``misfits``).

Where it does not pay, or the rows that stay are not to the last one those that need not be written
(a row that is there twice), nothing is kept: the partition is replaced as a whole.
"""

from __future__ import annotations

import duckdb

from batch_etl.warehouse.evolution import Existing, Table
from batch_etl.warehouse.partition import one, results_sql
from batch_etl.warehouse.rows import Rows
from batch_etl.warehouse.sql import comma, identifier, literal
from batch_etl.warehouse.types import PLAIN, ListOf, Struct

MIN_ROWS = 10_000
"""Smaller partitions are replaced: that takes no longer than to compare them."""

_MOST_CHANGED = 0.2
"""Share of rows beyond which a partition is replaced."""

_ONE_IN = 37
"""One result in so many tells whether a comparison is worth its time."""

Connection = duckdb.DuckDBPyConnection


def keep(connection: Connection, table: Table, rows: Rows, count: int) -> int:
    """Delete the partition's rows but those that stay; returns how many do: if none, none is
    deleted.

    The rest of the ``count`` rows is in the temporary table ``moved``, by ``record_row``.
    """
    existing = list(table.existing().values())
    if count < MIN_ROWS or not all(map(_is_comparable, existing)) or not table.has_rowids:
        return 0
    scope = partition_is(rows.files.partition)
    if not _is_promising(connection, table, rows, scope):
        return 0
    _hash_new_rows(connection, rows, existing, count)
    hashed = _hash({identifier(column.name): column for column in existing})
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE standing AS SELECT rowid AS row, {hashed} AS h "
        f"FROM {table.sql} WHERE {scope} AND _decided_by IS NULL"
    )
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE moved AS SELECT row, record_row, coalesce(s.h, n.h) AS h "
        "FROM standing s FULL JOIN hashes n ON s.h = n.h WHERE row IS NULL OR record_row IS NULL"
    )
    stay = _stay(connection, "standing", "row")
    enough = stay[0] >= count * (1 - _MOST_CHANGED)
    if stay != _stay(connection, "hashes", "record_row") or not enough:
        return 0
    connection.execute(
        f"DELETE FROM {table.sql} WHERE {scope} AND "
        "(_decided_by IS NOT NULL OR rowid IN (SELECT row FROM moved WHERE row IS NOT NULL))"
    )
    return stay[0]


def partition_is(partition: str | None) -> str:
    """SQL: whether a row is of the partition."""
    return "_partition IS NULL" if partition is None else f"_partition = {literal(partition)}"


def _is_comparable(column: Existing) -> bool:
    return _is_nested(column) or PLAIN.fullmatch(column.type.sql) is not None


def _is_nested(column: Existing) -> bool:
    return isinstance(column.type, ListOf | Struct)


def _is_promising(connection: Connection, table: Table, rows: Rows, scope: str) -> bool:
    """Whether the partition has rows, and most of some results' requests are among them."""
    if not one(connection, f"SELECT EXISTS (FROM {table.sql} WHERE {scope})")[0]:
        return False
    asked, known = one(
        connection,
        f"WITH asked AS MATERIALIZED (SELECT request_key FROM {results_sql(rows.files)} "
        f"WHERE record_row % {_ONE_IN} = 0) SELECT (SELECT count(*) FROM asked), count(*) "
        f"FROM {table.sql} WHERE {scope} AND _request_key IN (FROM asked)",
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
    plain = [
        sql for sql, column in values.items() if column.name != "_loaded_at" and not column.is_mark
    ]
    texts = [f"{sql}::VARCHAR" for sql, column in values.items() if _is_nested(column)]
    return f"hash({comma([*plain, *texts])})"


def _stay(connection: Connection, side: str, name: str) -> tuple[int, int]:
    """How many hashes of one side are on the other one too, and their sum: equal for the same
    hashes, each as often, in any order.
    """
    totals = "count(*), coalesce(sum(h::HUGEINT), 0)"
    all_of = one(connection, f"SELECT {totals} FROM {side}")
    moved = one(connection, f"SELECT {totals} FROM moved WHERE {name} IS NOT NULL")
    return all_of[0] - moved[0], all_of[1] - moved[1]
