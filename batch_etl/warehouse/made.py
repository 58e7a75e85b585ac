"""Tables that are made whole from Arrow each time: what an evaluation came to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import duckdb
import pyarrow as pa

from batch_etl.errors import WarehouseError
from batch_etl.warehouse.bookkeeping import loaded_tables
from batch_etl.warehouse.sql import identifier, literal, qualified


class MadeTable(Protocol):
    """Rows, and the words for the table and its columns."""

    @property
    def rows(self) -> pa.Table: ...
    @property
    def description(self) -> str: ...
    @property
    def columns(self) -> Mapping[str, str]: ...


def replace(
    connection: duckdb.DuckDBPyConnection, schema: str, tables: Mapping[str, MadeTable]
) -> None:
    """Put these tables in place of those of the same names.

    Raises ``WarehouseError`` for a name that is a pipeline's table.
    """
    taken = {one.name: one.pipeline for one in loaded_tables(connection) if one.schema == schema}
    for name, table in tables.items():
        if name in taken:
            raise WarehouseError(
                f"table {schema}.{name} belongs to pipeline {taken[name]!r}: give the evaluation, "
                "or the pipeline's table, another name."
            )
        _replace(connection, qualified(schema, name), table)


def _replace(connection: duckdb.DuckDBPyConnection, sql: str, table: MadeTable) -> None:
    connection.register("made_rows", table.rows)
    try:
        connection.execute(f"CREATE OR REPLACE TABLE {sql} AS SELECT * FROM made_rows")
    finally:
        connection.unregister("made_rows")
    connection.execute(f"COMMENT ON TABLE {sql} IS {literal(table.description)}")
    for column, says in table.columns.items():
        connection.execute(f"COMMENT ON COLUMN {sql}.{identifier(column)} IS {literal(says)}")
