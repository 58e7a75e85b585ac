"""What the warehouse remembers beside the analysts' tables: the schema ``_batch_etl`` of its file.

Facts that are needed without the pipeline's definitions (which table belongs to which pipeline, and
what its columns are filled from), and the small tables that the views read. All of it can be made
again: from the Parquet files, the ledger and the decisions' files; only ``earlier``, the answers
that a changed task has replaced, lives as long as the warehouse does.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from batch_etl.warehouse.columns import Column, TableSpec
from batch_etl.warehouse.sql import literal, qualified
from batch_etl.warehouse.types import parse

SCHEMA = "_batch_etl"

_TABLES: dict[str, tuple[str, str]] = {
    "loads": (
        "Each partition of each table: what was loaded, and a digest of it.",
        (
            "schema_name VARCHAR, table_name VARCHAR, partition VARCHAR, endpoint VARCHAR, "
            "digest VARCHAR, row_count BIGINT, answered BIGINT, review BIGINT, misfits BIGINT, "
            "loaded_at TIMESTAMPTZ"
        ),
    ),
    "columns": (
        "What fills each column, those of earlier schemas included.",
        (
            "schema_name VARCHAR, table_name VARCHAR, column_name VARCHAR, role VARCHAR, "
            "source VARCHAR"
        ),
    ),
    "tables": (
        "Each table's pipeline, endpoint, output schema and columns as of its last load.",
        (
            "schema_name VARCHAR, table_name VARCHAR, pipeline VARCHAR, endpoint VARCHAR, "
            "id_column VARCHAR, output_schema VARCHAR, layout VARCHAR"
        ),
    ),
    "earlier": (
        "Answers that a changed task has replaced: the newest of each task version.",
        (
            "schema_name VARCHAR, table_name VARCHAR, partition VARCHAR, record_id VARCHAR, "
            "task_version VARCHAR, model VARCHAR, answer VARCHAR, answered_at TIMESTAMPTZ, "
            "replaced_at TIMESTAMPTZ"
        ),
    ),
    "decisions": (
        "What people decided on records in review, as the files under reviews/ have it.",
        (
            "endpoint VARCHAR, pipeline VARCHAR, file VARCHAR, record_id VARCHAR, "
            "partition VARCHAR, request_key VARCHAR, record VARCHAR, schema_digest VARCHAR, "
            "answer VARCHAR, decided_by VARCHAR, decided_at TIMESTAMPTZ"
        ),
    ),
    "transforms": (
        "The ledger's transforms, as of the last load.",
        (
            "id VARCHAR, pipeline VARCHAR, endpoint VARCHAR, partitions VARCHAR[], "
            "task_version VARCHAR, status VARCHAR, attempt BIGINT, counts VARCHAR, "
            "created_at TIMESTAMPTZ, updated_at TIMESTAMPTZ"
        ),
    ),
    "batches": (
        "The ledger's batches, as of the last load.",
        (
            "id VARCHAR, transform_id VARCHAR, endpoint VARCHAR, attempt BIGINT, status VARCHAR, "
            "requests BIGINT, payload_bytes BIGINT, claude_model VARCHAR, batch_id VARCHAR, "
            "planned_at TIMESTAMPTZ, submitted_at TIMESTAMPTZ, expires_at TIMESTAMPTZ, "
            "ended_at TIMESTAMPTZ, collected_at TIMESTAMPTZ, outcomes VARCHAR, "
            "input_tokens BIGINT, output_tokens BIGINT, cache_read_tokens BIGINT, "
            "cache_write_tokens BIGINT, cost_usd DECIMAL(38,12), standard_cost_usd DECIMAL(38,12)"
        ),
    ),
    "newest": (
        "Tables whose rows are marked where they are not the newest of their record.",
        "schema_name VARCHAR, table_name VARCHAR, id_column VARCHAR, id_type VARCHAR",
    ),
    "views": (
        "A digest of each schema's views, so that they are made anew only when they change.",
        "schema_name VARCHAR, digest VARCHAR",
    ),
}


def prepare(connection: duckdb.DuckDBPyConnection) -> None:
    """Create what is not there yet."""
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
    known = tables_in(connection, SCHEMA)
    for name, (comment, columns) in _TABLES.items():
        if name not in known:
            connection.execute(f"CREATE TABLE {SCHEMA}.{name} ({columns})")
            connection.execute(f"COMMENT ON TABLE {SCHEMA}.{name} IS {literal(comment)}")


def tables_in(connection: duckdb.DuckDBPyConnection, schema: str) -> set[str]:
    """The names of a schema's tables, views not among them."""
    rows = connection.execute(
        "SELECT table_name FROM duckdb_tables() "
        "WHERE database_name = current_database() AND schema_name = ?",
        [schema],
    ).fetchall()
    return {name for (name,) in rows}


LoadKey = tuple[str, str, str | None]
"""Schema, table, partition."""

