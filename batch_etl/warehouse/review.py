"""The review queue as a person works on it: counted, listed, and as rows of text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb

from batch_etl.warehouse.bookkeeping import LoadedTable
from batch_etl.warehouse.columns import Column
from batch_etl.warehouse.sql import comma, identifier
from batch_etl.warehouse.types import Scalar

Connection = duckdb.DuckDBPyConnection

_ROWS_PER_BATCH = 1_000

CONTEXT = ("_outcome", "_reason", "_text")
"""Lineage that tells a person why a record is in review."""

KEY = ("_partition", "_request_key", "_decided_by", "_decided_at")
"""Lineage that says which row, asked what, a decision belongs to."""


@dataclass(frozen=True)
class Queue:
    """How much of a table is in review, by outcome, and what people have decided."""

    rows: int
    decided: int
    outcomes: dict[str, int]

    @property
    def open(self) -> int:
        return sum(self.outcomes.values())


def counted(connection: Connection, table: LoadedTable) -> Queue:
    """The queue's size, its commonest outcome first."""
    rows = connection.execute(
        "SELECT _outcome, count(*), count(*) FILTER (_state = 'review'), "
        f"count(*) FILTER (_decided_by IS NOT NULL) FROM {table.sql} "
        "GROUP BY _outcome ORDER BY 3 DESC, 1"
    ).fetchall()
    outcomes = {str(outcome): review for outcome, _, review, _ in rows if review}
    return Queue(sum(row[1] for row in rows), sum(row[3] for row in rows), outcomes)


def columns_of(table: LoadedTable) -> tuple[Column, ...]:
    """Id and record, why it is in review, the answer to fill in, and the keys."""
    lineage = {column.name: column for column in table.columns if column.role == "lineage"}
    return (
        *table.record_columns,
        *(lineage[name] for name in CONTEXT),
        *table.answer_columns,
        *(lineage[name] for name in KEY),
    )


def rows_of(
    connection: Connection, table: LoadedTable, *, decided: bool, limit: int | None = None
) -> Iterator[tuple[str | None, ...]]:
    """The records in review (with ``decided``: and those that people decided on) as text.

    In the order of ``columns_of``, by partition and id; what is nested is JSON.
    """
    chosen = "_state = 'review'" + (" OR _decided_by IS NOT NULL" if decided else "")
    found = connection.sql(
        f"SELECT {comma([_text(column) for column in columns_of(table)])} FROM {table.sql} "
        f"WHERE {chosen} ORDER BY _partition, {identifier(table.id_column.name)}"
        + (f" LIMIT {limit:d}" if limit is not None else "")
    )
    for batch in found.to_arrow_reader(_ROWS_PER_BATCH):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _text(column: Column) -> str:
    name = identifier(column.name)
    if column.name == "_decided_at":
        return f"strftime({name} AT TIME ZONE 'UTC', '%Y%m%dT%H%M%S%fZ')"
    if isinstance(column.type, Scalar):
        return f"{name}::VARCHAR"
    return f"to_json({name})::VARCHAR"
