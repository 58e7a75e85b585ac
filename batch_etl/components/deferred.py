"""Deferred waiting: a run that submits ends green, and a sensor asks for the rest later.

A pipeline with ``waiting: deferred`` occupies no run while its batches are at the API. Its
``results`` step yields nothing as long as it would only wait, so ``table`` is skipped and the run
is green. Each tick of the sensor ``deferred_results`` lists the API's batches once, for all such
pipelines, and asks for ``results`` and ``table`` of each transform that waits for nothing any more.
The run it asks for is like any other: it may find that there is another attempt to wait for, and
end the same way.

A transform that is done is in no table where the run failed after its results: the table is asked
for alone then, unless a check of the results kept them from it. A queue's own sensor does the same
for its drains.

Nothing depends on a ``run_key``, which Dagster remembers for ever: a run is asked for unless one of
the same transform is under way, and after one that failed again, each time after a longer pause.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal

import dagster as dg
from dagster import DagsterEventType

from batch_etl.batches.exchange import Exchange
from batch_etl.batches.ledger import TransformRow
from batch_etl.batches.watching import done, due
from batch_etl.components.requeue import is_requeue
from batch_etl.resources import EndpointResource, LedgerResource, StorageResource, open_runner

WAITING = "batch_etl/waiting"
"""Metadata of the ``results`` asset: ``await`` or ``deferred``."""

TRANSFORM_TAG = "batch_etl/transform"
"""Tag of a run: the transform that it advances."""

RANGE_TAGS = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")

_FIRST_PAUSE = dt.timedelta(minutes=1)
_LONGEST_PAUSE = dt.timedelta(hours=1)

_FAILED_WITHIN = dt.timedelta(days=7)
"""A table whose last run failed longer ago is not asked for any more."""

_FAILED_RUNS = 200
"""So many failed runs, the newest, are looked at for tables that are lacking."""


Waiting = Literal["await", "deferred"]


def may_defer(context: dg.AssetExecutionContext, waiting: Waiting) -> bool:
    """Whether this run may end before its results are there.

    One of a backfill waits: a backfill counts what its run did not materialize as failed.
    """
    return waiting == "deferred" and not context.run.tags.get("dagster/backfill")


def sensor_of_queue(pipeline: str) -> str:
    """The name of the sensor that drains a pipeline's queue."""
    return f"{pipeline}_queue"


def results_sensor(interval_s: int) -> dg.SensorDefinition:
    """The sensor that brings in the results of all deferred pipelines of its code location."""

    @dg.sensor(
        name="deferred_results",
        # No `target`: Dagster makes one job of it, which needs all assets to be cut the same way.
        asset_selection=dg.AssetSelection.all(),
        minimum_interval_seconds=interval_s,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks for the results of deferred pipelines once their batches have ended.",
    )
    def deferred_results(
        context: dg.SensorEvaluationContext,
        storage: StorageResource,
        ledger: LedgerResource,
        endpoint: EndpointResource,
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        pipelines = _deferred(context)
        if not pipelines:
            yield dg.SkipReason("no pipeline has `waiting: deferred`")
            return
        with open_runner(storage, ledger, endpoint) as runner:
            found = due(runner.exchange, pipelines)
            found += _lacking(context, runner.exchange, pipelines)
        rows = [row for row in found if not is_requeue(row.scope)]
        wanted = [row for row in rows if _may_ask(context.instance, row, dt.datetime.now(dt.UTC))]
        for row in wanted:
            yield _request(row, pipelines[row.pipeline])
        if not wanted:
            yield dg.SkipReason(f"{len(rows)} transform(s) could go on; none needs a run now")

    return deferred_results


def _deferred(context: dg.SensorEvaluationContext) -> dict[str, bool]:
    """The deferred pipelines, and whether each has partitions."""
    assert context.repository_def is not None  # noqa: S101  Dagster sets it for every tick
    found: dict[str, bool] = {}
    for definition in context.repository_def.assets_defs_by_key.values():
        for spec in definition.specs:
            if spec.metadata.get(WAITING) == "deferred":
                found[spec.key.path[0]] = spec.partitions_def is not None
    return found


def _lacking(
    context: dg.SensorEvaluationContext, exchange: Exchange, pipelines: Collection[str]
) -> list[TransformRow]:
    """Done transforms that only the table lacks, after a run of theirs has failed.

    Of two over the same partition the newer one counts: the table would be loaded from its results.
    """
    assert context.repository_def is not None  # noqa: S101  Dagster sets it for every tick
    instance = context.instance
    recently = dt.datetime.now(dt.UTC) - _FAILED_WITHIN
    failures = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=recently)
    records = instance.get_run_records(failures, limit=_FAILED_RUNS, ascending=False)
    ids = {record.dagster_run.tags.get(TRANSFORM_TAG) for record in records} - {None}
    found: list[TransformRow] = []
    newer: set[tuple[str, str | None]] = set()
    for row in done(exchange.ledger, [one for one in ids if one]) if ids else []:
        if row.endpoint != exchange.endpoint.name or row.pipeline not in pipelines:
            continue
        if context.repository_def.has_sensor_def(sensor_of_queue(row.pipeline)):
            continue
        if _is_loaded(instance, row):
            continue
        keys = {(row.pipeline, key) for key in row.scope}
        if not keys & newer and _failed_after_results(instance, row):
            found.append(row)
        newer |= keys
    return found


