"""What becomes of open batches when the waiting step is interrupted.

An interrupt is one of two things, told apart by the run's status. CANCELING: a user pressed
Terminate, and the pipeline's ``on_terminate`` decides. Anything else (a deploy, an eviction, Ctrl-C
at a terminal) is the machine's affair, and the batches go on: the next run picks them up.

    leave     the batches go on at the API; the next run collects them (default)
    cancel    they are cancelled, and what they had answered by then is kept
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import dagster as dg

from batch_etl.batches.runner import Runner
from batch_etl.errors import BatchEtlError

Choice = Literal["leave", "cancel"]

_PATIENCE_S = 60.0
"""How long a terminated step waits for its batches to end; the next run collects the rest."""


@contextmanager
def terminating(
    context: dg.AssetExecutionContext, runner: Runner, transform_id: str, choice: Choice
) -> Iterator[None]:
    """Cancel the transform's batches if a user terminates the run and ``choice`` says so."""
    try:
        yield
    except (dg.DagsterExecutionInterruptedError, KeyboardInterrupt):
        if choice == "cancel" and _by_a_user(context):
            _cancel(context, runner, transform_id)
        else:
            context.log.info(
                "interrupted: what transform %s has sent goes on at the API, and the next run of "
                "the same partitions collects it",
                transform_id,
            )
        raise


def _by_a_user(context: dg.AssetExecutionContext) -> bool:
    run = context.instance.get_run_by_id(context.run.run_id)
    return run is not None and run.status is dg.DagsterRunStatus.CANCELING


def _cancel(context: dg.AssetExecutionContext, runner: Runner, transform_id: str) -> None:
    until = time.monotonic() + _PATIENCE_S
    try:
        progress = runner.cancel(transform_id)
        while (progress.batches_open or progress.held_by_other) and time.monotonic() < until:
            time.sleep(min(progress.wait_s, 2.0))
            progress = runner.cancel(transform_id)
    except BatchEtlError as error:
        context.log.warning("transform %s could not be cancelled: %s", transform_id, error)
        return
    context.log.info(
        "transform %s was cancelled, %d batch(es) still ending; what they had answered is kept",
        transform_id,
        progress.batches_open,
    )
