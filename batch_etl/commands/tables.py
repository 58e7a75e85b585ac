"""Which table or view of the warehouse a command means, without loading any definitions.

The published file itself says which pipelines it holds. A name that is there for several endpoints
means that of the endpoint chosen in the environment; it is never guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import duckdb

from batch_etl import environment
from batch_etl.commands.project import settings_at
from batch_etl.errors import WarehouseError
from batch_etl.files import Home
from batch_etl.strict import did_you_mean
from batch_etl.warehouse import LoadedTable, Relation, Warehouse, loaded_tables, schema_of
from batch_etl.warehouse import relations as relations_of


def warehouse_at(home: Path | None) -> tuple[Warehouse, environment.Settings]:
    """The warehouse of the home, and the settings that said where it is."""
    settings = settings_at(home)
    place = Home.at(settings.home)
    return Warehouse(place.warehouse_working, place.warehouse), settings


def table_named(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    endpoint: str | None,
    settings: environment.Settings,
) -> LoadedTable:
    """The table of pipeline ``name`` (or called so). Raises ``WarehouseError``."""
    tables = _known(connection)
    found = [table for table in tables if name in (table.pipeline, table.name)]
    if not found:
        known = {table.pipeline for table in tables}
        raise WarehouseError(f"no table of pipeline {name!r} was loaded{did_you_mean(name, known)}")
    return _one(found, name, endpoint, settings)


def relation_named(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    endpoint: str | None,
    settings: environment.Settings,
) -> Relation:
    """The table of a pipeline, or the table or view called ``name`` or ``schema.name``."""
    owners = {table.qualified_name: table.pipeline for table in loaded_tables(connection)}
    relations = relations_of(connection)
    found = [one for one in relations if name in (one.name, one.qualified_name)]
    found = found or [one for one in relations if owners.get(one.qualified_name) == name]
    if not found:
        known = {one.name for one in relations} | set(owners.values())
        raise WarehouseError(
            f"there is no table, view or pipeline {name!r}{did_you_mean(name, known)}"
        )
    return _one(found, name, endpoint, settings)


def all_tables(connection: duckdb.DuckDBPyConnection, endpoint: str | None) -> list[LoadedTable]:
    """Every pipeline's table, or those of one endpoint."""
    return [table for table in _known(connection) if endpoint in (None, table.endpoint)]


def _known(connection: duckdb.DuckDBPyConnection) -> Sequence[LoadedTable]:
    tables = loaded_tables(connection)
    if not tables:
        raise WarehouseError(
            "the published file does not say which tables it has: an earlier version wrote it. "
            "Run each pipeline once more (what was bought is not bought again)."
        )
    return tables


class _Placed(Protocol):
    @property
    def schema(self) -> str: ...
    @property
    def qualified_name(self) -> str: ...


_P = TypeVar("_P", bound=_Placed)


def _one(
    found: Sequence[_P], name: str, endpoint: str | None, settings: environment.Settings
) -> _P:
    """The one of the endpoint asked for, or chosen in the environment, or the only one."""
    if endpoint is None and len(found) > 1 and settings.chosen:
        endpoint = environment.endpoint_name(settings.chosen, settings.base_url)
    chosen = [one for one in found if endpoint is None or one.schema == schema_of(endpoint)]
    if len(chosen) == 1:
        return chosen[0]
    there = ", ".join(one.qualified_name for one in found)
    if not chosen:
        raise WarehouseError(f"{name!r} has nothing of endpoint {endpoint!r}; there is {there}.")
    raise WarehouseError(f"{name!r} may be any of {there}: choose with --endpoint.")
