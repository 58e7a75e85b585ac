"""``batch-etl run``: one pipeline, once, through Dagster in this process."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batch_etl.commands import emulator, project, queue
from batch_etl.environment import Settings
from batch_etl.errors import BatchEtlError, ConfigError
from batch_etl.strict import did_you_mean

if TYPE_CHECKING:
    import dagster as dg

STEPS = ("records", "results", "table")
_CHECK_FAILED = "DagsterAssetCheckFailedError"
_DAGSTERS_CLASS = re.compile(r"^dagster\._core[\w.]*: ?")
_INTERRUPTED = ("DagsterExecutionInterruptedError", "KeyboardInterrupt")
_RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


@dataclass
class Report:
    """What one run of a pipeline came to."""

    pipeline: str
    success: bool = True
    run_ids: list[str] = field(default_factory=list)
    endpoint: str | None = None
    partitions: int = 0
    records: int = 0
    answered: int = 0
    review: int = 0
    sent: int = 0
    reused: int = 0
    batches: int = 0
    cost_usd: float | None = 0.0
    table: str | None = None
    warehouse: str | None = None
    errors: list[str] = field(default_factory=list)


def run(
    pipeline: str,
    home: Path | None,
    partitions: Sequence[str],
    all_partitions: bool,
    defs: Path | None,
    *,
    as_json: bool,
) -> None:
    """Run and tell; exits with 1 when any record has no terminal state."""
    with running(home, defs) as (settings, definitions, instance):
        drains = queue.is_queue(pipeline)
        if drains:
            partitions = queue.to_run(settings, instance, pipeline, partitions, all_partitions)
            all_partitions = False
        if drains and not partitions:
            report = Report(pipeline)
        else:
            report = run_pipeline(definitions, instance, pipeline, partitions, all_partitions)
        if drains:
            queue.note_loaded(settings, instance, pipeline)
    click.echo(json.dumps(asdict(report)) if as_json else _sentence(report))
    if not report.success:
        for error in report.errors:
            click.secho(f"Error: {error}", fg="red", err=True)
        sys.exit(1)


@contextmanager
def running(
    home: Path | None, defs: Path | None
) -> Iterator[tuple[Settings, dg.Definitions, dg.DagsterInstance]]:
    """What a command needs that runs assets: an endpoint that answers, and progress on stderr."""
    settings = project.settings_at(home)
    settings.require_endpoint()
    with emulator.if_needed(settings):
        settings = project.settings_at(None)
        definitions = project.definitions(defs)
        with progress_to_stderr(), project.instance(settings) as instance:
            yield settings, definitions, instance


def run_pipeline(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    pipeline: str,
    partitions: Sequence[str],
    all_partitions: bool,
) -> Report:
    """Materialize the pipeline's assets, a contiguous range of partitions in one run."""
    assets = _assets(definitions, pipeline)
    report = Report(pipeline)
    definition = assets[0].partitions_def
    for tags in _runs(definition, pipeline, partitions, all_partitions, instance):
        materialize(definitions, instance, assets, tags, report)
        if not report.success:
            break
    return report


def pipelines(definitions: dg.Definitions) -> list[str]:
    """The names of all pipelines, in alphabetical order."""
    keys = definitions.resolve_asset_graph().get_all_asset_keys()
    return sorted({key.path[0] for key in keys if key.path[-1] == "results" and len(key.path) == 2})


def _assets(definitions: dg.Definitions, pipeline: str) -> list[dg.AssetsDefinition]:
    import dagster as dg

    known = pipelines(definitions)
    if pipeline not in known:
        raise ConfigError(f"there is no pipeline {pipeline!r}{did_you_mean(pipeline, known)}")
    return [definitions.get_assets_def(dg.AssetKey([pipeline, step])) for step in STEPS]


def _runs(
    definition: dg.PartitionsDefinition[Any] | None,
    pipeline: str,
    partitions: Sequence[str],
    all_partitions: bool,
    instance: dg.DagsterInstance | None = None,
) -> list[dict[str, str]]:
    """The tags of each run that is needed: one for each stretch of neighbouring partitions."""
    if definition is None:
        if partitions or all_partitions:
            raise ConfigError(f"pipeline {pipeline!r} has no partitions; leave the option away")
        return [{}]
    keys = list(definition.get_partition_keys(dynamic_partitions_store=instance))
    if not keys:
        raise ConfigError(f"pipeline {pipeline!r} has no partition yet")
    if not partitions and not all_partitions:
        raise ConfigError(
            f"pipeline {pipeline!r} has {len(keys)} partitions, {keys[0]} to {keys[-1]}; choose "
            "with --partition KEY, or take --all-partitions"
        )
    for wanted in partitions:
        if wanted not in keys:
            there_are = f"there are {keys[0]} to {keys[-1]}"
            raise ConfigError(f"pipeline {pipeline!r} has no partition {wanted!r}; {there_are}")
    chosen = sorted(range(len(keys)) if all_partitions else {keys.index(k) for k in partitions})
    return [dict(zip(_RANGE, (keys[a], keys[b]), strict=True)) for a, b in _stretches(chosen)]


