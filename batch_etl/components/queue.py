"""A pipeline whose records are enqueued: its drains are dynamic partitions, asked for by a sensor.

Each tick of ``<pipeline>_queue`` makes a drain of all that waits, where one is due, and asks for a
run of each drain that is open: the new one, and any whose run was lost, failed, or never began.
The drain is committed in the queue's tables before anything is asked, so a tick that dies at any
moment, or a request that gets lost, costs nothing but the time to the next tick.

    no run of it                      ask, unless somebody has asked a moment ago (claim)
    a run is under way                wait
    the last run failed               ask again, after a pause that grows
    the last run was cancelled        leave it to whoever cancelled it
    its rows are in the table         note that, and look at it no more
    deferred, its transform is open   leave it to the sensor ``deferred_results``
    and that was cancelled            leave it to whoever cancelled it

Nothing depends on a ``run_key``. Two runs of one drain would be harmless: the second waits for the
first and finds its answers.
"""

# No postponed annotations here: Dagster reads those of the assets' functions as they are.
import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import dagster as dg

from batch_etl.batches.ledger import Ledger
from batch_etl.batches.watching import done
from batch_etl.components import steps
from batch_etl.components.deferred import TRANSFORM_TAG, sensor_of_queue
from batch_etl.files import Home
from batch_etl.queue import Drain, Queue
from batch_etl.resources import LedgerResource, QueueResource, StorageResource
from batch_etl.sources.queue import DrainAt, QueueSource

_LOST_AFTER_S = 120.0
"""A run that was asked for so long ago and is not there will not come."""

_NEVER_BEGAN = dt.timedelta(minutes=10)
"""A run that was made so long ago and never queued: whoever made it is gone."""

_FIRST_PAUSE = dt.timedelta(minutes=1)
_LONGEST_PAUSE = dt.timedelta(hours=1)


def partitions_of(pipeline: str) -> dg.DynamicPartitionsDefinition:
    return dg.DynamicPartitionsDefinition(name=f"{pipeline}_drains")


@contextmanager
def readable(
    pipeline: steps.Pipeline, queue: QueueResource, home: Home
) -> Iterator[steps.Pipeline]:
    """The pipeline with a source that reads the queue; any other pipeline as it is."""
    if not isinstance(pipeline.source, QueueSource):
        yield pipeline
        return
    with queue.open(home) as opened:
        yield replace(pipeline, source=pipeline.source.bound(opened.items_of(pipeline.name)))


def records_asset(shared: Mapping[str, Any], pipeline: steps.Pipeline) -> dg.AssetsDefinition:
    """The asset ``records``, which reads the items of its drains."""

    @dg.asset(**shared, kinds={"parquet"})
    def records(
        context: dg.AssetExecutionContext, storage: StorageResource, queue: QueueResource
    ) -> None:
        with steps.explained(), readable(pipeline, queue, storage.at()) as bound:
            steps.extract_records(context, bound, storage)

    return records  # pyright: ignore[reportReturnType]


def know(instance: dg.DagsterInstance, pipeline: str, keys: Sequence[str]) -> None:
    """Have Dagster know these drains as partitions."""
    if keys:
        instance.add_dynamic_partitions(f"{pipeline}_drains", keys)


def still_open(queue: Queue, instance: dg.DagsterInstance, pipeline: str) -> list[Drain]:
    """The drains whose rows are not in the table; those that are by now are noted first."""
    drains = queue.open_drains(pipeline)
    if not drains:
        return []
    done = instance.get_materialized_partitions(dg.AssetKey([pipeline, "table"]))
    queue.loaded(pipeline, [drain.key for drain in drains if drain.key in done])
    return [drain for drain in drains if drain.key not in done]


