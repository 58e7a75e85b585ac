"""What the three assets of a pipeline do, and what they tell Dagster.

Failures that a user can act on become ``dagster.Failure`` with the error's own sentence and no
traceback of ours around it; whether Dagster may try again follows from the error being transient.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import dagster as dg

from batch_etl import memory
from batch_etl.batches.budget import Budget, Standing, day_budget, limits
from batch_etl.batches.errors import ApiError
from batch_etl.batches.runner import Progress, Runner
from batch_etl.batches.task import Task
from batch_etl.batches.transform import Partition, Transform
from batch_etl.batches.watching import expected_end, usual_duration
from batch_etl.components import metadata, reports
from batch_etl.components.checks import Checks, told, untold
from batch_etl.components.deferred import TRANSFORM_TAG, Waiting, may_defer
from batch_etl.components.judging import Judge
from batch_etl.components.partitions import slices
from batch_etl.components.terminate import Choice, terminating
from batch_etl.errors import BatchEtlError, SourceError
from batch_etl.files import Home
from batch_etl.resources import (
    EndpointResource,
    LedgerResource,
    StorageResource,
    WarehouseResource,
    open_runner,
)
from batch_etl.sources import Extracted, FanOut, ForEach, Source, TableSource, extract
from batch_etl.sources.columns import no_column
from batch_etl.warehouse import PartitionLoad, TableSpec

progress_log = logging.getLogger("batch_etl.progress")
"""One line for each thing a person who waits wants to know; shown by commands only."""

_TROUBLE_PATIENCE_S = 900.0
"""How long a waiting step puts up with a server that fails, while batches are open there."""

_TROUBLE_WAIT_S = 15.0


@dataclass(frozen=True)
class Pipeline:
    """One pipeline as the steps need it."""

    name: str
    source: Source
    task: Task
    table: TableSpec
    partitions: dg.PartitionsDefinition[str] | None
    waiting: Waiting = "await"
    on_terminate: Choice = "leave"
    delete_collected: bool = False
    budget: Budget | None = None
    checks: Checks = field(default_factory=Checks)
    sample_rows: int = 3
    folder: Path = field(default_factory=Path)
    """What the paths of attachments are relative to: the YAML's folder."""
    for_each: ForEach | None = None
    """The values for each of which a record is asked about."""

    @property
    def fan_out(self) -> FanOut | None:
        """The source's records, once for each value."""
        return FanOut(self.source, self.for_each) if self.for_each else None

    @property
    def judge(self) -> Judge:
        return Judge(
            self.name, self.checks, self.task, self.partitions, self.budget, fan_out=self.fan_out
        )

    def extract(self, home: Home, keys: Sequence[str | None]) -> list[Extracted]:
        """Read the source once for these partitions; write one Parquet file each."""
        named = [key for key in keys if key is not None]
        wanted = slices(self.partitions, named) if self.partitions else None
        source = self.fan_out or self.source
        extracted = extract(source, wanted, lambda key: home.records(self.name, key))
        _check_table_columns(self.table, extracted)
        return extracted

    def transform(self, home: Home, keys: Sequence[str | None]) -> Transform:
        partitions = tuple(Partition(key, home.records(self.name, key)) for key in keys)
        return Transform(
            self.name,
            self.task,
            (self.fan_out or self.source).id,
            partitions,
            delete_collected=self.delete_collected,
            budget=self.budget,
            folder=self.folder,
        )


LOADED: WeakValueDictionary[str, Pipeline] = WeakValueDictionary()
"""The pipelines of the definitions that this process holds, by name: for commands without a run."""


def extract_records(
    context: dg.AssetExecutionContext, pipeline: Pipeline, storage: StorageResource
) -> None:
    """Read the source once for all partitions of this run; write one Parquet file each."""
    with explained():
        extracted = pipeline.extract(storage.at(), _keys(context, pipeline))
    memory.release()
    for one in extracted:
        _report(context, one.partition, metadata.of_records(one))
    say(context, f"{sum(one.rows for one in extracted):,} records read")


def _check_table_columns(table: TableSpec, extracted: Sequence[Extracted]) -> None:
    """Raise for a column that the table shall show and no record has, before anything is paid."""
    for one in extracted:
        for name in table.columns or ():
            if name not in one.schema.names:
                raise no_column("table.columns", name, one.schema.names)


