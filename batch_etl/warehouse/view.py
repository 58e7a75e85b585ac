"""A view as a value: its columns, what each is made by and what it means. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from batch_etl.warehouse.columns import Column
from batch_etl.warehouse.sql import comma, identifier


@dataclass(frozen=True)
class ViewColumn:
    """One column: its name, the SQL it is made by, and its comment."""

    name: str
    sql: str
    description: str


@dataclass(frozen=True)
class View:
    """``SELECT <columns> <source>``."""

    name: str
    description: str
    columns: tuple[ViewColumn, ...]
    source: str

    @property
    def select(self) -> str:
        parts = [f"{column.sql} AS {identifier(column.name)}" for column in self.columns]
        return f"SELECT {comma(parts)} {self.source}"


def own(columns: Iterable[Column]) -> tuple[ViewColumn, ...]:
    """The table's columns as they are."""
    return tuple(
        ViewColumn(column.name, identifier(column.name), column.description or "")
        for column in columns
    )


def distinct(*columns: ViewColumn) -> tuple[ViewColumn, ...]:
    """The columns with names that differ; an id may be called like one that a view makes."""
    taken: set[str] = set()
    made: list[ViewColumn] = []
    for column in columns:
        name = column.name
        while name.casefold() in taken:
            name += "_"
        taken.add(name.casefold())
        made.append(replace(column, name=name))
    return tuple(made)
