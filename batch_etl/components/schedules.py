"""The ``schedule`` block of a pipeline: a cron expression, and which partitions a tick asks for.

    time partitions    the one that has closed last: by the tick's time less ``lag_hours``
    static partitions  all of them, in one run
    none               everything

Each tick asks once, even for a partition that was asked for before: what was bought is reused, and
records that came late are taken in. (A ``run_key`` would make Dagster drop such a tick, and with it
the second try after a failure.) Dagster's ``build_schedule_from_partitioned_job`` is not used: its
cron is that of the partitions and it knows no lag. A run for one partition carries its key, a run
for all of them the tags of a range, which is what the single-run backfill policy packs into full
batches.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import dagster as dg
import pydantic

from batch_etl.components.cron import Cron, TimeZone
from batch_etl.strict import Strict

RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
"""Dagster's tags of a run for all partitions from one to another."""

Definition = dg.PartitionsDefinition[str] | None
Asked = dg.RunRequest | dg.SkipReason


class Schedule(Strict):
    """When a pipeline runs by itself. A text is the same as ``cron`` alone."""

    cron: Cron = pydantic.Field(description="When: five cron fields, or @daily.")
    timezone: TimeZone | None = pydantic.Field(
        default=None, description="Of the cron; by default that of the partitions, else UTC."
    )
    default_status: Literal["running", "stopped"] = pydantic.Field(
        default="stopped", description="Until somebody switches it in the UI."
    )
    lag_hours: Annotated[float, pydantic.Field(ge=0)] = pydantic.Field(
        default=0, description="How long a time partition must have been closed, for late records."
    )

    @pydantic.model_validator(mode="before")
    @classmethod
    def _a_text_is_the_cron(cls, values: Any) -> Any:
        return {"cron": values} if isinstance(values, str) else values

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: Any, handler: pydantic.GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [{"type": "string"}, handler(core_schema)]}

    @property
    def status(self) -> dg.DefaultScheduleStatus:
        return dg.DefaultScheduleStatus[self.default_status.upper()]


def definitions(
    name: str, schedule: Schedule, assets: Sequence[dg.AssetsDefinition], partitions: Definition
) -> dg.Definitions:
    """The job ``<name>_job`` of all the pipeline's assets, and ``<name>_schedule`` that asks it."""
    job = dg.define_asset_job(
        f"{name}_job",
        selection=list(assets),
        description=f"All of pipeline {name}: records, results and table.",
        tags={"batch_etl/pipeline": name},
    )
    zone = schedule.timezone or _zone_of(partitions)
    asked = dg.ScheduleDefinition(
        name=f"{name}_schedule",
        job=job,
        cron_schedule=schedule.cron,
        execution_timezone=zone,
        default_status=schedule.status,
        description=_says(name, schedule, partitions, zone),
        tags={"batch_etl/pipeline": name},
        execution_fn=_asking(schedule, partitions),
    )
    return dg.Definitions(jobs=[job], schedules=[asked])


def _asking(
    schedule: Schedule, partitions: Definition
) -> Callable[[dg.ScheduleEvaluationContext], Asked]:
    def ask(context: dg.ScheduleEvaluationContext) -> Asked:
        return request(partitions, context.scheduled_execution_time, schedule.lag_hours)

    return ask


def request(partitions: Definition, at: dt.datetime, lag_hours: float = 0) -> Asked:
    """What a tick at this time asks for."""
    if partitions is None:
        return dg.RunRequest()
    if isinstance(partitions, dg.TimeWindowPartitionsDefinition):
        return _closed(partitions, at - dt.timedelta(hours=lag_hours))
    keys = partitions.get_partition_keys()
    return dg.RunRequest(tags=dict(zip(RANGE, (keys[0], keys[-1]), strict=True)))


def _closed(partitions: dg.TimeWindowPartitionsDefinition, at: dt.datetime) -> Asked:
    """The partition whose window ended last before ``at``; nothing once the last one is past."""
    with dg.partition_loading_context(effective_dt=at):
        key = _without_end(partitions).get_last_partition_key()
        exists = key is not None and partitions.has_partition_key(key)
    if key is None:
        return dg.SkipReason(f"no partition has closed yet: they start at {partitions.start}")
    if not exists:
        return dg.SkipReason(
            f"partition {key} would be next, but `partitions.end` is {partitions.end}"
        )
    return dg.RunRequest(partition_key=key)


def _without_end(
    partitions: dg.TimeWindowPartitionsDefinition,
) -> dg.TimeWindowPartitionsDefinition:
    return dg.TimeWindowPartitionsDefinition(
        start=partitions.start,
        fmt=partitions.fmt,
        cron_schedule=partitions.cron_schedule,
        timezone=partitions.timezone,
    )


def _zone_of(partitions: Definition) -> str:
    timed = isinstance(partitions, dg.TimeWindowPartitionsDefinition)
    return partitions.timezone if timed else "UTC"


def _says(name: str, schedule: Schedule, partitions: Definition, zone: str) -> str:
    if partitions is None:
        what = "all records"
    elif isinstance(partitions, dg.TimeWindowPartitionsDefinition):
        lag = f" {schedule.lag_hours:g} hours before" if schedule.lag_hours else ""
        what = f"the partition that had just closed{lag}"
    else:
        what = f"all {len(partitions.get_partition_keys())} partitions in one run"
    return f"Runs pipeline {name} at {schedule.cron} ({zone}) for {what}."
