"""Priming the prompt cache: one request goes first, alone; the rest follow when it has ended.

The requests of a batch run side by side, so each may write the same prompt to the cache before any
can read it. With ``prime_cache`` a transform of more than ``FEWEST`` requests sends a batch of one
first, and plans the rest when that has ended (whatever became of it), within the time to live of
what it wrote if the API is quick. Hits are the API's best effort all the same: the rate that came
of it is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from batch_etl.batches.keys import KeySet
from batch_etl.batches.ledger import BatchRow
from batch_etl.batches.lifecycle import OPEN_BATCH
from batch_etl.batches.plan import Others, measure
from batch_etl.batches.transform import Transform

FEWEST = 10
"""Up to so many requests are sent at once: nothing is gained by waiting."""

Stage = Literal["primer", "waiting", "rest"]


def stage(
    transform: Transform, sent: Sequence[BatchRow], others: Others, in_flight: KeySet
) -> Stage:
    """What is due: the one request, nothing while it is open, or all the others."""
    if not transform.task.prime_cache:
        return "rest"
    if sent:
        alone = len(sent) == 1 and sent[0].requests == 1 and sent[0].status in OPEN_BATCH
        return "waiting" if alone else "rest"
    return "primer" if measure(transform, others, in_flight).requests > FEWEST else "rest"


def cut(transform: Transform, due: Stage) -> Transform:
    """The transform as it is planned at this stage: the primer is a batch of one request."""
    if due != "primer":
        return transform
    alone = transform.task.packing.model_copy(update={"max_requests": 1})
    return replace(transform, task=transform.task.model_copy(update={"packing": alone}))
