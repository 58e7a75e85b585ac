"""A pipeline behind an asset of the user's own: what it handed over becomes the records.

``via: value`` makes the asset an input of ``<name>/records``, loaded by the asset's IO manager;
``via: file`` makes it a dependency, and the path is looked up in its newest materialization. The
partitions are mapped by Dagster's rules: the same keys where both have the same partitions.
"""

# No postponed annotations here: Dagster reads those of the assets' functions as they are.
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import dagster as dg

from batch_etl.components import steps
from batch_etl.errors import ConfigError, SourceError
from batch_etl.resources import StorageResource
from batch_etl.sources.asset import AssetSource

_PATHS = ("dagster/uri", "path")


def records_of_value(
    shared: Mapping[str, Any], pipeline: steps.Pipeline, source: AssetSource
) -> dg.AssetsDefinition:
    """The asset ``records``, with the upstream asset's value as its input."""
    key = dg.AssetKey.from_user_string(source.asset)

    @dg.asset(**shared, kinds={"parquet"}, ins={"upstream": dg.AssetIn(key)})
    def records(context: dg.AssetExecutionContext, storage: StorageResource, upstream: Any) -> None:
        opened = source.opened(lambda partition: _value(upstream, partition, source))
        steps.extract_records(context, replace(pipeline, source=opened), storage)

    return records  # pyright: ignore[reportReturnType]


def records_of_file(
    shared: Mapping[str, Any], pipeline: steps.Pipeline, source: AssetSource
) -> dg.AssetsDefinition:
    """The asset ``records``, which reads the file of the upstream asset."""

    @dg.asset(**shared, kinds={"parquet"})
    def records(context: dg.AssetExecutionContext, storage: StorageResource) -> None:
        opened = source.opened(lambda partition: _path(context.instance, source, partition))
        steps.extract_records(context, replace(pipeline, source=opened), storage)

    return records  # pyright: ignore[reportReturnType]


def refuse_outside_a_run(pipeline: steps.Pipeline) -> None:
    """Raise ConfigError for a pipeline whose records only a Dagster run can read."""
    if isinstance(pipeline.source, AssetSource):
        raise ConfigError(
            f"the records of {pipeline.name!r} are what asset {pipeline.source.asset!r} hands over "
            "in a Dagster run; they cannot be read outside of one"
        )


def _value(upstream: Any, partition: str | None, source: AssetSource) -> Any:
    """The value of one partition: IO managers give a dictionary for a range of them."""
    if partition is None or not isinstance(upstream, Mapping):
        return upstream
    if partition not in upstream:
        raise SourceError(f"asset {source.asset}: its value has no partition {partition!r}")
    return upstream[partition]


def _path(instance: dg.DagsterInstance, source: AssetSource, partition: str | None) -> str:
    """The file that the newest materialization names."""
    of = f"asset {source.asset}" + (f", partition {partition!r}" if partition else "")
    found = instance.fetch_materializations(
        dg.AssetRecordsFilter(
            asset_key=dg.AssetKey.from_user_string(source.asset),
            asset_partitions=[partition] if partition else None,
        ),
        limit=1,
    ).records
    if not found or found[0].asset_materialization is None:
        raise SourceError(f"{of}: it was never materialized; materialize it first")
    metadata = found[0].asset_materialization.metadata
    names = [source.metadata_key] if source.metadata_key else list(_PATHS)
    for name in names:
        if name in metadata:
            return str(metadata[name].value)
    raise SourceError(
        f"{of}: its materialization has no metadata {' or '.join(map(repr, names))} with the path; "
        f"it has {', '.join(metadata) or 'none'}. Set `metadata_key`, or add the entry in the asset"
    )
