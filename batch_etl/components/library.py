"""Pipelines made in Python: the same fields as in YAML, checked by the same model.

defs = dg.Definitions.merge(
    dg.Definitions(assets=[orders], resources=batch_etl.environment_resources()),
    batch_etl.build_batch_pipeline(
        name="order_notes",
        source={"type": "asset", "asset": orders, "id": "order_id"},
        task={"claude_model": "claude-haiku-4-5", "max_tokens": 200, "prompt": "..."},
    ),
)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, cast

import dagster as dg
import pydantic

from batch_etl import environment
from batch_etl.components.batch_pipeline import BatchPipeline
from batch_etl.errors import ConfigError
from batch_etl.resources import from_settings
from batch_etl.strict import explain


def build_batch_pipeline(
    *,
    name: str,
    source: Mapping[str, Any] | Any,
    task: Mapping[str, Any] | Any,
    folder: str | PathLike[str] = ".",
    component: type[BatchPipeline] = BatchPipeline,
    **fields: Any,
) -> dg.Definitions:
    """The pipeline's assets, schedule and sensors; its resources are the project's.

    Fields are those of the YAML, as plain values or as the models that they become. ``source`` and
    ``depends_on`` may name assets by key, spec or definition. Relative paths are taken from
    ``folder``. ``component`` is a subclass of BatchPipeline, where you have one. Raises
    ``ConfigError`` that names each key that cannot be used.
    """
    values = {"name": name, "source": _with_asset_key(source), "task": task, **fields}
    if isinstance(after := fields.get("depends_on"), list | tuple):
        values["depends_on"] = [_key(asset) for asset in cast("Sequence[Any]", after)]
    try:
        made = component.model_validate(values)
    except pydantic.ValidationError as error:
        raise ConfigError(explain(error, f"pipeline {name!r}")) from None
    place = Path(folder).absolute()
    return made.anchored(place).definitions(place)


def environment_resources() -> dict[str, Any]:
    """The resources that the assets need, as the environment says: for ``Definitions``.

    Raises ``ConfigError`` for a setting that cannot be used. Secrets stay references to variables.
    """
    return from_settings(environment.read())


def _with_asset_key(source: Any) -> Any:
    if not isinstance(source, Mapping) or "asset" not in source:
        return source
    return {**source, "asset": _key(source["asset"])}


def _key(asset: Any) -> Any:
    """The key of an asset, as YAML has it; what is none is left for the model to refuse."""
    if isinstance(asset, dg.AssetsDefinition | dg.AssetSpec):
        return asset.key.to_user_string()
    return asset.to_user_string() if isinstance(asset, dg.AssetKey) else asset
