"""One column of a table as text files, one a row: finished reports, letters, pages.

A row ``r1`` of partition ``2026-10-01`` becomes ``<folder>/2026-10-01/r1.md``; without partitions
``<folder>/r1.md``. Rows without a text (in review, or null) have no file. What is no letter, digit,
``.``, ``-`` or ``_`` in an id is ``_`` in the name. Names are worked out for all rows before any
file is written, and two rows that would share one are an error. Each file appears whole or not at
all; files of rows that are gone are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePath

import duckdb
from upath import UPath

from batch_etl.errors import WarehouseError
from batch_etl.files import replacing
from batch_etl.strict import did_you_mean
from batch_etl.warehouse.bookkeeping import LoadedTable
from batch_etl.warehouse.sql import identifier

SUFFIX = ".md"
LONGEST_NAME = 120

_OTHER = re.compile(r"[^\w.-]")
_ROWS_A_FETCH = 200


def export_texts(
    connection: duckdb.DuckDBPyConnection,
    table: LoadedTable,
    column: str,
    folder: Path,
    suffix: str = SUFFIX,
) -> int:
    """Write the files; returns how many. Raises ``WarehouseError``."""
    _check_column(table, column)
    if folder.exists() and not folder.is_dir():
        raise WarehouseError(f"{folder} is a file; name a folder for the texts.")
    written = 0
    names = _names(connection, table, column, suffix)
    try:
        for name, (text,) in zip(names, _rows(connection, table, column, column), strict=True):
            with replacing(UPath(folder / name)) as temporary:
                temporary.write_text(text, encoding="utf-8", newline="")
            written += 1
    except OSError as error:
        raise WarehouseError(
            f"{folder} cannot be written after {written} files: {error}. Those are whole; check "
            "the folder, its permissions and the space on its disk."
        ) from error
    return written


def _check_column(table: LoadedTable, column: str) -> None:
    types = {one.name: one.type.sql for one in table.columns}
    texts = [name for name, kind in types.items() if kind == "VARCHAR"]
    if column not in types:
        raise WarehouseError(
            f"{table.qualified_name} has no column {column!r}{did_you_mean(column, texts)}"
        )
    if column not in texts:
        raise WarehouseError(f"column {column!r} is {types[column]}, and no text.")


def _names(
    connection: duckdb.DuckDBPyConnection, table: LoadedTable, column: str, suffix: str
) -> list[PurePath]:
    """The file of each row, in the order of :func:`_rows`."""
    owners: dict[str, str] = {}
    names: list[PurePath] = []
    for partition, row_id in _rows(connection, table, column, "_partition", table.spec.id_column):
        name = PurePath(*([_safe(partition)] if partition else []), f"{_safe(row_id)}{suffix}")
        owner = f"{partition}: {row_id}" if partition else row_id
        other = owners.setdefault(str(name).casefold(), owner)
        if other != owner:
            raise WarehouseError(
                f"{other!r} and {owner!r} would both be {name}; nothing was written. Export the "
                "table as .parquet, or give the records ids that differ in letters and digits."
            )
        names.append(name)
    return names


def _safe(text: str) -> str:
    """As the name of a file or folder, which hides nothing and leads nowhere."""
    name = _OTHER.sub("_", text)[:LONGEST_NAME]
    return re.sub(r"^\.+", "_", name) or "_"


def _rows(
    connection: duckdb.DuckDBPyConnection, table: LoadedTable, column: str, *shown: str
) -> Iterator[tuple[str, ...]]:
    """Columns of all rows that have a text, as texts, always in the same order."""
    listed = ", ".join(f"{identifier(name)}::VARCHAR" for name in shown)
    order = f"_partition, {identifier(table.spec.id_column)}"
    answer = connection.execute(
        f"SELECT {listed} FROM {table.sql} WHERE {identifier(column)} IS NOT NULL ORDER BY {order}"
    )
    while rows := answer.fetchmany(_ROWS_A_FETCH):
        yield from rows
