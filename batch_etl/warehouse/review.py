"""The review queue as a person works on it: counted, listed, and as rows of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
from upath import UPath

from batch_etl.errors import WarehouseError
from batch_etl.warehouse.bookkeeping import LoadedTable, known_load
from batch_etl.warehouse.columns import Column, TableSpec, layout
from batch_etl.warehouse.decisions import Standing, standings
from batch_etl.warehouse.partition import Files, digest_of, record_columns
from batch_etl.warehouse.sql import comma, identifier, literal
from batch_etl.warehouse.types import Scalar

if TYPE_CHECKING:
    from batch_etl.warehouse import PartitionLoad

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


@dataclass(frozen=True)
class Chosen:
    """Which records of the queue are meant: those that fit all that is given; empty: any."""

    partitions: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()


def in_review(connection: Connection, table: LoadedTable, chosen: Chosen) -> list[Standing]:
    """How the chosen records of the queue stand.

    Raises WarehouseError for an id, partition or outcome that the queue does not have at all.
    """
    id_text = f"{identifier(table.id_column.name)}::VARCHAR"
    given = {"_partition": chosen.partitions, id_text: chosen.ids, "_outcome": chosen.outcomes}
    for column, wanted in given.items():
        _check_there(connection, table, column, wanted)
    wheres = [
        f"{column} IN (SELECT unnest(?::VARCHAR[]))" for column, some in given.items() if some
    ]
    rows = connection.execute(
        f"SELECT {id_text}, _partition FROM {table.sql} "
        f"WHERE {' AND '.join(['_state = ?', *wheres])}",
        ["review", *(list(some) for some in given.values() if some)],
    ).fetchall()
    keys = set(rows)
    found = standings(connection, table, sorted({name for name, _ in keys}))
    return [standing for key, standing in sorted(found.items(), key=str) if key in keys]


def _check_there(
    connection: Connection, table: LoadedTable, column: str, wanted: Sequence[str]
) -> None:
    rows = connection.execute(
        f"SELECT DISTINCT {column} FROM {table.sql} WHERE _state = 'review' "
        f"AND {column} IN (SELECT unnest(?::VARCHAR[]))",
        [list(wanted)],
    ).fetchall()
    missing = sorted(set(wanted) - {str(value) for (value,) in rows})
    if missing:
        what = {"_partition": "partition", "_outcome": "outcome"}.get(column, "id")
        raise WarehouseError(
            f"table {table.qualified_name}: no record in review has the {what} "
            f"{', '.join(map(repr, missing[:3]))}; `batch-etl review list {table.pipeline}` shows "
            "which there are."
        )


def is_as_loaded(
    connection: Connection, spec: TableSpec, table: LoadedTable, load: PartitionLoad
) -> bool:
    """Whether the partition's files are those that its rows were made of."""
    files = Files(load.partition, Path(load.records.path), Path(load.results.path))
    digest = digest_of(files, layout(spec, record_columns(connection, files)))
    return known_load(connection, (table.schema, table.name, load.partition), digest) is not None


def rows_of_ids(
    connection: Connection, table: LoadedTable, records: UPath, ids: Sequence[str]
) -> list[tuple[int, str]]:
    """(row, id) of these records in their file, in its order."""
    id_text = f"{identifier(table.id_column.source)}::VARCHAR"
    return connection.execute(
        f"SELECT file_row_number, {id_text} FROM read_parquet({literal(records.path)}, "
        f"file_row_number=true) WHERE {id_text} IN (SELECT unnest(?::VARCHAR[])) ORDER BY 1",
        [list(ids)],
    ).fetchall()