def transform_records(
    context: dg.AssetExecutionContext,
    pipeline: Pipeline,
    storage: StorageResource,
    ledger: LedgerResource,
    endpoint: EndpointResource,
) -> Iterator[Any]:
    """Advance the transform of this run's partitions until every record has its outcome.

    Yields what Dagster is told: the materialization, then what the checks say of it. A run that
    may end before its results are there yields nothing then.
    """
    home = storage.at()
    transform = pipeline.transform(home, _keys(context, pipeline))
    with explained(), open_runner(storage, ledger, endpoint) as runner:
        if isinstance(pipeline.source, TableSource):
            for partition in transform.partitions:
                pipeline.source.check_records(partition.records, runner.endpoint_name)
        transform_id = _advanced(context, pipeline, runner, transform)
        if transform_id is None:
            say(context, "this run ends here; a sensor asks for the results later")
            yield from untold(context)
            return
        summary = runner.summary(transform_id, transform)
        name = runner.endpoint_name
        standings = _standings(ledger, home, pipeline, name, transform_id)
    memory.release()
    facts = reports.of_results(
        home,
        pipeline.name,
        pipeline.task,
        summary=summary,
        endpoint=name,
        sample_rows=pipeline.sample_rows,
    )
    yield _materialized(context, facts)
    verdicts = pipeline.judge.results(home, name, summary, standings)
    yield from told(context, pipeline.checks, verdicts)


def _advanced(
    context: dg.AssetExecutionContext, pipeline: Pipeline, runner: Runner, transform: Transform
) -> str | None:
    """Advance until the results on disk are of the records on disk; None where the run may end
    before that.

    Another run may extract the same partitions anew meanwhile, or take them over: then this one
    goes on with the records that are there now. What was answered till then is not asked again.
    """
    defer = may_defer(context, pipeline.waiting)
    while True:
        transform_id = runner.open(transform)
        say(context, f"transform {transform_id} of {len(transform.scope)} partition(s)")
        context.instance.add_run_tags(context.run.run_id, {TRANSFORM_TAG: transform_id})
        try:
            with terminating(context, runner, transform_id, pipeline.on_terminate):
                for progress in until_done(runner, transform_id, transform):
                    say(context, sentence(progress) + _expected(progress, runner, pipeline.name))
                    if defer and progress.parked:
                        return None
        except TakenOver as error:
            say(context, f"{error}; this run goes on with it")
            continue
        if runner.is_finished(transform):
            return transform_id
        say(
            context,
            "the records were extracted again meanwhile; this run goes on with the new ones",
        )


class TakenOver(BatchEtlError):
    """A later transform of the same task has superseded this one."""


def _standings(
    ledger: LedgerResource, home: Home, pipeline: Pipeline, endpoint: str, transform_id: str
) -> list[Standing]:
    """How the budgets stand that hold for the pipeline, now that the transform is done."""
    held = limits(pipeline.name, pipeline.budget, day_budget(ledger.budget_day_usd))
    if not held:
        return []
    with ledger.open(home) as opened:
        return opened.standings(endpoint, held, transform_id)


def until_done(runner: Runner, transform_id: str, transform: Transform) -> Iterator[Progress]:
    """Advance and wait, telling of each change; patient with a server in trouble.

    Raises ``TakenOver`` when another run of the same task has taken over some of its partitions,
    ``BatchEtlError`` when it was cancelled or a run with another task has.
    """
    told: Any = None
    trouble_since: float | None = None
    while True:
        try:
            progress = runner.advance(transform_id, transform)
            trouble_since = None
        except ApiError as error:
            waiting = runner.has_open_batches(transform_id)
            trouble_since = trouble_since or time.monotonic()
            patient = time.monotonic() - trouble_since < _TROUBLE_PATIENCE_S
            if not (error.transient and waiting and patient):
                raise
            time.sleep(_TROUBLE_WAIT_S)
            continue
        if progress.status == "superseded":
            if newer := runner.taken_over_by(transform_id):
                raise TakenOver(
                    "another run of the same task has taken over some of these partitions: what "
                    f"transform {transform_id} bought is transform {newer.id}'s as well"
                )
            raise BatchEtlError(
                f"transform {transform_id} was cancelled, or a newer run of the same partitions "
                "with another task has taken over; what was answered by then is kept"
            )
        facts = (progress.status, progress.attempt, progress.batches, progress.batches_open)
        facts = (*facts, progress.unsent, progress.awaits)
        if facts != told:
            told = facts
            yield progress
        if progress.done:
            return
        time.sleep(progress.wait_s)