def _is_loaded(instance: dg.DagsterInstance, row: TransformRow) -> bool:
    """Whether all partitions were loaded into the table since the transform was done."""
    keys = [key for key in row.scope if key is not None]
    wanted = dg.AssetRecordsFilter(
        asset_key=dg.AssetKey([row.pipeline, "table"]),
        asset_partitions=keys or None,
        after_timestamp=row.updated_at.timestamp(),
    )
    loaded = instance.fetch_materializations(wanted, limit=2 * len(row.scope)).records
    return set(row.scope) <= {record.partition_key for record in loaded}


def _failed_after_results(instance: dg.DagsterInstance, row: TransformRow) -> bool:
    """Whether the last run failed, and the results had passed their checks in it or before."""
    records = _runs(instance, row)
    if not records or records[0].dagster_run.status != dg.DagsterRunStatus.FAILURE:
        return False
    table = {dg.AssetKey([row.pipeline, "table"])}
    return any(
        record.dagster_run.asset_selection == table
        or _has_passed(instance, record.dagster_run.run_id, f"{row.pipeline}__results")
        for record in records
    )


def _has_passed(instance: dg.DagsterInstance, run_id: str, step: str) -> bool:
    """Whether the step made its asset, which one that would wait does not, and no check blocked."""
    wanted = {DagsterEventType.ASSET_MATERIALIZATION, DagsterEventType.STEP_SUCCESS}
    found = instance.get_records_for_run(run_id, of_type=wanted).records
    entries = [record.event_log_entry for record in found]
    return wanted <= {entry.dagster_event_type for entry in entries if entry.step_key == step}


def _runs(instance: dg.DagsterInstance, row: TransformRow) -> list[dg.RunRecord]:
    """The transform's latest runs, newest first."""
    wanted = dg.RunsFilter(tags={TRANSFORM_TAG: row.id})
    return list(instance.get_run_records(wanted, limit=20, ascending=False))


def _may_ask(instance: dg.DagsterInstance, row: TransformRow, now: dt.datetime) -> bool:
    """No run of the transform is under way, and its last failure was long enough ago."""
    records = _runs(instance, row)
    failed = 0
    for record in records:
        if not record.dagster_run.is_finished:
            return False
        if record.dagster_run.is_success:
            break
        failed += 1
    if not failed:
        return True
    pause = min(_FIRST_PAUSE * 2 ** (failed - 1), _LONGEST_PAUSE)
    ended = records[0].end_time or records[0].create_timestamp.timestamp()
    return now.timestamp() - ended >= pause.total_seconds()


def _request(row: TransformRow, partitioned: bool) -> dg.RunRequest:
    steps = ("table",) if row.status == "done" else ("results", "table")
    keys = [dg.AssetKey([row.pipeline, step]) for step in steps]
    tags: dict[str, str] = {TRANSFORM_TAG: row.id}
    first, last = row.scope[0], row.scope[-1]
    if not partitioned or first is None or last is None:
        return dg.RunRequest(asset_selection=keys, tags=tags)
    if first == last:
        return dg.RunRequest(asset_selection=keys, tags=tags, partition_key=first)
    ranged: Mapping[str, Any] = dict(zip(RANGE_TAGS, (first, last), strict=True))
    return dg.RunRequest(asset_selection=keys, tags={**tags, **ranged})
