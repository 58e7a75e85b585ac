"""``batch-etl export``: a table or view, or all of them, as Parquet or CSV files; or a column's
texts as files of their own.
"""

from __future__ import annotations

from pathlib import Path

import click
import duckdb

from batch_etl.commands.tables import relation_named, table_named, warehouse_at
from batch_etl.warehouse import (
    Relation,
    export,
    export_texts,
    format_of,
    relations,
    schema_of,
)


def export_one(home: Path | None, name: str, to: Path, endpoint: str | None) -> None:
    """Write one table or view of the published file to ``to``."""
    format_of(to)
    warehouse, settings = warehouse_at(home)
    with warehouse.read_only() as connection:
        _write(connection, relation_named(connection, name, endpoint, settings), to)


def export_column(
    home: Path | None, name: str, column: str, folder: Path, suffix: str, endpoint: str | None
) -> None:
    """Write the texts of one column of a pipeline's table to ``folder``, a file a row."""
    warehouse, settings = warehouse_at(home)
    with warehouse.read_only() as connection:
        table = table_named(connection, name, endpoint, settings)
        written = export_texts(connection, table, column, folder.absolute(), suffix)
    click.echo(f"{table.qualified_name}: {written:,} files in {folder}")


def export_all(home: Path | None, folder: Path, kind: str, endpoint: str | None) -> None:
    """Write every table and view (of one endpoint) to ``folder/<schema>.<name>.<kind>``."""
    if folder.exists() and not folder.is_dir():
        raise click.UsageError(f"--to {folder} is a file; with --all it must be a folder")
    warehouse, _ = warehouse_at(home)
    with warehouse.read_only() as connection:
        for relation in relations(connection):
            if endpoint is None or relation.schema == schema_of(endpoint):
                _write(connection, relation, folder / f"{relation.qualified_name}.{kind}")


def _write(connection: duckdb.DuckDBPyConnection, relation: Relation, to: Path) -> None:
    rows = export(connection, relation, to.absolute())
    click.echo(f"{relation.qualified_name}: {rows:,} rows in {to} ({to.stat().st_size:,} bytes)")
