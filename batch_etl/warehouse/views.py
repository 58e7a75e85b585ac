"""The views that analysts find beside their tables, in each endpoint's schema.

| view                  | shows                                                                |
|-----------------------|----------------------------------------------------------------------|
| <table>_latest        | one row a record: its newest answer, without the lineage's details   |
| <table>_review        | the review queue: records without an answer, and why                 |
| <table>_raw           | each answer as one JSON value, with the model's own text             |
| <table>_disagreements | records whose answer differs from that of an earlier task version    |
| batches, transforms   | what was sent, how long it took, how it ended, what it cost          |
| cost_by_day           | the same by day, pipeline, model and endpoint                        |

What a view shows follows from its table's columns alone (and from which of its rows are marked:
``newest``), so views are values (``view``, made in ``table_views`` and ``history_views``), written
into the file only when one of them has changed. A
schema's views see the answers and the money of one endpoint only, as its tables do, and name it in
a column.

A table goes before a view of the same name: the view is then called ``<name>_view``.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import duckdb

from batch_etl.warehouse.bookkeeping import SCHEMA, LoadedTable, loaded_tables, tables_in
from batch_etl.warehouse.history_views import history_views
from batch_etl.warehouse.newest import marks
from batch_etl.warehouse.sql import identifier, literal, qualified
from batch_etl.warehouse.table_views import views_of
from batch_etl.warehouse.view import View

Connection = duckdb.DuckDBPyConnection


def rebuild(connection: Connection) -> None:
    """Bring the views of every schema up to date; writes nothing where they are."""
    by_schema: dict[tuple[str, str], list[LoadedTable]] = {}
    for table in loaded_tables(connection):
        by_schema.setdefault((table.schema, table.endpoint), []).append(table)
    kept = marks(connection)
    for (schema, endpoint), tables in by_schema.items():
        of_tables = [views_of(table, kept.get((schema, table.name))) for table in tables]
        wanted = [*history_views(endpoint), *itertools.chain.from_iterable(of_tables)]
        named = list(_named(wanted, tables_in(connection, schema)))
        digest = hashlib.sha256(repr((named, tables)).encode()).hexdigest()
        if (digest,) != connection.execute(_DIGEST, [schema]).fetchone():
            _replace(connection, schema, named, digest)


_DIGEST = f"SELECT digest FROM {SCHEMA}.views WHERE schema_name = ?"


def _named(views: Iterable[View], tables: set[str]) -> Iterator[View]:
    taken = {name.casefold() for name in tables}
    for view in views:
        name = view.name
        while name.casefold() in taken:
            name += "_view"
        taken.add(name.casefold())
        yield replace(view, name=name)


def _replace(connection: Connection, schema: str, views: Sequence[View], digest: str) -> None:
    for name in _views_in(connection, schema):
        connection.execute(f"DROP VIEW {qualified(schema, name)}")
    for view in views:
        name = qualified(schema, view.name)
        connection.execute(f"CREATE VIEW {name} AS {view.select}")
        connection.execute(f"COMMENT ON VIEW {name} IS {literal(view.description)}")
        for column in view.columns:
            target = f"{name}.{identifier(column.name)}"
            connection.execute(f"COMMENT ON COLUMN {target} IS {literal(column.description)}")
    _forget(connection, schema)
    connection.execute(f"INSERT INTO {SCHEMA}.views VALUES (?, ?)", [schema, digest])


def _views_in(connection: Connection, schema: str) -> list[str]:
    rows = connection.execute(
        "SELECT view_name FROM duckdb_views() "
        "WHERE database_name = current_database() AND schema_name = ? AND NOT internal",
        [schema],
    ).fetchall()
    return [name for (name,) in rows]


def give_way(connection: Connection, schema: str, table: str) -> None:
    """Drop a view that has the name of a table to be; :func:`rebuild` makes it by another."""
    for name in _views_in(connection, schema):
        if name.casefold() == table.casefold():
            connection.execute(f"DROP VIEW {qualified(schema, name)}")
            _forget(connection, schema)


def _forget(connection: Connection, schema: str) -> None:
    connection.execute(f"DELETE FROM {SCHEMA}.views WHERE schema_name = ?", [schema])
