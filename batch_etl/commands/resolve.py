"""``batch-etl resolve``: decide what becomes of a batch that the API cannot tell of any more."""

from __future__ import annotations

from pathlib import Path

import click

from batch_etl.commands import emulator, project
from batch_etl.resources import runner_of


def resolve(home: Path | None, batch: str, *, buy_again: bool) -> None:
    """Note the decision; the pipeline's next run acts on it."""
    with (
        emulator.if_needed(project.settings_at(home)),
        runner_of(project.settings_at(None)) as runner,
    ):
        row = runner.resolve(batch, buy_again=buy_again)
    what = "its requests will be sent again" if buy_again else "its records go to review"
    click.echo(f"{row.pipeline}: batch {batch} is given up; {what} by the pipeline's next run")
