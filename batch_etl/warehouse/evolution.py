"""A table that exists meets the columns that a load wants: nothing is dropped, everything is said.

| the table has                       | the load wants      | what is done                       |
|-------------------------------------|---------------------|------------------------------------|
| nothing of that name                | a column            | added, NULL in old rows            |
| the column; its type can hold both  | another type        | kept, or widened in place          |
| the column; no type holds both      | another type        | old one renamed ``<name>__old<n>`` |
| the column, filled from elsewhere   | the name            | old one renamed ``<name>__old<n>`` |
| the column, nothing but NULL in it  | another type        | given the new type                 |
| a record's column                   | it as record_<name> | renamed with its values            |
| a column                            | not that name       | kept, NULL in new rows (retired)   |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import duckdb

from batch_etl.warehouse.columns import SUPERSEDED, Column, Role
from batch_etl.warehouse.sql import comma, identifier, literal, qualified
from batch_etl.warehouse.types import VARCHAR, DuckType, merged_answer, merged_record, parse

ChangeKind = Literal["created", "added", "widened", "set_aside", "renamed", "retired", "replaced"]


@dataclass(frozen=True)
class Change:
    """One thing that a load did to a table's columns."""

    kind: ChangeKind
    column: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind} {self.column}: {self.detail}"


@dataclass(frozen=True)
class Existing:
    """A column as the file has it. ``role`` and ``source`` are None if a load did not make it."""

    name: str
    type: DuckType
    comment: str | None
    role: Role | None
    source: str | None

    @property
    def is_mark(self) -> bool:
        """Whether it is the column of ``newest``."""
        return (self.role, self.source) == (SUPERSEDED.role, SUPERSEDED.source)


