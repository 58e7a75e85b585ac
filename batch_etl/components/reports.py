"""What a step tells Dagster of what it made: facts of each partition, and facts of the whole run.

Read back from the files that the step wrote: the sample from the results, the picture of the
labels' shares from the published table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
import duckdb
import pyarrow.parquet as pq

from batch_etl.batches.runner import Summary
from batch_etl.batches.task import Task
from batch_etl.components import labels, lineage, metadata, plots, results_files
from batch_etl.files import Home
from batch_etl.warehouse import LoadReport


@dataclass(frozen=True)
class Facts:
    """Metadata: of each partition's materialization, and what is the same on all of them."""

    by_partition: dict[str | None, dict[str, Any]]
    of_run: dict[str, Any]


def of_results(
    home: Home, pipeline: str, task: Task, *, summary: Summary, endpoint: str, sample_rows: int
) -> Facts:
    files = {one.key: one.path for one in summary.partitions}
    samples = results_files.samples(files, sample_rows)
    by_partition = {
        one.key: {
            **metadata.of_partition(one, endpoint, task),
            **metadata.of_sample(samples.get(one.key)),
        }
        for one in summary.partitions
    }
    sent = [batch.batch_id for batch in summary.batches if batch.batch_id]
    of_run = {
        **metadata.of_transform(summary, endpoint),
        **metadata.of_reuse(results_files.reused_cost(files, sent)),
        "dagster/column_schema": lineage.results_schema(),
        "dagster/column_lineage": lineage.of_results(
            pipeline, task, _columns(home, pipeline, files)
        ),
    }
    return Facts(by_partition, of_run)


def _columns(home: Home, pipeline: str, keys: results_files.Files) -> list[str]:
    """Names of the records' columns, as the first partition has them."""
    first = next(iter(keys), None)
    return pq.read_schema(str(home.records(pipeline, first))).names


def of_table(
    connection: duckdb.DuckDBPyConnection,
    home: Home,
    pipeline: str,
    report: LoadReport,
    shown: Sequence[str],
) -> Facts:
    """``shown`` are the labels to draw."""
    keys = [one.partition for one in report.partitions]
    counted = labels.in_table(connection, report.table, keys, shown)
    by_partition = {
        one.partition: {**metadata.of_loaded(one), **_picture(counted.get(one.partition))}
        for one in report.partitions
    }
    of_run = {
        **metadata.of_table(report, home),
        "dagster/column_lineage": lineage.of_table(connection, pipeline, report.table),
    }
    return Facts(by_partition, of_run)


def _picture(counted: labels.ByColumn | None) -> dict[str, Any]:
    if not counted:
        return {}
    said = ", ".join(counted)
    return {"labels": dg.MetadataValue.md(plots.as_markdown(counted, said))}
