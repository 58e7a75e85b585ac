"""The ``BatchPipeline`` component: one YAML block -> three assets.

    <name>/records   the source's records as Parquet, one file a partition
    <name>/results   one outcome for each record, from the Message Batches API: the batch transform
    <name>/table     a typed DuckDB table, one row a record

All three share one backfill policy: by default a backfill of many partitions is a single run, whose
requests are packed into full batches and whose waiting is one process's. ``results`` waits
in the step's own thread: Terminate is answered at once, and whatever was sent is in the ledger, so
the next run goes on where this one was.

YAML strings here are not Dagster templates: ``{{ }}`` in a prompt belongs to the record.
"""

# No postponed annotations here: Dagster reads those of the assets' functions as they are.
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

import dagster as dg
import pydantic

from batch_etl.batches.budget import Budget
from batch_etl.batches.task import Task
from batch_etl.components import chaining, queue, schedules, steps, upstream
from batch_etl.components.checks import Checks, specs
from batch_etl.components.deferred import WAITING, Waiting
from batch_etl.components.freshness import Freshness
from batch_etl.components.partitions import Partitions
from batch_etl.components.profiles import Profile, packed
from batch_etl.components.scaffold import PipelineScaffolder
from batch_etl.components.schedules import Schedule
from batch_etl.components.strict_component import StrictComponent
from batch_etl.components.terminate import Choice
from batch_etl.resources import (
    EndpointResource,
    LedgerResource,
    StorageResource,
    WarehouseResource,
)
from batch_etl.sources import AnySource, AssetSource, ForEach, QueueSource, TableSource
from batch_etl.strict import Strict, did_you_mean
from batch_etl.warehouse import TableSpec

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

POOL = "duckdb_writer"
"""The pool of the table assets: a DuckDB file has one writer."""


class Table(Strict):
    """The DuckDB table of a pipeline."""

    name: str | None = pydantic.Field(default=None, description="By default the pipeline's name.")
    columns: list[str] | None = pydantic.Field(
        default=None, description="Record columns that the table shows; all of them by default."
    )
    column_descriptions: dict[str, str] = pydantic.Field(
        default_factory=dict, description="Comments on the record columns."
    )