_LOAD = "schema_name = ? AND table_name = ? AND partition IS NOT DISTINCT FROM ?"


def known_load(
    connection: duckdb.DuckDBPyConnection, key: LoadKey, digest: str
) -> tuple[int, int, int, int] | None:
    """Rows, answered, review and misfits of a partition that was loaded just so."""
    return connection.execute(
        f"SELECT row_count, answered, review, misfits FROM {SCHEMA}.loads "
        f"WHERE {_LOAD} AND digest = ?",
        [*key, digest],
    ).fetchone()


def remember_load(
    connection: duckdb.DuckDBPyConnection, key: LoadKey, facts: tuple[object, ...]
) -> None:
    """``facts``: endpoint, digest, rows, answered, review, misfits, time."""
    connection.execute(f"DELETE FROM {SCHEMA}.loads WHERE {_LOAD}", key)
    connection.execute(
        f"INSERT INTO {SCHEMA}.loads VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", [*key, *facts]
    )


def other_endpoint(connection: duckdb.DuckDBPyConnection, schema: str, endpoint: str) -> str | None:
    """An endpoint but this one whose answers are in the schema."""
    row = connection.execute(
        f"SELECT endpoint FROM {SCHEMA}.loads WHERE schema_name = ? AND endpoint <> ?",
        [schema, endpoint],
    ).fetchone()
    return row[0] if row else None


@dataclass(frozen=True)
class LoadedTable:
    """A pipeline's table as its last load left it; ``columns`` have the table's own types."""

    schema: str
    endpoint: str
    spec: TableSpec
    columns: tuple[Column, ...]

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def pipeline(self) -> str:
        return self.spec.owner

    @property
    def qualified_name(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def sql(self) -> str:
        return qualified(self.schema, self.name)

    @property
    def id_column(self) -> Column:
        return self.columns[0]

    @property
    def record_columns(self) -> tuple[Column, ...]:
        """The id and the record's other columns."""
        return tuple(column for column in self.columns if column.role in ("id", "record"))

    @property
    def answer_columns(self) -> tuple[Column, ...]:
        return tuple(column for column in self.columns if column.role == "answer")


def loaded_tables(connection: duckdb.DuckDBPyConnection) -> tuple[LoadedTable, ...]:
    """All tables by name; none of a file that an earlier version of this program wrote."""
    if "tables" not in tables_in(connection, SCHEMA):
        return ()
    rows = connection.execute(
        "SELECT schema_name, table_name, pipeline, endpoint, id_column, output_schema, layout "
        f"FROM {SCHEMA}.tables ORDER BY schema_name, table_name"
    ).fetchall()
    return tuple(_table(*row) for row in rows)


def loaded_partitions(connection: duckdb.DuckDBPyConnection, table: LoadedTable) -> set[str | None]:
    """The partitions that were loaded into the table; None: it has none."""
    rows = connection.execute(
        f"SELECT partition FROM {SCHEMA}.loads WHERE schema_name = ? AND table_name = ?",
        [table.schema, table.name],
    ).fetchall()
    return {partition for (partition,) in rows}


def _table(  # noqa: PLR0917 - a row's columns, in order
    schema: str,
    name: str,
    pipeline: str,
    endpoint: str,
    id_column: str,
    output_schema: str | None,
    layout: str,
) -> LoadedTable:
    spec = TableSpec(
        name,
        id_column,
        output_schema=json.loads(output_schema) if output_schema else None,
        pipeline=pipeline,
    )
    columns = tuple(
        Column(part["name"], parse(part["type"]), part["role"], part["source"], part["description"])
        for part in json.loads(layout)
    )
    return LoadedTable(schema, endpoint, spec, columns)


def remember(connection: duckdb.DuckDBPyConnection, table: LoadedTable) -> None:
    """Write the table's facts down, where they differ from those that are there."""
    spec = table.spec
    schema = json.dumps(spec.output_schema) if spec.output_schema is not None else None
    facts = [table.endpoint, spec.owner, spec.id_column, schema, _layout(table.columns)]
    key = [table.schema, table.name]
    where = "schema_name = ? AND table_name = ?"
    shown = connection.execute(
        "SELECT endpoint, pipeline, id_column, output_schema, layout "
        f"FROM {SCHEMA}.tables WHERE {where}",
        key,
    ).fetchone()
    if shown == tuple(facts):
        return
    connection.execute(f"DELETE FROM {SCHEMA}.tables WHERE {where}", key)
    connection.execute(
        f"INSERT INTO {SCHEMA}.tables (schema_name, table_name, endpoint, pipeline, id_column, "
        "output_schema, layout) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [*key, *facts],
    )


def _layout(columns: Sequence[Column]) -> str:
    return json.dumps(
        [
            {
                "name": column.name,
                "type": column.type.sql,
                "role": column.role,
                "source": column.source,
                "description": column.description,
            }
            for column in columns
        ]
    )
