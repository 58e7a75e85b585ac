"""``batch-etl cancel``: stop what a pipeline has open at the API, and keep what it bought."""

from __future__ import annotations

import time
from pathlib import Path

import click

from batch_etl.batches.ledger import TransformRow
from batch_etl.batches.runner import Runner
from batch_etl.commands import emulator, project
from batch_etl.resources import runner_of


def cancel(home: Path | None, pipeline: str) -> None:
    """Cancel every open transform of the pipeline, and wait until its batches have ended."""
    settings = project.settings_at(home)
    settings.require_endpoint()
    with project.ledger(settings) as ledger:
        project.require_transforms(ledger, pipeline)
    with emulator.if_needed(settings):
        settings = project.settings_at(None)
        with runner_of(settings) as runner:
            rows = runner.open_transforms(pipeline)
            for row in rows:
                _cancel(runner, row)
    if not rows:
        click.echo(f"{pipeline}: nothing is open")


def _cancel(runner: Runner, row: TransformRow) -> None:
    progress = runner.cancel(row.id)
    while progress.batches_open or progress.held_by_other:
        time.sleep(min(progress.wait_s, 5.0))
        progress = runner.cancel(row.id)
    click.echo(
        f"{row.pipeline}: transform {row.id} was cancelled, {progress.batches} batch(es); "
        "what they had answered is kept and will not be bought again"
    )
