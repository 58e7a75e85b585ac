"""One partition's two files: what is in them, and whether they belong together. Read only."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from batch_etl.errors import WarehouseError
from batch_etl.files import RECORDS_FACT, content_digest, facts_of
from batch_etl.warehouse.columns import RESULT_COLUMNS, Column
from batch_etl.warehouse.sql import comma, literal
from batch_etl.warehouse.types import BIGINT, VARCHAR, DuckType, Scalar, parse

_LAYOUT_VERSION = 1
"""Raised when the same files would make other rows; then every partition is loaded anew."""

_ROW_NUMBER = "file_row_number"
_TEXT_OF_ID_IS_EXACT = (VARCHAR, BIGINT, Scalar("INTEGER"), Scalar("SMALLINT"), Scalar("TINYINT"))


@dataclass(frozen=True)
class Files:
    """One partition's two files, on local disk."""

    partition: str | None
    records: Path
    results: Path

    @cached_property
    def records_digest(self) -> str:
        """What the records file holds, as it was when this was first asked."""
        return content_digest(self.records)

    def __str__(self) -> str:
        return f"partition {self.partition}" if self.partition is not None else "the only partition"


@dataclass(frozen=True)
class Counts:
    rows: int
    answered: int
    review: int


def record_columns(
    connection: duckdb.DuckDBPyConnection, files: Files
) -> list[tuple[str, DuckType]]:
    names, _ = _parquet_columns(files.records), _footer(files.results)
    if _ROW_NUMBER in map(str.casefold, names):
        raise WarehouseError(
            f"{files.records} has a column {_ROW_NUMBER!r}, a name that DuckDB needs for itself; "
            "rename it in the source."
        )
    described = connection.execute(
        f"DESCRIBE SELECT * FROM read_parquet({literal(str(files.records))})"
    ).fetchall()
    return [(name, parse(row[1])) for name, row in zip(names, described, strict=True)]


def checked(connection: duckdb.DuckDBPyConnection, files: Files, endpoint: str) -> Counts:
    """Refuse results that are not exactly one for each of these very records, by this endpoint.

    Which records have one is a bit for each: a set of a million numbers would take memory and time.
    """
    missing = sorted(set(RESULT_COLUMNS) - set(_parquet_columns(files.results)))
    if missing:
        raise WarehouseError(
            f"{files.results} is no results file: it has no column {missing[0]!r}."
        )
    records = _row_count(files.records)
    last = max(records - 1, 0)
    rows, answered_for, answered, review, others = one(
        connection,
        f"SELECT count(*), coalesce(bit_count(bitstring_agg(record_row, 0, {last}) "
        f"FILTER (record_row BETWEEN 0 AND {last})), 0), "
        "count(*) FILTER (state = 'answered'), count(*) FILTER (state = 'review'), "
        "list_sort(list(DISTINCT endpoint) FILTER (endpoint IS DISTINCT FROM ?)) "
        f"FROM {results_sql(files)}",
        [endpoint],
    )
    if others:
        raise WarehouseError(
            f"{files}: {files.results} holds answers of endpoint {others[0]!r}, but "
            f"{endpoint!r} is being loaded; a table never mixes the two. Ask again with "
            f"{endpoint!r}."
        )
    if (rows, answered_for) != (records, records):
        raise WarehouseError(
            f"{files}: {records} records in {files.records}, but {rows} results for {answered_for} "
            f"of them in {files.results}; each record needs exactly one. Materialize the "
            "results again."
        )
    of_records = facts_of(UPath(files.results)).get(RECORDS_FACT)
    if of_records not in (None, files.records_digest):
        raise WarehouseError(
            f"{files}: {files.records} was extracted again, with other content, after its records "
            "were answered. Materialize the results again (nothing that was bought is bought "
            "twice)."
        )
    if answered + review != rows:
        raise WarehouseError(
            f"{files}: {files.results} has a state that is neither answered nor review."
        )
    return Counts(rows, answered, review)


def is_another(record: list[str], id_column: Column) -> str:
    """SQL: whether the record ``r`` in the place of the result ``p`` has another id than that."""
    if id_column.type not in _TEXT_OF_ID_IS_EXACT:
        return "false"
    return f"(p.record_id IS DISTINCT FROM r.c{record.index(id_column.source)}::VARCHAR)"


def refuse_others(
    connection: duckdb.DuckDBPyConnection, files: Files, record: list[str], id_column: Column
) -> None:
    """Raise WarehouseError for the first result that is another record's."""
    other = connection.execute(
        f"SELECT p.record_row, p.record_id, r.c{record.index(id_column.source)}::VARCHAR "
        f"FROM {results_sql(files)} p JOIN {records_sql(files, len(record))} ON r.k = p.record_row "
        f"WHERE {is_another(record, id_column)} ORDER BY 1 LIMIT 1"
    ).fetchone()
    if other:
        raise WarehouseError(
            f"{files}: row {other[0]} of {files.records} has {id_column.source} {other[2]!r}, "
            f"but its result is for {other[1]!r}: the records were extracted again after they were "
            "answered. Materialize the results again (nothing that was bought is bought twice)."
        )


def one(
    connection: duckdb.DuckDBPyConnection, query: str, parameters: list[object] | None = None
) -> tuple[Any, ...]:
    """The first row of a query that has one."""
    return connection.execute(query, parameters or []).fetchone() or ()


def results_sql(files: Files) -> str:
    return f"read_parquet({literal(str(files.results))})"


def records_sql(files: Files, width: int) -> str:
    """The records as ``r(c0, c1, ..., k)``: by position, so that no name in the file can matter."""
    names = comma([f"c{number}" for number in range(width)] + ["k"])
    return f"read_parquet({literal(str(files.records))}, file_row_number=true) r({names})"


def _parquet_columns(path: Path) -> list[str]:
    return [str(name) for name in _footer(path).schema.to_arrow_schema().names]


def _row_count(path: Path) -> int:
    return _footer(path).num_rows


def _footer(path: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(path)
    except FileNotFoundError as error:
        raise WarehouseError(f"{path} does not exist: materialize what makes it first.") from error
    except (pa.ArrowException, OSError) as error:
        raise WarehouseError(f"{path} is not a readable Parquet file: {error}") from error


def digest_of(files: Files, columns: Sequence[Column]) -> str:
    """What the partition's rows depend on: both files' bytes and the columns' names and types."""
    shape = [(c.name, c.type.sql, c.role, c.source) for c in columns]
    digest = hashlib.sha256(repr((_LAYOUT_VERSION, shape)).encode("utf-8", "surrogatepass"))
    for content in (files.records_digest, content_digest(files.results)):
        digest.update(bytes.fromhex(content))
    return digest.hexdigest()
