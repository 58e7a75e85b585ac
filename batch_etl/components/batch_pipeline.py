"""The ``BatchPipeline`` component: one YAML block -> three assets.

    <name>/records   the source's records as Parquet, one file a partition
    <name>/results   one outcome for each record, from the Message Batches API: the batch transform
    <name>/table     a typed DuckDB table, one row a record

All three share one single-run backfill policy, so that a backfill of many partitions is one run
whose requests are packed into full batches and whose waiting is one process's. ``results`` waits
in the step's own thread: Terminate is answered at once, and whatever was sent is in the ledger, so
the next run goes on where this one was.

YAML strings here are not Dagster templates: ``{{ }}`` in a prompt belongs to the record.
"""

# No postponed annotations here: Dagster reads those of the assets' functions as they are.
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import dagster as dg
import pydantic

from batch_etl.batches.task import Task
from batch_etl.components import steps
from batch_etl.components.partitions import Partitions
from batch_etl.resources import (
    EndpointResource,
    LedgerResource,
    StorageResource,
    WarehouseResource,
)
from batch_etl.sources import FilesSource
from batch_etl.strict import Strict
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


class BatchPipeline(dg.Component, Strict):
    """One question to Claude for each record of a source, at the batch price, into DuckDB."""

    name: str = pydantic.Field(description="Asset group and table name.")
    source: FilesSource = pydantic.Field(description="Where the records come from.")
    task: Task = pydantic.Field(description="What is asked of each record.")
    partitions: Partitions | None = pydantic.Field(
        default=None, description="How records are cut; one partition by default."
    )
    table: Table = pydantic.Field(default=Table(), description="The DuckDB table.")
    description: str | None = pydantic.Field(default=None, description="What the pipeline answers.")
    owners: list[str] = pydantic.Field(
        default_factory=list, description="Users (e-mail) or team:name."
    )
    tags: dict[str, str] = pydantic.Field(
        default_factory=dict, description="Tags of all three assets."
    )

    @classmethod
    def get_model_cls(cls) -> type[pydantic.BaseModel]:
        """The YAML's shape is this class itself, so that all of it is checked with file and line.

        A class that Dagster derives would also take any text for each key (a template of its own),
        and would complain about that beside every real mistake.
        """
        return cls

    @classmethod
    def load(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        attributes: pydantic.BaseModel | None,
        context: dg.ComponentLoadContext,  # noqa: ARG003
    ) -> Self:
        """Dagster's, not ``Strict``'s: ``attributes`` were checked already."""
        assert isinstance(attributes, cls)  # noqa: S101
        return attributes

    @pydantic.field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} must be letters, digits and underscores, as in an SQL name")
        return name

    @pydantic.model_validator(mode="after")
    def _partitions_have_a_source(self) -> Self:
        column, partitions = self.source.partition_column, self.partitions
        placed = "{partition}" in str(self.source.path) or "{start" in str(self.source.path)
        if partitions is None and (column is not None or placed):
            raise ValueError("the source is partitioned; add a `partitions` block")
        if partitions is not None and column is None and not placed:
            raise ValueError(
                "`partitions` needs `source.partition_column`, or {partition} in `source.path`"
            )
        return self

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The pipeline's assets; a relative path of the source is taken from the YAML's folder."""
        folder = Path(context.path)
        source = self.source.model_copy(update={"base_folder": folder / self.source.base_folder})
        pipeline = steps.Pipeline(
            name=self.name,
            source=source,
            task=self.task,
            table=self.table_spec,
            partitions=self.partitions.definition() if self.partitions else None,
        )
        return dg.Definitions(assets=self.build_assets(pipeline))

    @cached_property
    def table_spec(self) -> TableSpec:
        schema = self.task.answer_schema
        return TableSpec(
            name=self.table.name or self.name,
            id_column=self.source.id,
            description=self.description,
            output_schema=schema.resolved if schema else None,
            columns=tuple(self.table.columns) if self.table.columns is not None else None,
            column_descriptions=self.table.column_descriptions,
        )

    def build_assets(self, pipeline: steps.Pipeline) -> list[dg.AssetsDefinition]:
        """The three assets. Override to change what Dagster is told about them."""

        @dg.asset(
            **self._shared("records", pipeline, "The source's records as Parquet."),
            kinds={"parquet"},
        )
        def records(context: dg.AssetExecutionContext, storage: StorageResource) -> None:
            steps.extract_records(context, pipeline, storage)

        @dg.asset(
            **self._shared("results", pipeline, "One outcome a record, from Claude."),
            kinds={"claude", "parquet"},
            deps=[records],
            code_version=self.task.version,
        )
        def results(
            context: dg.AssetExecutionContext,
            storage: StorageResource,
            ledger: LedgerResource,
            endpoint: EndpointResource,
        ) -> None:
            steps.transform_records(context, pipeline, storage, ledger, endpoint)

        @dg.asset(
            **self._shared("table", pipeline, "One typed row a record, in DuckDB."),
            kinds={"duckdb"},
            deps=[records, results],
            pool=POOL,
        )
        def table(
            context: dg.AssetExecutionContext,
            storage: StorageResource,
            endpoint: EndpointResource,
            warehouse: WarehouseResource,
        ) -> None:
            steps.load_table(context, pipeline, storage, endpoint, warehouse)

        return [records, results, table]  # pyright: ignore[reportReturnType]

    def _shared(self, name: str, pipeline: steps.Pipeline, what: str) -> Mapping[str, Any]:
        return {
            "key": dg.AssetKey([self.name, name]),
            "group_name": self.name,
            "description": "\n\n".join(filter(None, [what, self.description])),
            "owners": self.owners,
            "tags": {**self.tags, "batch_etl/pipeline": self.name},
            "metadata": {"batch_etl/task_version": self.task.version},
            "partitions_def": pipeline.partitions,
            "backfill_policy": dg.BackfillPolicy.single_run() if pipeline.partitions else None,
        }