@dg.scaffold_with(PipelineScaffolder)
class BatchPipeline(StrictComponent):
    """One question to Claude for each record of a source, at the batch price, into DuckDB."""

    name: str = pydantic.Field(description="Asset group and table name.")
    source: AnySource = pydantic.Field(description="Where the records come from.")
    for_each: ForEach | None = pydantic.Field(
        default=None, description="Values for each of which every record is asked about."
    )
    task: Task = pydantic.Field(description="What is asked of each record.")
    partitions: Partitions | None = pydantic.Field(
        default=None, description="How records are cut; one partition by default."
    )
    depends_on: list[str] = pydantic.Field(
        default_factory=list,
        description="Keys of assets that make what the source reads: the records come after them.",
    )
    table: Table = pydantic.Field(default=Table(), description="The DuckDB table.")
    waiting: Waiting = pydantic.Field(
        default="await",
        description="While batches are at the API: `await` in the run, or end it green "
        "(`deferred`) and have the results asked for by a sensor of the Monitoring component.",
    )
    on_terminate: Choice = pydantic.Field(
        default="leave",
        description="What Terminate in the UI does to open batches: `leave` them to the next run, "
        "or `cancel` them and keep what they had answered.",
    )
    delete_collected: bool = pydantic.Field(
        default=False,
        description="Delete each batch at the API once its results are here (data retention).",
    )
    budget: Budget | None = pydantic.Field(
        default=None, description="The most that may be spent; over it nothing is sent."
    )
    schedule: Schedule | None = pydantic.Field(
        default=None, description="When it runs by itself: a cron, or a block."
    )
    profile: Profile | None = pydantic.Field(
        default=None, description="How large batches are, for a pipeline that runs so often."
    )
    checks: Checks = pydantic.Field(default=Checks(), description="Asset checks.")
    freshness: Freshness | None = pydantic.Field(
        default=None, description="How old the table's last load may be."
    )
    sample_rows: Annotated[int, pydantic.Field(ge=0, le=20)] = pydantic.Field(
        default=3, description="Answers of each partition that Dagster's metadata shows."
    )
    description: str | None = pydantic.Field(default=None, description="What the pipeline answers.")
    owners: list[str] = pydantic.Field(
        default_factory=list, description="Users (e-mail) or team:name."
    )
    tags: dict[str, str] = pydantic.Field(
        default_factory=dict, description="Tags of all three assets."
    )

    @classmethod
    def load(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, attributes: pydantic.BaseModel | None, context: dg.ComponentLoadContext
    ) -> Self:
        """As checked already, with the labels of files that lie beside the YAML."""
        return super().load(attributes, context).anchored(Path(context.path))

    def anchored(self, folder: Path) -> Self:
        """The same pipeline, with the labels of files that lie in ``folder``."""
        return self.model_copy(update={"task": self.task.anchored(folder)})

    @pydantic.field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} must be letters, digits and underscores, as in an SQL name")
        return name

    @pydantic.model_validator(mode="after")
    def _partitions_have_a_source(self) -> Self:
        self.source.check_partitions(self.partitions.cut if self.partitions else None)
        return self

    @pydantic.model_validator(mode="after")
    def _a_queue_needs_no_schedule(self) -> Self:
        if isinstance(self.source, QueueSource) and self.schedule is not None:
            raise ValueError("a queue is drained at `source.drain_at`: remove `schedule`")
        if isinstance(self.source, QueueSource) and self.for_each is not None:
            raise ValueError(
                "for_each: an item of a queue is one record; put one item in for each value"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _reads_no_table_of_its_own(self) -> Self:
        if isinstance(self.source, TableSource) and self.source.pipeline == self.name:
            raise ValueError("source.pipeline: a pipeline cannot read its own table")
        return self

    @pydantic.model_validator(mode="after")
    def _drift_is_of_columns_that_there_are(self) -> Self:
        schema = self.task.answer_schema
        known = list((schema.resolved if schema else {}).get("properties", {}))
        for name in self.checks.label_drift.columns or ():
            if name not in known:
                raise ValueError(
                    f"checks.label_drift.columns: {name!r} is no property of "
                    f"task.output_schema{did_you_mean(name, known)}"
                )
        return self

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The pipeline's assets; a relative path of the source is taken from the YAML's folder."""
        return self.definitions(Path(context.path))

    def definitions(self, folder: Path) -> dg.Definitions:
        """The pipeline's assets, schedule and sensors; relative paths are taken from ``folder``."""
        pipeline = steps.Pipeline(
            name=self.name,
            source=self.source.anchored(folder),
            task=packed(self.task, self.profile),
            table=self.table_spec,
            partitions=self._partitions_definition(),
            waiting=self.waiting,
            on_terminate=self.on_terminate,
            delete_collected=self.delete_collected,
            budget=self.budget,
            checks=self.checks,
            sample_rows=self.sample_rows,
            folder=folder,
            for_each=self.for_each,
        )
        steps.LOADED[self.name] = pipeline
        assets = self.build_assets(pipeline)
        if isinstance(self.source, QueueSource) and self.source.drain_at is not None:
            drained = queue.sensor(pipeline, self.source.drain_at)
            return dg.Definitions(assets=assets, sensors=[drained])
        if self.schedule is None:
            return dg.Definitions(assets=assets)
        asked = schedules.definitions(self.name, self.schedule, assets, pipeline.partitions)
        return dg.Definitions.merge(dg.Definitions(assets=assets), asked)

    def _partitions_definition(self) -> dg.PartitionsDefinition[str] | None:
        if isinstance(self.source, QueueSource):
            return queue.partitions_of(self.name)
        return self.partitions.definition() if self.partitions else None

    def _backfill_policy(self) -> dg.BackfillPolicy | None:
        """The drains of a range are one run, as partitions are by default."""
        if isinstance(self.source, QueueSource):
            return dg.BackfillPolicy.single_run()
        return self.partitions.backfill_policy if self.partitions else None

    @cached_property
    def table_spec(self) -> TableSpec:
        schema = self.task.answer_schema
        return TableSpec(
            name=self.table.name or self.name,
            pipeline=self.name,
            id_column=self.for_each.id_column(self.source.id) if self.for_each else self.source.id,
            description=self.description,
            output_schema=schema.resolved if schema else None,
            columns=tuple(self.table.columns) if self.table.columns is not None else None,
            column_descriptions=self.table.column_descriptions,
        )

    def build_assets(self, pipeline: steps.Pipeline) -> list[dg.AssetsDefinition]:
        """The three assets. Override to change what Dagster is told about them."""
        records = self._records(pipeline)

        @dg.asset(
            **self._shared("results", pipeline, "One outcome a record, from Claude."),
            kinds={"claude", "parquet"},
            deps=[records],
            code_version=self.task.version,
            output_required=self.waiting == "await",
            check_specs=self._checks("results", pipeline, pipeline.judge.of_results),
        )
        def results(
            context: dg.AssetExecutionContext,
            storage: StorageResource,
            ledger: LedgerResource,
            endpoint: EndpointResource,
        ) -> Iterator[Any]:
            yield from steps.transform_records(context, pipeline, storage, ledger, endpoint)

        @dg.asset(
            **self._shared("table", pipeline, "One typed row a record, in DuckDB."),
            kinds={"duckdb"},
            deps=[records, results],
            pool=POOL,
            freshness_policy=self.freshness.policy() if self.freshness else None,
            check_specs=self._checks("table", pipeline, pipeline.judge.of_table),
        )
        def table(
            context: dg.AssetExecutionContext,
            storage: StorageResource,
            ledger: LedgerResource,
            endpoint: EndpointResource,
            warehouse: WarehouseResource,
        ) -> Iterator[Any]:
            yield from steps.load_table(
                context, pipeline, storage, ledger, endpoint, warehouse=warehouse
            )

        return [records, results, table]  # pyright: ignore[reportReturnType]

    def _records(self, pipeline: steps.Pipeline) -> dg.AssetsDefinition:
        """The asset ``records``, which depends on what its source reads."""
        after = [dg.AssetKey.from_user_string(key) for key in self.depends_on]

        def shared(what: str, *keys: dg.AssetKey) -> Mapping[str, Any]:
            return {**self._shared("records", pipeline, what), "deps": [*after, *keys]}

        match self.source:
            case QueueSource():
                return queue.records_asset(shared("The drains' items as Parquet."), pipeline)
            case TableSource(pipeline=other):
                key = dg.AssetKey([other, "table"])
                return chaining.records_asset(
                    shared(f"Rows of {other}'s table as Parquet.", key), pipeline
                )
            case AssetSource(asset=name, via="file"):
                key = dg.AssetKey.from_user_string(name)
                what = f"The file of asset {name} as Parquet."
                return upstream.records_of_file(shared(what, key), pipeline, self.source)
            case AssetSource(asset=name):
                what = f"The value of asset {name} as Parquet."
                return upstream.records_of_value(shared(what), pipeline, self.source)
            case _:
                return _records_asset(shared("The source's records as Parquet."), pipeline)

    def _checks(
        self, name: str, pipeline: steps.Pipeline, names: Sequence[str]
    ) -> list[dg.AssetCheckSpec]:
        key = dg.AssetKey([self.name, name])
        return specs(key, names, self.checks, pipeline.partitions)

    def _shared(self, name: str, pipeline: steps.Pipeline, what: str) -> Mapping[str, Any]:
        return {
            "key": dg.AssetKey([self.name, name]),
            "group_name": self.name,
            "description": "\n\n".join(filter(None, [what, self.description])),
            "owners": self.owners,
            "tags": {**self.tags, "batch_etl/pipeline": self.name},
            "metadata": {"batch_etl/task_version": self.task.version, WAITING: self.waiting},
            "partitions_def": pipeline.partitions,
            "backfill_policy": self._backfill_policy(),
        }


def _records_asset(shared: Mapping[str, Any], pipeline: steps.Pipeline) -> dg.AssetsDefinition:
    """The asset ``records`` of a source that needs nothing of Dagster."""

    @dg.asset(**shared, kinds={"parquet"})
    def records(context: dg.AssetExecutionContext, storage: StorageResource) -> None:
        steps.extract_records(context, pipeline, storage)

    return records  # pyright: ignore[reportReturnType]
