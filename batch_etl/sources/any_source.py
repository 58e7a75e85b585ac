"""The ``source`` block of a pipeline: one of several models, chosen by its key ``type``.

A plain pydantic union would name every model's complaints, or put the chosen type into the path of
each error, where no YAML key stands. Here ``type`` is read first, and the one model it names checks
the block, so a mistake is told in that model's words at the YAML's own place. The JSON schema says
the same to ``dg check yaml`` and to editors: ``if`` the type is this, ``then`` the block is that.

Another kind of source is one more member of :data:`AnySource`, with a ``type`` of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from batch_etl.sources.asset import AssetSource
from batch_etl.sources.documents import DocumentsSource
from batch_etl.sources.duckdb_file import DuckdbSource
from batch_etl.sources.files import FilesSource
from batch_etl.sources.http import HttpSource
from batch_etl.sources.queue import QueueSource
from batch_etl.sources.sql import SqlSource
from batch_etl.sources.table import TableSource
from batch_etl.strict import did_you_mean

_DEFAULT = "files"


@dataclass(frozen=True)
class _ByType:
    """Validates as the one of ``models`` whose ``type`` the block has; without any, as files."""

    models: tuple[type[BaseModel], ...]

    def chosen(self, block: Any) -> BaseModel:
        """The block as its model. Raises ValueError for a type that none of them has."""
        if isinstance(block, self.models):
            return block
        by_type = self._by_type
        name = block.get("type", _DEFAULT) if isinstance(block, Mapping) else _DEFAULT
        if not isinstance(name, str) or name not in by_type:
            raise ValueError(
                f"type: {name!r} is no kind of source{did_you_mean(str(name), [*by_type])}"
            )
        return by_type[name].__pydantic_validator__.validate_python(block)

    @property
    def _by_type(self) -> dict[Any, type[BaseModel]]:
        return {get_args(one.model_fields["type"].annotation)[0]: one for one in self.models}

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.chosen)

    def __get_pydantic_json_schema__(
        self, _: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        branches = [
            {"if": _has_type(name), "then": handler(model.__pydantic_core_schema__)}
            for name, model in self._by_type.items()
        ]
        kinds = {"enum": list(self._by_type), "default": _DEFAULT}
        return {"type": "object", "properties": {"type": kinds}, "allOf": branches}


def _has_type(name: str) -> dict[str, Any]:
    """The JSON schema of a block of this type; the default type need not be said."""
    said = {"properties": {"type": {"const": name}}}
    return said if name == _DEFAULT else said | {"required": ["type"]}


AnySource = Annotated[
    FilesSource
    | DocumentsSource
    | SqlSource
    | DuckdbSource
    | HttpSource
    | TableSource
    | AssetSource
    | QueueSource,
    _ByType(
        (
            FilesSource,
            DocumentsSource,
            SqlSource,
            DuckdbSource,
            HttpSource,
            TableSource,
            AssetSource,
            QueueSource,
        )
    ),
]
"""Where a pipeline's records come from, as its YAML says."""
