"""Which columns a table has, in which order, and what each is filled from. Pure.

id column, the record's chosen columns, the answer's properties, then lineage. Names of DuckDB
columns are equal when case is ignored, so: an answer's property keeps its name; a record's column
of the same name becomes ``record_<name>``; what is still equal gets ``_2``, ``_3``. Names that
begin with an underscore and belong to the lineage are refused in an answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from batch_etl.errors import WarehouseError
from batch_etl.warehouse.sql import identifier, literal
from batch_etl.warehouse.types import (
    BOOLEAN,
    NULL,
    TIMESTAMPTZ,
    VARCHAR,
    DuckType,
    ListOf,
    Property,
    Scalar,
    description_of,
    properties,
    type_of,
)

Role = Literal["id", "record", "answer", "lineage"]

_TABLE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
_COUNT = Scalar("BIGINT")


@dataclass(frozen=True)
class TableSpec:
    """One pipeline's table.

    ``output_schema`` is the user's JSON Schema; None means free text, kept in ``answer``.
    ``columns`` are the record's columns to keep, None for all; ``column_descriptions`` describes
    record columns by their source name. ``pipeline`` is whose table it is, where that has another
    name.
    """

    name: str
    id_column: str
    description: str | None = None
    output_schema: Mapping[str, Any] | None = None
    columns: tuple[str, ...] | None = None
    column_descriptions: Mapping[str, str] = field(default_factory=dict[str, str])
    pipeline: str | None = None

    def __post_init__(self) -> None:
        if not _TABLE_NAME.fullmatch(self.name):
            raise WarehouseError(
                f"{self.name!r} cannot be a table's name: use letters, digits and underscores, "
                "beginning with a letter, 100 at most."
            )

    @property
    def owner(self) -> str:
        """The pipeline's name."""
        return self.pipeline or self.name

    @property
    def says(self) -> str:
        """The comment on the table."""
        return self.description or f"One row a record of pipeline {self.owner}, with its answer."


@dataclass(frozen=True)
class Column:
    """One column of a table; ``source`` is the name in the record or the answer (or, for lineage,
    its SQL).
    """

    name: str
    type: DuckType
    role: Role
    source: str
    description: str | None


_LINEAGE: tuple[tuple[str, DuckType, str, str], ...] = (
    ("_partition", VARCHAR, "$partition", "Partition of the pipeline; NULL if it has none."),
    (
        "_state",
        VARCHAR,
        "p.state",
        "answered (by the model, or in review: _decided_by); or review: no usable answer.",
    ),
    ("_outcome", VARCHAR, "p.outcome", "What became of the record's last request."),
    ("_reason", VARCHAR, "p.reason", "Why the model gave no usable answer."),
    ("_text", VARCHAR, "$text", "The raw answer, where the columns do not hold all of it."),
    (
        "_misfits",
        ListOf(VARCHAR),
        "$misfits",
        "Parts of the answer that its columns' types cannot hold; see _text.",
    ),
    ("_stop_reason", VARCHAR, "p.stop_reason", "Why the model stopped, in the API's words."),
    ("_model", VARCHAR, "p.model", "Model that answered."),
    (
        "_request_key",
        VARCHAR,
        "p.request_key",
        "Hash of the request: equal keys are equal questions.",
    ),
    ("_batch_id", VARCHAR, "p.batch_id", "Message Batch that carried the request."),
    ("_attempt", Scalar("SMALLINT"), "p.attempt", "Attempt that the row shows: 1, 2, 3."),
    ("_task_version", VARCHAR, "p.task_version", "Fingerprint of all that changes the answer."),
    ("_endpoint", VARCHAR, "p.endpoint", "Endpoint that answered."),
    ("_input_tokens", _COUNT, "p.input_tokens", "Input tokens billed at the full input price."),
    ("_output_tokens", _COUNT, "p.output_tokens", "Output tokens billed."),
    ("_cache_read_tokens", _COUNT, "p.cache_read_tokens", "Input tokens read from the cache."),
    ("_cache_write_tokens", _COUNT, "p.cache_write_tokens", "Input tokens written to the cache."),
    ("_cost_usd", Scalar("DECIMAL(18,12)"), "p.cost_usd", "Price in dollars; NULL if not known."),
    ("_answered_at", TIMESTAMPTZ, "p.answered_at", "When the model's answer was made (UTC)."),
    (
        "_decided_by",
        VARCHAR,
        "NULL",
        "Who gave the answer in review: a person, or a requeue's model.",
    ),
    ("_decided_at", TIMESTAMPTZ, "NULL", "When it was given in review (UTC)."),
    ("_loaded_at", TIMESTAMPTZ, "$loaded_at", "When the row was written here (UTC)."),
)

