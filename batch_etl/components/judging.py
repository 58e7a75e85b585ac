"""From what a step made to its checks' verdicts: which checks there are, and what they look at.

Results are judged by their own files, the table by the published file: not by what the step says
that it wrote.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg
import duckdb
from upath import UPath

from batch_etl.batches.budget import Budget, Standing
from batch_etl.batches.runner import Summary
from batch_etl.batches.task import Task
from batch_etl.components import labels, verdicts
from batch_etl.components.checks import Checks, LabelDrift
from batch_etl.components.drift import shift
from batch_etl.components.verdicts import Verdict
from batch_etl.files import Home, row_count
from batch_etl.sources import FanOut
from batch_etl.warehouse import PartitionReport, TableInfo
from batch_etl.warehouse.sql import qualified

Keys = Sequence[str | None]


@dataclass(frozen=True)
class Judge:
    """A pipeline's checks, and what they need to know of it."""

    pipeline: str
    checks: Checks
    task: Task
    partitions: dg.PartitionsDefinition[str] | None
    budget: Budget | None = None
    fan_out: FanOut | None = None

    # which checks there are ---------------------------------------------------------------------

    @property
    def of_results(self) -> tuple[str, ...]:
        names = ["row_count", "success_rate", "completion_time"]
        if self.task.answer_schema is not None:
            names.append("schema_validity")
        if self.budget is not None and self.budget.model_dump(exclude_none=True):
            names.append("cost")
        timed = isinstance(self.partitions, dg.TimeWindowPartitionsDefinition)
        if timed and self.drifting:
            names.append("label_drift")
        return tuple(names)

    of_table = ("row_count", "review_queue")

    @property
    def labels(self) -> tuple[str, ...]:
        """The answer's parts that have few values."""
        schema = self.task.answer_schema
        return labels.label_columns(schema.resolved if schema else None)

    @property
    def drifting(self) -> tuple[str, ...]:
        """The labels whose drift is watched."""
        chosen = self.checks.label_drift.columns
        return self.labels if chosen is None else tuple(chosen)

    # what they say ------------------------------------------------------------------------------

    def results(
        self, home: Home, endpoint: str, summary: Summary, standings: Sequence[Standing]
    ) -> list[Verdict]:
        """Of a finished transform's results files, one for each check and partition."""
        found = list(self._by_partition(home, summary))
        keys = [partition.key for partition in summary.partitions]
        for key in keys:
            hours = self.checks.completion_time.max_hours
            found.append(verdicts.completion_time(key, summary.batches, hours))
            found.append(verdicts.cost(key, standings, self.checks.cost.max_share))
        if "label_drift" in self.of_results and self.checks.label_drift.enabled:
            found += self._drift(home, endpoint, keys)
        return found

    def _by_partition(self, home: Home, summary: Summary) -> Iterator[Verdict]:
        checks = self.checks
        for one in summary.partitions:
            records = row_count(home.records(self.pipeline, one.key))
            rows = {"records": records, "results": row_count(one.path)}
            if self.fan_out is not None:
                extracted = home.records(self.pipeline, one.key)
                rows["source records x values"] = self.fan_out.expected_rows(extracted)
            answered = one.outcomes.get("Succeeded", 0)
            invalid = one.outcomes.get("Invalid", 0)
            yield verdicts.row_count(one.key, rows)
            yield verdicts.success_rate(
                one.key, answered, one.records, checks.success_rate.min_share
            )
            yield verdicts.schema_validity(
                one.key, invalid, one.records, checks.schema_validity.max_share
            )

    def _drift(self, home: Home, endpoint: str, keys: Keys) -> Iterator[Verdict]:
        check = self.checks.label_drift
        earlier = {key: self._earlier(key, check) for key in keys if key is not None}
        wanted = {*earlier, *(one for before in earlier.values() for one in before)}
        files: dict[str | None, UPath] = {
            key: home.results(endpoint, self.pipeline, key) for key in wanted
        }
        counted = labels.in_results(files, self.drifting)
        for key, before in earlier.items():
            seen = [one for one in before if counted.get(one)]
            past = labels.together(counted[one] for one in seen)
            now = counted.get(key, {})
            shifts = [shift(name, now.get(name, {}), past.get(name, {})) for name in self.drifting]
            real = [one for one in shifts if one is not None]
            yield verdicts.label_drift(key, real, seen, check.max_distance)

    def _earlier(self, key: str, check: LabelDrift) -> list[str]:
        """The partitions before this one, oldest first, whether or not they have results."""
        definition = self.partitions
        assert isinstance(definition, dg.TimeWindowPartitionsDefinition)  # noqa: S101
        window = definition.time_window_for_partition_key(key)
        before: list[str] = []
        while len(before) < check.partitions:
            previous = definition.get_prev_partition_window(window.start)
            if previous is None or previous.start < definition.start:
                break
            window = previous
            before.append(definition.get_partition_key_for_timestamp(window.start.timestamp()))
        return before[::-1]

    def table(
        self,
        connection: duckdb.DuckDBPyConnection,
        table: TableInfo,
        home: Home,
        endpoint: str,
        reports: Sequence[PartitionReport],
    ) -> list[Verdict]:
        """Of the published table, one for each check and partition."""
        published = _rows(connection, table, [report.partition for report in reports])
        found: list[Verdict] = []
        for report in reports:
            key = report.partition
            rows = {
                "records": row_count(home.records(self.pipeline, key)),
                "results": row_count(home.results(endpoint, self.pipeline, key)),
                "table": published.get(key, 0),
            }
            found.append(verdicts.row_count(key, rows))
            most = self.checks.review_queue.max_share
            found.append(verdicts.review_queue(key, report.review, report.rows, most))
        return found


def _rows(
    connection: duckdb.DuckDBPyConnection, table: TableInfo, keys: Keys
) -> Mapping[str | None, int]:
    counted = connection.execute(
        f"SELECT _partition, count(*) FROM {qualified(table.schema, table.name)} "
        "WHERE _partition IS NULL OR list_contains($keys, _partition) GROUP BY ALL",
        {"keys": [key for key in keys if key is not None]},
    ).fetchall()
    return dict(counted)
