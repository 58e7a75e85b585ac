"""``batch-etl review requeue``: records in review, asked once more with another model or prompt.

What was asked of them is answered for good; a requeue asks otherwise. It is one transform of the
pipeline, over just these records, with the changed task: reserved of the same budgets, sent once,
gone on with after a kill, its answers reused like all others. Its scope is no partition of the
pipeline but a name of its own (``components/requeue.py``), so that no run of the pipeline takes it
for an older self, and its results do not replace the partition's.

The answers that came of it become decisions, as if a person had given them: kept in a file below
``reviews/``, shown in the table with the model and the task's version in ``_decided_by``, and
shown again by every later load for as long as the record would else be in review.

Killed at any moment, the same command goes on: the transform is found by what it asks; what it
bought is reused; decisions that are kept twice are the same decision.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from batch_etl.commands import emulator, project
from batch_etl.commands.run import pipelines, progress_to_stderr
from batch_etl.commands.tables import table_named, warehouse_at
from batch_etl.components.requeue import asked_otherwise, scope_key
from batch_etl.errors import ConfigError, SourceError
from batch_etl.files import Home, ParquetSink, read_batches
from batch_etl.strict import did_you_mean
from batch_etl.warehouse import Decision, LoadedTable, PartitionLoad, Standing, standings
from batch_etl.warehouse.review import Chosen, in_review, is_as_loaded, rows_of_ids

if TYPE_CHECKING:
    from batch_etl.batches.runner import Runner
    from batch_etl.batches.task import Task
    from batch_etl.batches.transform import Transform
    from batch_etl.components.steps import Pipeline
    from batch_etl.environment import Settings


@dataclass(frozen=True)
class Otherwise:
    """What of the task is other than in the YAML."""

    model: str | None
    prompt: Path | None
    max_tokens: int | None


@dataclass
class Report:
    """What a requeue came to."""

    pipeline: str
    table: str
    requeued: int = 0
    answered: int = 0
    review: int = 0
    sent: int = 0
    reused: int = 0
    cost_usd: float | None = 0.0
    decided_by: list[str] = field(default_factory=list[str])


def requeue(
    home: Path | None,
    pipeline: str,
    chosen: Chosen,
    otherwise: Otherwise,
    defs: Path | None,
    *,
    as_json: bool,
) -> None:
    """Ask again, wait for the answers, keep and show them."""
    settings = project.settings_at(home)
    settings.require_endpoint()
    with emulator.if_needed(settings), progress_to_stderr():
        settings = project.settings_at(None)
        definitions = project.definitions(defs)
        report = _Requeue.of(pipeline, pipelines(definitions), settings, otherwise).run(chosen)
    click.echo(json.dumps(vars(report)) if as_json else _sentence(report, settings))


def _sentence(report: Report, settings: Settings) -> str:
    if not report.requeued:
        return f"{report.table}: nothing in review was chosen"
    cost = "unknown" if report.cost_usd is None else f"${report.cost_usd:.6f}"
    would = "would have cost" if settings.chosen == "emulator" else "cost"
    return (
        f"{report.table}: {report.requeued:,} asked again, {report.answered:,} answered, "
        f"{report.review:,} still in review\n"
        f"  sent {report.sent:,}, reused {report.reused:,}; {would} {cost}"
    )


@dataclass(frozen=True)
class _Asked:
    """The records of one partition that are asked again, in the order of their file."""

    partition: str | None
    scope: str
    before: list[Standing]


class _Requeue:
    """One call's work on one pipeline's table."""

    def __init__(self, own: Pipeline, task: Task, settings: Settings) -> None:
        from batch_etl.resources import endpoint_of

        self._own = own
        self._task = task
        self._settings = settings
        self._endpoint = endpoint_of(settings, settings.api_key, settings.auth_token).name()
        self._home = Home.at(str(settings.home))
        self._warehouse, _ = warehouse_at(None)

    @classmethod
    def of(
        cls, name: str, known: Sequence[str], settings: Settings, otherwise: Otherwise
    ) -> _Requeue:
        from batch_etl.components.steps import LOADED

        if name not in known:
            raise ConfigError(f"there is no pipeline {name!r}{did_you_mean(name, [*known])}")
        own = LOADED[name]
        prompt = None if otherwise.prompt is None else _text(otherwise.prompt)
        task = asked_otherwise(own.task, otherwise.model, prompt, otherwise.max_tokens)
        return cls(own, task, settings)

    def run(self, chosen: Chosen) -> Report:
        if self._warehouse.working.exists():
            self._warehouse.publish()  # what an interrupted call has committed
        with self._warehouse.read_only() as connection:
            table = table_named(connection, self._own.name, self._endpoint, self._settings)
            found = in_review(connection, table, chosen)
            report = Report(self._own.name, table.qualified_name, requeued=len(found))
            if not found:
                return report
            asked = self._asked(connection, table, found)
        transform = self._transform(asked)
        self._advance(transform, report)
        self._keep(table, asked, report)
        for one in asked:
            self._home.records(self._own.name, one.scope).unlink()
            self._home.results(self._endpoint, self._own.name, one.scope).unlink()
        return report

    def _asked(
        self, connection: Any, table: LoadedTable, found: Sequence[Standing]
    ) -> list[_Asked]:
        """The records' files, one for each partition that has any."""
        asked: list[_Asked] = []
        by_partition = sorted(found, key=lambda one: one.partition or "")
        for partition, some in groupby(by_partition, key=lambda one: one.partition):
            before = {one.record_id: one for one in some}
            records = self._home.records(self._own.name, partition)
            results = self._home.results(self._endpoint, self._own.name, partition)
            load = PartitionLoad(partition, records, results)
            if not (records.exists() and results.exists()) or not is_as_loaded(
                connection, self._own.table, table, load
            ):
                where = "" if partition is None else f", partition {partition}"
                raise SourceError(
                    f"pipeline {self._own.name!r}{where}: the records or results are not those "
                    "that the table was loaded from; run it first, then requeue"
                )
            rows = rows_of_ids(connection, table, records, list(before))
            kept = [before[name] for _, name in rows]
            scope = scope_key(partition, self._task, [one.request_key or "" for one in kept])
            self._write(records, [row for row, _ in rows], scope)
            asked.append(_Asked(partition, scope, kept))
        return asked

    def _write(self, records: UPath, rows: Sequence[int], scope: str) -> None:
        schema = pq.read_schema(str(records))
        wanted, first = np.array(rows), 0
        with ParquetSink(self._home.records(self._own.name, scope), schema) as sink:
            for batch in read_batches(records):
                numbers = np.arange(first, first + batch.num_rows)
                sink.write(batch.filter(pa.array(np.isin(numbers, wanted))))
                first += batch.num_rows

    def _transform(self, asked: Sequence[_Asked]) -> Transform:
        as_ever = self._own.transform(self._home, [one.scope for one in asked])
        return replace(as_ever, task=self._task)

    def _advance(self, transform: Transform, report: Report) -> None:
        from batch_etl.components.steps import until_done
        from batch_etl.resources import runner_of

        with runner_of(self._settings) as runner:
            transform_id = runner.open(transform)
            for progress in until_done(runner, transform_id, transform):
                _tell(transform.pipeline, progress)
            summary = runner.summary(transform_id, transform)
            self._remember_history(runner)
        report.sent, report.reused = summary.counts["sent"], summary.counts["reused"]
        cost = summary.cost_pico_usd
        report.cost_usd = None if cost is None else cost / 1e12

    def _remember_history(self, runner: Runner) -> None:
        """What was spent shows in the warehouse's history."""
        ledger = runner.exchange.ledger
        transforms = ledger.transforms(endpoint=self._endpoint)
        batches = ledger.batches(endpoint=self._endpoint)
        self._warehouse.load_history(map(vars, transforms), map(vars, batches))

    def _keep(self, table: LoadedTable, asked: Sequence[_Asked], report: Report) -> None:
        """Decide with what was answered; whom a person or a run has answered by now is left so."""
        decisions: dict[str, list[Decision]] = {}
        for one in asked:
            answers = self._answers(one)
            with self._warehouse.read_only() as connection:
                now = standings(connection, table, [before.record_id for before in one.before])
            for row, (answer, who) in answers.items():
                before = one.before[row]
                if now.get((before.record_id, before.partition)) == before:
                    decisions.setdefault(who, []).append(Decision(before, answer))
        for who, some in sorted(decisions.items()):
            self._warehouse.decide(table, some, who)
        self._warehouse.publish()
        counts = Counter({who: len(some) for who, some in decisions.items()})
        report.answered = counts.total()
        report.review = report.requeued - report.answered
        report.decided_by = sorted(counts)

    def _answers(self, one: _Asked) -> dict[int, tuple[str, str]]:
        """By row of the asked records' file: the answer's JSON, and who gave it."""
        path = self._home.results(self._endpoint, self._own.name, one.scope)
        columns = ["record_row", "state", "output", "model", "task_version"]
        return {
            row["record_row"]: (row["output"], f"{row['model']} (task {row['task_version']})")
            for row in pq.read_table(str(path), columns=columns).to_pylist()
            if row["state"] == "answered"
        }


def _tell(pipeline: str, progress: Any) -> None:
    from batch_etl.components.steps import progress_log, sentence

    progress_log.info("%s/review: %s", pipeline, sentence(progress))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as a prompt: {error}") from None
