"""Batch-size profiles: how large batches are for a pipeline that runs so often.

    daily            what the API takes: the fewest batches
    hourly           10,000 requests: a batch ends well before the next one begins
    near_real_time   500 requests: small batches end soonest, for runs every few minutes

A number in ``task.packing`` goes before the profile's. Packing changes no answer: it is not in the
task's fingerprint, and another profile buys nothing again.
"""

from __future__ import annotations

from typing import Literal

from batch_etl.batches.task import Packing, Task

Profile = Literal["daily", "hourly", "near_real_time"]

PACKING: dict[Profile, Packing] = {
    "daily": Packing(),
    "hourly": Packing(max_requests=10_000),
    "near_real_time": Packing(max_requests=500),
}


def packed(task: Task, profile: Profile | None) -> Task:
    """The task with the profile's packing, but for the numbers that it states itself."""
    if profile is None:
        return task
    stated = {name: getattr(task.packing, name) for name in task.packing.model_fields_set}
    packing = PACKING[profile].model_copy(update=stated)
    return task.model_copy(update={"packing": packing})