def sentence(progress: Progress) -> str:
    """How far a transform is, for a person who waits."""
    if progress.held_by_other:
        return "another process is advancing this transform; waiting for it"
    if progress.done:
        return f"done: {progress.batches} batch(es), attempt {progress.attempt}"
    if progress.awaits and not progress.batches_open:
        return f"waiting for {progress.awaits} batch(es) of others, which hold the same requests"
    names = ", ".join(progress.batch_ids[:3]) + (" ..." if len(progress.batch_ids) > 3 else "")
    return (
        f"waiting for {progress.batches_open} of {progress.batches} batch(es), "
        f"{progress.requests_open:,} requests, attempt {progress.attempt}: {names}"
    )


def _expected(progress: Progress, runner: Runner, pipeline: str) -> str:
    """What history says of the end of what is waited for; the ledger is asked only then."""
    if progress.submitted_at is None or progress.held_by_other:
        return ""
    usual = usual_duration(runner.exchange, pipeline)
    end = expected_end(progress.submitted_at, usual, dt.datetime.now(dt.UTC))
    return f"; {end}" if end else ""


def load_table(
    context: dg.AssetExecutionContext,
    pipeline: Pipeline,
    storage: StorageResource,
    ledger: LedgerResource,
    endpoint: EndpointResource,
    *,
    warehouse: WarehouseResource,
) -> Iterator[Any]:
    """Replace this run's partitions in the table, in one transaction, and publish.

    Yields what Dagster is told: the materialization, then what the checks say of it.
    """
    home = storage.at()
    with explained():
        name = endpoint.name()
        loads = [_load(home, pipeline, name, key) for key in _keys(context, pipeline)]
        house = warehouse.open(home)
        report = house.load(pipeline.table, name, loads)
        with ledger.open(home) as opened:
            transforms, batches = opened.transforms(endpoint=name), opened.batches(endpoint=name)
        house.load_history(map(vars, transforms), map(vars, batches))
        house.publish()
        with house.read_only() as published:
            judge = pipeline.judge
            facts = reports.of_table(published, home, pipeline.name, report, judge.labels)
            verdicts = judge.table(published, report.table, home, name, report.partitions)
    say(context, f"{report.rows:,} rows in {report.table.qualified_name}")
    yield _materialized(context, facts)
    yield from told(context, pipeline.checks, verdicts)


def _load(home: Home, pipeline: Pipeline, endpoint: str, key: str | None) -> PartitionLoad:
    results = home.results(endpoint, pipeline.name, key)
    where = "the only partition" if key is None else f"partition {key!r}"
    if not results.exists():
        raise SourceError(
            f"pipeline {pipeline.name!r}, {where}: there are no results of endpoint "
            f"{endpoint!r}; materialize {pipeline.name}/results with this endpoint first"
        )
    return PartitionLoad(key, home.records(pipeline.name, key), results)


def _keys(context: dg.AssetExecutionContext, pipeline: Pipeline) -> Sequence[str | None]:
    """The partitions of the run, one or a range of them; ``[None]`` for a pipeline without any."""
    if pipeline.partitions is None:
        return [None]
    if not (context.has_partition_key or context.has_partition_key_range):
        raise dg.Failure(f"pipeline {pipeline.name!r} has partitions: choose one, or a range")
    return list(context.partition_keys)


def say(context: dg.AssetExecutionContext, sentence: str) -> None:
    """To the run's log, and to a command that shows progress."""
    context.log.info(sentence)
    progress_log.info("%s: %s", context.asset_key.to_user_string(), sentence)


def _report(
    context: dg.AssetExecutionContext, partition: str | None, facts: dict[str, Any]
) -> None:
    """Metadata of one partition's materialization (or of the only one)."""
    if partition is None:
        context.add_asset_metadata(facts)
    else:
        context.add_asset_metadata(facts, partition_key=partition)


def _materialized(
    context: dg.AssetExecutionContext, facts: reports.Facts
) -> dg.MaterializeResult[Any]:
    """A partition's own facts first: Dagster's pages show them in this order."""
    for partition, own in facts.by_partition.items():
        _report(context, partition, {**own, **_without(facts.of_run, own)})
    return dg.MaterializeResult()


def _without(facts: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    return {name: fact for name, fact in facts.items() if name not in own}


@contextmanager
def explained() -> Iterator[None]:
    """Turn an error that the user can act on into a ``dagster.Failure`` with its sentence."""
    try:
        yield
    except BatchEtlError as error:
        raise dg.Failure(str(error), allow_retries=error.transient) from error
    except OSError as error:
        sentence = (
            f"{error.filename or 'a file'}: {error.strerror or error}; this user must be able to "
            "read the source and to write the folder of BATCH_ETL_HOME, with space left on its disk"
        )
        raise dg.Failure(sentence) from error