SUPERSEDED = Column(
    "_superseded",
    BOOLEAN,
    "lineage",
    "$superseded",
    "True where another partition has a newer answer to the record; else NULL.",
)
"""The column of ``newest``: tables have it from the first such row on, and no load asks for it."""

RESULT_COLUMNS = (
    *sorted({source[2:] for *_, source, _ in _LINEAGE if source.startswith("p.")}),
    *("output", "record_id", "record_row", "text"),
)
"""Columns that a results Parquet file must have."""


def layout(spec: TableSpec, record: Sequence[tuple[str, DuckType]]) -> tuple[Column, ...]:
    """The table's columns for a records file whose columns are ``record``.

    Raises WarehouseError for a missing column or a name that the lineage owns.
    """
    taken = {name.casefold() for name, *_ in _LINEAGE}
    answer = _answer_columns(spec, taken)
    chosen = _record_columns(spec, record, taken)
    lineage = tuple(Column(name, kind, "lineage", sql, says) for name, kind, sql, says in _LINEAGE)
    return (*chosen, *answer, *lineage)


def _answer_columns(spec: TableSpec, taken: set[str]) -> list[Column]:
    columns: list[Column] = []
    for part in answer_properties(spec):
        identifier(part.name)
        if part.name.startswith("_") and part.name.casefold() in taken:
            raise WarehouseError(
                f"table {spec.name}: the output schema's property {part.name!r} has the name of a "
                "lineage column; rename it (without the leading underscore)."
            )
        columns.append(Column(_free(part.name, taken), part.type, "answer", part.name, _says(part)))
    return columns


def _says(part: Property) -> str:
    return part.description or f"The answer's {part.name!r}."


def answer_properties(spec: TableSpec) -> tuple[Property, ...]:
    """The typed parts of an answer; one called ``answer`` if it is not an object."""
    if spec.output_schema is None:
        return (Property("answer", VARCHAR, "The model's answer."),)
    schema = spec.output_schema
    whole = Property("answer", type_of(schema, schema), description_of(schema, schema))
    return properties(schema) or (whole,)


def is_object(spec: TableSpec) -> bool:
    """Whether an answer is a JSON object whose properties are columns."""
    return spec.output_schema is not None and properties(spec.output_schema) is not None


def is_complete(spec: TableSpec) -> bool:
    """Whether every answer has every top-level property."""
    required = (spec.output_schema or {}).get("required", ())
    return all(part.name in required for part in answer_properties(spec))


def _record_columns(
    spec: TableSpec, record: Sequence[tuple[str, DuckType]], taken: set[str]
) -> list[Column]:
    types = dict(record)
    wanted = tuple(types) if spec.columns is None else spec.columns
    names = dict.fromkeys((spec.id_column, *wanted))
    if missing := [name for name in names if name not in types]:
        raise WarehouseError(
            f"table {spec.name}: the records have no column {missing[0]!r}; they have: "
            f"{', '.join(map(repr, types))}."
        )
    return [
        Column(
            name=_free(name if name.casefold() not in taken else f"record_{name}", taken),
            type=VARCHAR if types[name] == NULL else types[name],
            role="id" if name == spec.id_column else "record",
            source=name,
            description=spec.column_descriptions.get(name) or _record_says(spec, name),
        )
        for name in names
    ]


def _record_says(spec: TableSpec, name: str) -> str:
    what = "The record's id, column" if name == spec.id_column else "Column"
    return f"{what} {name!r} of the source."


def _free(name: str, taken: set[str]) -> str:
    free, number = name, 2
    while free.casefold() in taken:
        free, number = f"{name}_{number}", number + 1
    taken.add(free.casefold())
    return free


def lineage_sql(column: Column, partition: str | None, loaded_at: str) -> str:
    """The SQL that fills a lineage column; ``p`` is the results row.

    ``_misfits`` of a doubtful answer is its ``record_row`` until ``misfits`` has looked at it.
    """
    made = {
        "$partition": literal(partition),
        "$loaded_at": literal(loaded_at),
        "$text": "p.text",
        "$misfits": "CASE WHEN p.doubtful THEN [p.record_row::VARCHAR] END",
    }
    return made.get(column.source, column.source)


def schema_of(endpoint: str) -> str:
    """The DuckDB schema of an endpoint's tables: real answers are in ``main``, all others apart.

    >>> schema_of("anthropic"), schema_of("emulator"), schema_of("custom:127.0.0.1:80")
    ('main', 'emulator', 'custom_127_0_0_1_80')
    """
    if endpoint == "anthropic":
        return "main"
    name = re.sub(r"[^a-z0-9]+", "_", endpoint.casefold()).strip("_")
    return name if name == "emulator" or name.startswith("custom_") else f"custom_{name}"
