"""Pipelines in a row: one's table is the other's source.

``<other>/table`` becomes a dependency of ``<this>/records``, so the graph shows the lineage, and
Dagster's own rules say which partitions go with which: the same keys where both pipelines have the
same partitions. The rows are read from the published warehouse, of the endpoint that is chosen now:
what the emulator answered is never a record for Claude.
"""

# No postponed annotations here: Dagster reads those of the assets' functions as they are.
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import dagster as dg

from batch_etl.components import steps
from batch_etl.errors import SourceError, WarehouseError
from batch_etl.resources import EndpointResource, StorageResource, WarehouseResource
from batch_etl.sources.table import Place, TableSource
from batch_etl.strict import did_you_mean
from batch_etl.warehouse import LoadedTable, Warehouse, loaded_partitions, loaded_tables, table_info


def records_asset(shared: Mapping[str, Any], pipeline: steps.Pipeline) -> dg.AssetsDefinition:
    """The asset ``records``, which reads the other pipeline's table."""

    @dg.asset(**shared, kinds={"parquet"})
    def records(
        context: dg.AssetExecutionContext,
        storage: StorageResource,
        endpoint: EndpointResource,
        warehouse: WarehouseResource,
    ) -> None:
        with steps.explained():
            home = storage.at()
            bound = readable(pipeline, warehouse.open(home), endpoint.name())
        steps.extract_records(context, bound, storage)

    return records  # pyright: ignore[reportReturnType]


def readable(pipeline: steps.Pipeline, warehouse: Warehouse, endpoint: str) -> steps.Pipeline:
    """The pipeline with a source that reads the table; any other pipeline as it is."""
    if not isinstance(pipeline.source, TableSource):
        return pipeline
    place = _place(pipeline.source.pipeline, warehouse, endpoint)
    return replace(pipeline, source=pipeline.source.bound(place))


def _place(other: str, warehouse: Warehouse, endpoint: str) -> Place:
    """Where the other pipeline's table is. Raises SourceError where nothing of it was loaded."""
    try:
        with warehouse.read_only() as connection:
            table = _loaded(loaded_tables(connection), other, endpoint)
            info = table_info(connection, table.schema, table.name)
            partitions = loaded_partitions(connection, table)
    except WarehouseError as error:
        raise SourceError(f"source: pipeline {other!r} has no table yet: {error}") from error
    return Place(
        path=warehouse.published,
        schema=table.schema,
        table=table.name,
        columns=[column.name for column in info.columns],
        partitions=partitions,
        endpoint=endpoint,
    )


def _loaded(tables: tuple[LoadedTable, ...], other: str, endpoint: str) -> LoadedTable:
    mine = {table.pipeline: table for table in tables if table.endpoint == endpoint}
    if other not in mine:
        near = did_you_mean(other, [*mine])
        raise SourceError(
            f"source: no table of pipeline {other!r} with answers of endpoint {endpoint!r} is in "
            f"the warehouse{near} Run it with this endpoint first"
        )
    return mine[other]
