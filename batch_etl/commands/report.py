"""``batch-etl report``: the page of cost, volume, quality and latency, written without Dagster."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import click
from upath import UPath

from batch_etl.commands.tables import warehouse_at
from batch_etl.files import Home
from batch_etl.warehouse.report_page import write


def report(home: Path | None, to: Path | None, days: int) -> None:
    """Write the report of the last so many days to ``to``, or to its place in the home."""
    warehouse, settings = warehouse_at(home)
    path = UPath(to.absolute()) if to else Home.at(settings.home).report
    with warehouse.read_only() as connection:
        figures = write(connection, path, dt.datetime.now(dt.UTC), days)
    told = ", ".join(section.endpoint for section in figures.sections) or "nothing loaded yet"
    click.echo(f"{path} ({path.stat().st_size:,} bytes): {told}")
