"""A table or a view of the published file as one Parquet or CSV file, streamed by DuckDB.

The file appears whole or not at all. Parquet keeps every type. In CSV a NULL is an empty cell and
an empty text is ``""``; what is nested (lists, structs) is JSON, for CSV has no other way to hold
it that can be read back; times are UTC.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import duckdb
from upath import UPath

from batch_etl.errors import WarehouseError
from batch_etl.files import replacing
from batch_etl.strict import did_you_mean
from batch_etl.warehouse.contents import ColumnInfo, Relation
from batch_etl.warehouse.sql import comma, identifier, literal
from batch_etl.warehouse.types import Scalar, parse

Format = Literal["parquet", "csv"]

_MEMORY_MB = 512


def format_of(path: Path) -> Format:
    """The format that a file's name asks for; WarehouseError if it asks for no known one."""
    ending = path.suffix.casefold().removeprefix(".")
    for known in get_args(Format):
        if ending == known:
            return known
    raise WarehouseError(
        f"{path}: the name must end in .parquet or .csv, to say what is wanted"
        + (did_you_mean(ending, list(get_args(Format))) if ending else "")
    )


def export(connection: duckdb.DuckDBPyConnection, relation: Relation, path: Path) -> int:
    """Write all rows to ``path`` (its folder is made); returns how many there are."""
    kind = format_of(path)
    if path.is_dir():
        raise WarehouseError(f"{path} is a folder; name a file in it.")
    connection.execute(f"SET memory_limit = '{_MEMORY_MB}MiB'")
    connection.execute("SET preserve_insertion_order = false")
    try:
        with replacing(UPath(path)) as temporary:
            connection.execute(f"SET temp_directory = {literal(f'{temporary}.spill')}")
            copied = connection.execute(
                f"COPY ({_select(relation, kind)}) TO {literal(temporary.path)} ({_OPTIONS[kind]})"
            ).fetchone()
    except (OSError, duckdb.Error) as error:
        raise WarehouseError(
            f"{path} cannot be written: {error}. Nothing was left there; check the folder, its "
            "permissions and the space on its disk."
        ) from error
    return copied[0] if copied else 0


_OPTIONS: dict[Format, str] = {
    "parquet": "FORMAT parquet, COMPRESSION zstd",
    "csv": "FORMAT csv, HEADER",
}


def _select(relation: Relation, kind: Format) -> str:
    columns = [_column(column, kind) for column in relation.columns]
    return f"SELECT {comma(columns)} FROM {relation.sql}"


def _column(column: ColumnInfo, kind: Format) -> str:
    name = identifier(column.name)
    nested = not isinstance(parse(column.type), Scalar) or column.type.startswith("MAP(")
    return f"to_json({name}) AS {name}" if kind == "csv" and nested else name