def sensor(pipeline: steps.Pipeline, drain_at: DrainAt) -> dg.SensorDefinition:
    """The sensor that drains the pipeline's queue at a count or an age."""
    name = pipeline.name
    keys = [dg.AssetKey([name, step]) for step in ("records", "results", "table")]

    @dg.sensor(
        name=sensor_of_queue(name),
        target=dg.AssetSelection.assets(*keys),
        minimum_interval_seconds=drain_at.interval_s,
        default_status=dg.DefaultSensorStatus[drain_at.default_status.upper()],
        description=f"Drains the queue of {name} {_when(drain_at)}, and asks for the drain's run.",
    )
    def tick(
        context: dg.SensorEvaluationContext,
        storage: StorageResource,
        ledger: LedgerResource,
        queue: QueueResource,
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        instance, home = context.instance, storage.at()
        with queue.open(home) as opened:
            opened.drain(name, count=drain_at.count, age_s=drain_at.age_s)
            drains = still_open(opened, instance, name)
            now = dt.datetime.now(dt.UTC)
            ready = [drain for drain in drains if _may_ask(instance, pipeline, drain, now)]
            if ready and pipeline.waiting == "deferred":
                with ledger.open(home) as known:
                    ready = [one for one in ready if not _is_left(instance, pipeline, one, known)]
            asked = [
                drain.key
                for drain in ready
                if opened.claim(name, drain.key, lost_after_s=_LOST_AFTER_S)
            ]
            waiting = opened.waiting(name)
        know(instance, name, asked)
        for key in asked:
            yield dg.RunRequest(asset_selection=keys, partition_key=key)
        if not asked:
            yield dg.SkipReason(
                f"{waiting.items:,} item(s) wait, the oldest for {waiting.age_s:,.0f} s; "
                f"{len(drains)} drain(s) are under way"
            )

    return tick


def _when(drain_at: DrainAt) -> str:
    limits = [
        f"as soon as {drain_at.count:,} items wait" if drain_at.count is not None else "",
        f"once one has waited {drain_at.age_s:g} s" if drain_at.age_s is not None else "",
    ]
    return " or ".join(filter(None, limits))


def _may_ask(
    instance: dg.DagsterInstance, pipeline: steps.Pipeline, drain: Drain, now: dt.datetime
) -> bool:
    runs = _runs(instance, pipeline.name, drain.key)
    if not runs:
        return True
    if any(not _is_over(record, now) for record in runs):
        return False
    last = runs[0]
    if last.dagster_run.status == dg.DagsterRunStatus.CANCELED:
        return False
    failed = _failed_in_a_row(runs)
    if not failed:
        return True
    pause = min(_FIRST_PAUSE * 2 ** min(failed - 1, 10), _LONGEST_PAUSE)
    ended = last.end_time or last.create_timestamp.timestamp()
    return now.timestamp() - ended >= pause.total_seconds()


def _is_left(
    instance: dg.DagsterInstance, pipeline: steps.Pipeline, drain: Drain, ledger: Ledger
) -> bool:
    """Whether the drain's latest transform is still to be answered, or was cancelled."""
    runs = _runs(instance, pipeline.name, drain.key)
    tags = (record.dagster_run.tags.get(TRANSFORM_TAG) for record in runs)
    latest = next(filter(None, tags), None)
    return latest is not None and not done(ledger, [latest])


def _runs(instance: dg.DagsterInstance, pipeline: str, key: str) -> list[dg.RunRecord]:
    """The drain's runs of this pipeline, newest first; other pipelines may have equal keys."""
    tags = {"dagster/partition": key}
    found = instance.get_run_records(dg.RunsFilter(tags=tags), limit=50, ascending=False)
    return [record for record in found if _is_of(record.dagster_run, pipeline)]


def _is_of(run: dg.DagsterRun, pipeline: str) -> bool:
    keys = run.asset_selection or ()
    return not keys or any(key.path[0] == pipeline for key in keys)


def _is_over(record: dg.RunRecord, now: dt.datetime) -> bool:
    run = record.dagster_run
    if run.status == dg.DagsterRunStatus.NOT_STARTED:
        return now - record.create_timestamp.astimezone(dt.UTC) > _NEVER_BEGAN
    return run.is_finished


def _failed_in_a_row(runs: Sequence[dg.RunRecord]) -> int:
    for number, record in enumerate(runs):
        if record.dagster_run.is_success:
            return number
    return len(runs)
