"""Answers that a changed task is about to replace, kept so that versions can be compared.

A partition's old rows are deleted when it is loaded again. Where the new results are of another
task version, the old answers go to ``_batch_etl.earlier`` first, as JSON by the schema's own names
(a column that stepped aside speaks for its property). What a person decided is no version's answer.
"""

from __future__ import annotations

from datetime import datetime

import duckdb

from batch_etl.warehouse.bookkeeping import SCHEMA
from batch_etl.warehouse.evolution import Table
from batch_etl.warehouse.partition import Files, results_sql
from batch_etl.warehouse.sql import identifier, json_object

Connection = duckdb.DuckDBPyConnection


def keep(
    connection: Connection, table: Table, id_name: str, files: Files, replaced_at: datetime
) -> None:
    """Keep what the load of ``files`` will delete and no other version's answer replaces."""
    where = (
        "(? IS NULL OR _partition = ?) AND _state = 'answered' AND _decided_by IS NULL AND "
        "_task_version IN (SELECT unnest(?::VARCHAR[]))"
    )
    going = f"FROM {table.sql} WHERE {where}"
    versions = _replaced_versions(connection, table, files)
    if not versions:
        return
    scope = [files.partition, files.partition, versions]
    names = [table.schema, table.name]
    connection.execute(
        f"DELETE FROM {SCHEMA}.earlier e WHERE schema_name = ? AND table_name = ? AND EXISTS "
        f"(SELECT 1 {going} AND _task_version = e.task_version "
        "AND _partition IS NOT DISTINCT FROM e.partition)",
        [*names, *scope],
    )
    connection.execute(
        f"INSERT INTO {SCHEMA}.earlier SELECT ?, ?, _partition, {identifier(id_name)}::VARCHAR, "
        f"_task_version, _model, {_answer(connection, table)}, _answered_at, ? {going}",
        [*names, replaced_at, *scope],
    )


def _replaced_versions(connection: Connection, table: Table, files: Files) -> list[str]:
    """The task versions that the rows to be deleted have and the new results have not."""
    partition = files.partition
    old = connection.execute(
        f"SELECT DISTINCT _task_version FROM {table.sql} "
        "WHERE (? IS NULL OR _partition = ?) AND _task_version IS NOT NULL",
        [partition, partition],
    ).fetchall()
    if not old:
        return []
    new = connection.execute(f"SELECT DISTINCT task_version FROM {results_sql(files)}").fetchall()
    return sorted(version for (version,) in set(old) - set(new))


def _answer(connection: Connection, table: Table) -> str:
    """SQL: a row's answer as JSON text, whichever column holds each property."""
    rows = connection.execute(
        f"SELECT source, column_name FROM {SCHEMA}.columns "
        "WHERE schema_name = ? AND table_name = ? AND role = 'answer'",
        [table.schema, table.name],
    ).fetchall()
    holders: dict[str, list[str]] = {}
    for source, column in rows:
        holders.setdefault(source, []).append(f"to_json({identifier(column)})")
    parts = {source: f"coalesce({', '.join(found)})" for source, found in holders.items()}
    return f"{json_object(parts)}::VARCHAR"
