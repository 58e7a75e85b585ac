"""What is in the file, as an analyst sees it: tables and views, their columns, their comments.

``dictionary`` is the same as a page in Markdown: the data dictionary. The schema ``_batch_etl`` is
nobody's to query, and is in neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import duckdb

from batch_etl.errors import WarehouseError
from batch_etl.warehouse.bookkeeping import SCHEMA
from batch_etl.warehouse.sql import qualified

Connection = duckdb.DuckDBPyConnection


@dataclass(frozen=True)
class ColumnInfo:
    """One column as an analyst sees it."""

    name: str
    type: str
    description: str | None


@dataclass(frozen=True)
class TableInfo:
    """One table: all its rows (every partition) and its columns in order."""

    schema: str
    name: str
    rows: int
    columns: tuple[ColumnInfo, ...]

    @property
    def qualified_name(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True)
class Relation:
    """A table or a view, its rows uncounted."""

    schema: str
    name: str
    kind: Literal["table", "view"]
    description: str | None
    columns: tuple[ColumnInfo, ...]

    @property
    def qualified_name(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def sql(self) -> str:
        return qualified(self.schema, self.name)


def table_info(connection: Connection, schema: str, name: str) -> TableInfo:
    """A table's columns and row count; WarehouseError if there is no such table."""
    columns = _columns(connection, schema, name)
    if not columns:
        raise WarehouseError(f"there is no table {schema}.{name}: load it first.")
    counted = connection.execute(f"SELECT count(*) FROM {qualified(schema, name)}").fetchone()
    return TableInfo(schema, name, counted[0] if counted else 0, columns)


def _columns(connection: Connection, schema: str, name: str) -> tuple[ColumnInfo, ...]:
    rows = connection.execute(
        "SELECT column_name, data_type, comment FROM duckdb_columns() "
        "WHERE database_name = current_database() AND schema_name = ? AND table_name = ? "
        "ORDER BY column_index",
        [schema, name],
    ).fetchall()
    return tuple(ColumnInfo(*row) for row in rows)


def relations(connection: Connection) -> tuple[Relation, ...]:
    """All tables and views: by schema (``main`` first), tables before views, by name."""
    rows = connection.execute(
        "SELECT schema_name, table_name, 'table', comment FROM duckdb_tables() "
        "WHERE database_name = current_database() AND NOT internal AND schema_name <> $own "
        "UNION ALL SELECT schema_name, view_name, 'view', comment FROM duckdb_views() "
        "WHERE database_name = current_database() AND NOT internal AND schema_name <> $own "
        "ORDER BY schema_name <> 'main', 1, 3, 2",
        {"own": SCHEMA},
    ).fetchall()
    return tuple(Relation(*row, columns=_columns(connection, row[0], row[1])) for row in rows)


def dictionary(found: Sequence[Relation]) -> str:
    """The data dictionary: every table and view with its columns, as Markdown."""
    lines = [
        "# Data dictionary",
        "",
        (
            "The tables and views of the warehouse, as its own comments describe them "
            "(`COMMENT ON`; in DuckDB `duckdb_columns()` lists them)."
        ),
    ]
    for schema, members in groupby(found, key=lambda relation: relation.schema):
        lines += ["", f"## Schema `{schema}`", "", _schema_says(schema)]
        for relation in members:
            lines += ["", *_relation(relation)]
    return "\n".join(lines) + "\n"


def _schema_says(schema: str) -> str:
    if schema == "main":
        return "Claude's answers."
    if schema == "emulator":
        return (
            "Answers made up by the emulator, a program; its dollars are what such a batch would "
            "have cost."
        )
    return "Answers of another server at `ANTHROPIC_BASE_URL`."


def _relation(relation: Relation) -> Iterator[str]:
    yield f"### {relation.kind.capitalize()} `{relation.name}`"
    if relation.description:
        yield ""
        yield _plain(relation.description)
    yield ""
    yield from _table(("column", "type", "meaning"), relation.columns)


def _table(head: Sequence[str], columns: Iterable[ColumnInfo]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for column in columns:
        says = _plain(column.description or "").replace("|", "\\|")
        yield f"| {_code(column.name)} | {_code(column.type)} | {says} |"


def _plain(text: str) -> str:
    """One line that Markdown shows as it is: no tags, no line breaks."""
    return " ".join(text.split()).replace("<", "&lt;")


def _code(text: str) -> str:
    fence = "``" if "`" in text else "`"
    pad = " " if "`" in text else ""
    shown = " ".join(text.split()).replace("|", "\\|")
    return f"{fence}{pad}{shown}{pad}{fence}"