def chosen_partitions(
    definitions: dg.Definitions, pipeline: str, partitions: Sequence[str], all_partitions: bool
) -> list[str | None]:
    """The partitions that are meant, in their order; ``[None]`` for a pipeline without any."""
    definition = _assets(definitions, pipeline)[0].partitions_def
    runs = _runs(definition, pipeline, partitions, all_partitions)
    if definition is None:
        return [None]
    keys = list(definition.get_partition_keys())
    limits = [(keys.index(run[_RANGE[0]]), keys.index(run[_RANGE[1]])) for run in runs]
    return [key for first, last in limits for key in keys[first : last + 1]]


def _stretches(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    start = numbers[0]
    for before, after in pairwise(numbers):
        if after != before + 1:
            yield start, before
            start = after
    yield start, numbers[-1]


def materialize(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    assets: Sequence[dg.AssetsDefinition],
    tags: dict[str, str],
    report: Report,
) -> dg.ExecuteInProcessResult:
    """One run of these assets in this process, added to the report.

    Raises ``KeyboardInterrupt`` where the run was interrupted, which Dagster takes for a failure.
    """
    import dagster as dg

    result = dg.materialize(
        assets,
        instance=instance,
        resources=dict(definitions.resources or {}),
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        tags=tags,
        raise_on_error=False,
    )
    if any(map(_is_interruption, result.all_events)):
        raise KeyboardInterrupt
    report.run_ids.append(result.run_id)
    report.success = report.success and result.success
    for event in result.all_events:
        if event.is_step_failure:
            report.errors += _failures(event, result)
    _tally(result, report)
    return result


def _is_interruption(event: dg.DagsterEvent) -> bool:
    error = None
    if event.is_step_failure:
        error = event.step_failure_data.error
    elif event.is_job_failure:
        error = event.job_failure_data.error
    return any(one.cls_name in _INTERRUPTED for one in _with_causes(error))


def _with_causes(error: dg.SerializableErrorInfo | None) -> Iterator[dg.SerializableErrorInfo]:
    """An error and what it was raised from, the innermost last."""
    while error is not None:
        yield error
        error = error.cause


def _failures(event: dg.DagsterEvent, result: dg.ExecuteInProcessResult) -> list[str]:
    """Why a step failed: the sentence of its failure, or of each check that blocks."""
    data = event.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return [data.user_failure_data.description]
    *_, error = (None, *_with_causes(data.error))
    if error is not None and error.cls_name == _CHECK_FAILED:
        evaluations = result.get_asset_check_evaluations()
        blocking = [one for one in evaluations if one.blocking and not one.passed]
        step = [one for one in blocking if one.asset_key.to_python_identifier() == event.step_key]
        return [one.description or f"the check {one.check_name} failed" for one in step]
    said = _DAGSTERS_CLASS.sub("", error.message.strip()) if error else "failed"
    return [f"{event.step_key}: {said}"]


def _tally(result: dg.ExecuteInProcessResult, report: Report) -> None:
    """Add what the materializations say of themselves.

    Results are what the run's requests came to; only the table knows what was decided in review.
    """
    whole: dict[str, dict[str, Any]] = {}  # by pipeline: the same on all of its partitions
    for event in result.get_asset_materialization_events():
        metadata = event.materialization.metadata
        facts: dict[str, Any] = {key: value.value for key, value in metadata.items()}
        step = event.asset_key.path[-1] if event.asset_key else ""
        if step == "results":
            report.partitions += 1
            report.records += facts["dagster/row_count"]
            report.answered += facts["answered"]
            report.review += facts["review"]
            report.endpoint = facts["endpoint"]
            whole[event.asset_key.path[0] if event.asset_key else ""] = facts
        elif step == "table":
            report.table, report.warehouse = facts["dagster/table_name"], facts["dagster/uri"]
            report.answered += facts["decided"]
            report.review -= facts["decided"]
    for facts in whole.values():
        report.sent += facts["transform/sent"]
        report.reused += facts["transform/reused"]
        report.batches += facts["transform/batches"]
        cost = facts["transform/cost_usd"]
        known = report.cost_usd is not None and isinstance(cost, float)
        report.cost_usd = report.cost_usd + cost if known else None  # type: ignore[operator]


def _sentence(report: Report) -> str:
    if not report.success:
        return f"{report.pipeline}: failed"
    if not report.run_ids:
        return f"{report.pipeline}: nothing waits in its queue"
    return (
        f"{report.pipeline}: {report.records:,} records in {report.partitions} partition(s), "
        f"{report.answered:,} answered, {report.review:,} in review\n"
        f"  sent {report.sent:,} in {report.batches} batch(es), reused {report.reused:,}; "
        f"{cost(report)}\n"
        f"  table {report.table} in {report.warehouse}"
    )


def cost(report: Report) -> str:
    """What was paid, or, on the emulator, what it would have cost."""
    if report.cost_usd is None:
        return "cost unknown: no price for this model"
    if report.endpoint == "emulator":
        return f"emulated: would have cost ${report.cost_usd:.6f}"
    return f"cost ${report.cost_usd:.6f}"


@contextmanager
def progress_to_stderr() -> Iterator[None]:
    """Show what the steps say, one line each, while the body runs."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("batch_etl.progress")
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before


def raise_if_failed(report: Report) -> None:
    if not report.success:
        raise BatchEtlError("; ".join(report.errors) or f"{report.pipeline} failed")