class Table:
    """One table of the working file, inside the load's transaction."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, schema: str, name: str) -> None:
        self._connection = connection
        self.schema = schema
        self.name = name
        self.sql = qualified(schema, name)
        self.changes: list[Change] = []
        self._seen: dict[str, Existing] | None = None

    def existing(self) -> dict[str, Existing]:
        """Columns by their case-folded name; empty if there is no table."""
        if self._seen is None:
            self._seen = self._read_columns()
        return self._seen

    @property
    def has_rowids(self) -> bool:
        """Whether ``rowid`` tells its rows apart: a column of that name would hide it."""
        return "rowid" not in self.existing()

    def _read_columns(self) -> dict[str, Existing]:
        rows = self._connection.execute(
            "SELECT d.column_name, d.data_type, d.comment, c.role, c.source "
            "FROM duckdb_columns() d LEFT JOIN _batch_etl.columns c "
            "ON c.schema_name = d.schema_name AND c.table_name = d.table_name "
            "AND c.column_name = d.column_name "
            "WHERE d.database_name = current_database() AND d.schema_name = ? AND d.table_name = ? "
            "ORDER BY d.column_index",
            [self.schema, self.name],
        ).fetchall()
        return {
            name.casefold(): Existing(name, parse(kind), comment, role, source)
            for name, kind, comment, role, source in rows
        }

    def fit(self, wanted: Sequence[Column]) -> tuple[Column, ...]:
        """Create or change the table so that it takes ``wanted``; returns them with its own
        types.
        """
        if not self.existing():
            return self._create(wanted)
        self._give_way(wanted)
        fitted = tuple(self._fit_column(column) for column in wanted)
        self._note(fitted)
        return fitted

    def _create(self, wanted: Sequence[Column]) -> tuple[Column, ...]:
        self._connection.execute(f"CREATE SCHEMA IF NOT EXISTS {identifier(self.schema)}")
        parts = [f"{identifier(column.name)} {column.type.sql}" for column in wanted]
        self._alter(f"CREATE TABLE {self.sql} ({comma(parts)})")
        self._seen = {c.name.casefold(): Existing(c.name, c.type, None, None, None) for c in wanted}
        self._changed("created", self.name, f"{len(wanted)} columns")
        self._note(wanted)
        return tuple(wanted)

    def _give_way(self, wanted: Sequence[Column]) -> None:
        """Move columns whose name now means something else."""
        existing = self.existing()
        homes: dict[tuple[str | None, str | None], str] = {
            (column.role, column.source): column.name for column in wanted
        }
        for column in wanted:
            old = existing.get(column.name.casefold())
            if old is None or old.role in (None, column.role):
                continue
            home = homes.get((old.role, old.source))
            if home is not None and home.casefold() not in existing:
                self._rename(old.name, home)
                self._changed("renamed", old.name, f"its values are now in {home}")
            else:
                self._set_aside(old, f"{column.name} is now the {column.role}'s")

    def _fit_column(self, column: Column) -> Column:
        old = self.existing().get(column.name.casefold())
        if old is None:
            return self._add(column, f"{column.type.sql}, NULL in rows loaded before")
        if old.type == column.type:
            return column
        if column.role in ("id", "record"):
            merged: DuckType | None = merged_record(old.type, column.type)
        else:
            merged = merged_answer(old.type, column.type)
        if merged not in (old.type, column.type) and self._is_empty(old):
            merged = column.type
        if merged is None:
            self._set_aside(old, f"{old.type.sql} cannot become {column.type.sql}")
            return self._add(column, column.type.sql)
        if merged != old.type:
            self._widen(old, merged)
        return replace(column, type=merged)

    def _is_empty(self, column: Existing) -> bool:
        query = f"SELECT 1 FROM {self.sql} WHERE {identifier(column.name)} IS NOT NULL LIMIT 1"
        return self._connection.execute(query).fetchone() is None

    def add(self, column: Column) -> Column:
        """Add a column of the warehouse's own, by its name or one like it that is free; it is NULL
        in all rows, and no change that a load wanted.
        """
        name, number = column.name, 2
        while name.casefold() in self.existing():
            name, number = f"{column.name}_{number}", number + 1
        added = replace(column, name=name)
        self._alter(f"ALTER TABLE {self.sql} ADD COLUMN {identifier(name)} {column.type.sql}")
        self._note([added])
        self.comment(None, [added])
        return added

    def _add(self, column: Column, detail: str) -> Column:
        name, kind = identifier(column.name), column.type.sql
        self._alter(f"ALTER TABLE {self.sql} ADD COLUMN {name} {kind}")
        self._changed("added", column.name, detail)
        return column

    def _widen(self, old: Existing, kind: DuckType) -> None:
        name = identifier(old.name)
        value = converted(name, old.type, kind)
        self._alter(f"ALTER TABLE {self.sql} ALTER {name} TYPE {kind.sql} USING {value}")
        self._changed("widened", old.name, f"{old.type.sql} -> {kind.sql}")

    def _set_aside(self, old: Existing, why: str) -> None:
        taken = self.existing()
        number = 1
        while (name := f"{old.name}__old{number}").casefold() in taken:
            number += 1
        self._rename(old.name, name)
        self._changed("set_aside", old.name, f"old values are kept in {name}: {why}")

    def _rename(self, old: str, new: str) -> None:
        names = [self.schema, self.name, old]
        self._alter(f"ALTER TABLE {self.sql} RENAME {identifier(old)} TO {identifier(new)}")
        self._connection.execute(
            "UPDATE _batch_etl.columns SET column_name = ? "
            "WHERE schema_name = ? AND table_name = ? AND column_name = ?",
            [new, *names],
        )
        self._seen = None

    def retire(self, wanted: Sequence[Column]) -> None:
        """Report the columns that nothing fills any more."""
        names = {column.name.casefold() for column in wanted}
        for key, old in self.existing().items():
            if key not in names and "__old" not in key and not old.is_mark:
                self._changed("retired", old.name, "no longer asked for; NULL in new rows")

    def _note(self, columns: Sequence[Column]) -> None:
        """Remember what fills each column."""
        known = self.existing()
        pairs = [(known[column.name.casefold()], column) for column in columns]
        new = [
            (old.name, column.role, column.source)
            for old, column in pairs
            if (old.role, old.source) != (column.role, column.source)
        ]
        if not new:
            return
        names, roles, sources = map(list, zip(*new, strict=True))
        self._connection.execute(
            "DELETE FROM _batch_etl.columns WHERE schema_name = ? AND table_name = ? "
            "AND column_name IN (SELECT unnest(?::VARCHAR[]))",
            [self.schema, self.name, names],
        )
        self._connection.execute(
            "INSERT INTO _batch_etl.columns SELECT ?, ?, "
            "unnest(?::VARCHAR[]), unnest(?::VARCHAR[]), unnest(?::VARCHAR[])",
            [self.schema, self.name, names, roles, sources],
        )
        for old, column in pairs:
            self._now(replace(old, role=column.role, source=column.source))

    def comment(self, description: str | None, columns: Sequence[Column]) -> None:
        """Bring the table's and its columns' comments up to date; writes only what differs."""
        shown = self._connection.execute(
            "SELECT comment FROM duckdb_tables() WHERE database_name = current_database() "
            "AND schema_name = ? AND table_name = ?",
            [self.schema, self.name],
        ).fetchone()
        if description and shown != (description.replace("\0", ""),):
            self._connection.execute(f"COMMENT ON TABLE {self.sql} IS {literal(description)}")
        existing = self.existing()
        for column in columns:
            old = existing[column.name.casefold()]
            says = (column.description or "").replace("\0", "")
            if says and says != old.comment:
                self._connection.execute(
                    f"COMMENT ON COLUMN {self.sql}.{identifier(column.name)} IS {literal(says)}"
                )
                self._now(replace(old, comment=says))

    def _now(self, column: Existing) -> None:
        """Know a column as it has just been made, without reading all of them again."""
        self.existing()[column.name.casefold()] = column

    def _alter(self, statement: str) -> None:
        self._connection.execute(statement)
        self._seen = None

    def _changed(self, kind: ChangeKind, column: str, detail: str) -> None:
        change = Change(kind, column, detail)
        if change not in self.changes:
            self.changes.append(change)


def converted(sql: str, old: DuckType, new: DuckType) -> str:
    """SQL that turns the value ``sql`` of type ``old`` into type ``new``, which must hold it."""
    if old == new:
        return sql
    if hasattr(old, "item") or hasattr(old, "fields"):
        if new == VARCHAR:
            return f"to_json({sql})::VARCHAR"
        return f"TRY_CAST(to_json({sql}) AS {new.sql})"
    if new.sql == "JSON":
        return f"to_json({sql})"
    return f"CAST({sql} AS {new.sql})"
