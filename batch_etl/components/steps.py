"""What the three assets of a pipeline do, and what they tell Dagster.

Failures that a user can act on become ``dagster.Failure`` with the error's own sentence and no
traceback of ours around it; whether Dagster may try again follows from the error being transient.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dagster as dg

from batch_etl import memory
from batch_etl.batches.errors import ApiError
from batch_etl.batches.transform import Partition, Transform
from batch_etl.batches.runner import Progress, Runner
from batch_etl.batches.task import Task
from batch_etl.components import metadata
from batch_etl.components.partitions import slices
from batch_etl.errors import BatchEtlError, SourceError
from batch_etl.files import Home
from batch_etl.resources import (
    EndpointResource,
    LedgerResource,
    StorageResource,
    WarehouseResource,
    open_runner,
)
from batch_etl.sources import Extracted, Source, extract
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

    def transform(self, home: Home, keys: Sequence[str | None]) -> Transform:
        partitions = tuple(Partition(key, home.records(self.name, key)) for key in keys)
        return Transform(self.name, self.task, self.source.id, partitions)


def extract_records(
    context: dg.AssetExecutionContext, pipeline: Pipeline, storage: StorageResource
) -> None:
    """Read the source once for all partitions of this run; write one Parquet file each."""
    home = storage.at()
    keys = [key for key in _keys(context, pipeline) if key is not None]
    wanted = slices(pipeline.partitions, keys) if pipeline.partitions else None
    with explained():
        extracted = extract(pipeline.source, wanted, lambda key: home.records(pipeline.name, key))
        _check_table_columns(pipeline.table, extracted)
    memory.release()
    for one in extracted:
        _report(context, one.partition, metadata.of_records(one))
    _say(context, f"{sum(one.rows for one in extracted):,} records read")


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
) -> None:
    """Advance the transform of this run's partitions until every record has its outcome."""
    transform = pipeline.transform(storage.at(), _keys(context, pipeline))
    with explained(), open_runner(storage, ledger, endpoint) as runner:
        transform_id = runner.open(transform)
        _say(context, f"transform {transform_id} of {len(transform.scope)} partition(s)")
        for progress in _until_done(runner, transform_id, transform):
            _say(context, _sentence(progress))
        summary = runner.summary(transform_id, transform)
        name = runner.endpoint_name
    memory.release()
    for partition in summary.partitions:
        _report(context, partition.key, metadata.of_partition(partition, name, pipeline.task))
    context.add_output_metadata(metadata.of_transform(summary, name))


def _until_done(runner: Runner, transform_id: str, transform: Transform) -> Iterator[Progress]:
    """Advance and wait, telling of each change; patient with a server in trouble."""
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
            raise BatchEtlError(
                f"transform {transform_id} was cancelled, or a newer run of the same partitions "
                "with another task has taken over; what was answered by then is kept"
            )
        facts = (progress.status, progress.attempt, progress.batches, progress.batches_open)
        if facts != told:
            told = facts
            yield progress
        if progress.done:
            return
        time.sleep(progress.wait_s)


def _sentence(progress: Progress) -> str:
    if progress.held_by_other:
        return "another process is advancing this transform; waiting for it"
    if progress.done:
        return f"done: {progress.batches} batch(es), attempt {progress.attempt}"
    names = ", ".join(progress.batch_ids[:3]) + (" ..." if len(progress.batch_ids) > 3 else "")
    return (
        f"waiting for {progress.batches_open} of {progress.batches} batch(es), "
        f"{progress.requests_open:,} requests, attempt {progress.attempt}: {names}"
    )


def load_table(
    context: dg.AssetExecutionContext,
    pipeline: Pipeline,
    storage: StorageResource,
    endpoint: EndpointResource,
    warehouse: WarehouseResource,
) -> None:
    """Replace this run's partitions in the table, in one transaction, and publish."""
    home = storage.at()
    with explained():
        name = endpoint.name()
        loads = [_load(home, pipeline, name, key) for key in _keys(context, pipeline)]
        house = warehouse.open(home)
        report = house.load(pipeline.table, name, loads)
        house.publish()
    for partition in report.partitions:
        _report(context, partition.partition, metadata.of_loaded(partition))
    context.add_output_metadata(metadata.of_table(report, home))
    _say(context, f"{report.rows:,} rows in {report.table.qualified_name}")


def _load(home: Home, pipeline: Pipeline, endpoint: str, key: str | None) -> PartitionLoad:
    results = home.results(endpoint, pipeline.name, key)
    if not results.exists():
        raise SourceError(
            f"pipeline {pipeline.name!r}, partition {key!r}: there are no results of endpoint "
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


def _say(context: dg.AssetExecutionContext, sentence: str) -> None:
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
