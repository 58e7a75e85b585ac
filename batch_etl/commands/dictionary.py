"""``batch-etl dictionary``: all tables, views and columns of the warehouse, with their meaning."""

from __future__ import annotations

from pathlib import Path

import click
from upath import UPath

from batch_etl import files
from batch_etl.commands.tables import warehouse_at
from batch_etl.warehouse import dictionary as page_of
from batch_etl.warehouse import relations, schema_of


def dictionary(home: Path | None, to: Path | None, endpoint: str | None) -> None:
    """Print the data dictionary as Markdown, or write it to ``to``."""
    warehouse, _ = warehouse_at(home)
    with warehouse.read_only() as connection:
        found = [
            relation
            for relation in relations(connection)
            if endpoint is None or relation.schema == schema_of(endpoint)
        ]
    page = page_of(found)
    if to is None:
        click.echo(page, nl=False)
        return
    with files.replacing(UPath(to.absolute())) as temporary:
        temporary.write_text(page, encoding="utf-8")
    click.echo(f"{len(found)} tables and views in {to}")
