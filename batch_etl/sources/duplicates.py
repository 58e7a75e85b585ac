"""Ids that occur more than once, found exactly and in bounded memory.

A few ids are counted by Arrow; many, or those of which some are known to be duplicates, by DuckDB,
which spills to disk. Works on any stream of id columns, so it does not matter where they are kept.
The only importer of duckdb among the sources, and a late one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute

if TYPE_CHECKING:
    import duckdb

pc: Any = pyarrow.compute  # its functions are made at import: type checkers see none

MEMORY_LIMIT = "256MB"

_FEW = 200_000

Columns = Callable[[], Iterator[pa.Array]]
"""Streams the id column, from its start, each time it is called."""


@dataclass(frozen=True)
class Duplicates:
    """``values`` ids occur more than once; ``first`` are those met first, with how often."""

    values: int
    first: list[tuple[Any, int]]


def find(columns: Columns, kind: pa.DataType, most: int = 3) -> Duplicates | None:
    """What is duplicated, or None."""
    if _are_few_and_distinct(columns, kind):
        return None
    with _grouped(columns, kind, "min") as duckling:
        values = _one(duckling, "SELECT count(*) FROM twice")
        if values == 0:
            return None
        first = duckling.execute(
            "SELECT id, times FROM twice ORDER BY kept LIMIT ?", [most]
        ).fetchall()
        return Duplicates(values, first)


def surplus(columns: Columns, kind: pa.DataType, keep: Literal["first", "last"]) -> np.ndarray:
    """The row numbers, counted from 0 and ascending, of all but the first (or last) of each id."""
    if _are_few_and_distinct(columns, kind):
        return np.array([], np.int64)
    with _grouped(columns, kind, "min" if keep == "first" else "max") as duckling:
        if _one(duckling, "SELECT count(*) FROM twice") == 0:
            return np.array([], np.int64)
        duckling.register("again", _numbered(columns, kind))
        found = duckling.sql(
            "SELECT again.row FROM again JOIN twice USING (id) WHERE again.row <> twice.kept"
        ).fetchnumpy()
        return np.sort(np.asarray(found["row"], np.int64))


def _are_few_and_distinct(columns: Columns, kind: pa.DataType) -> bool:
    few: list[pa.Array] = []
    rows = 0
    for column in columns():
        few.append(column)
        rows += len(column)
        if rows > _FEW:
            return False
    return pc.count_distinct(pa.chunked_array(few, kind)).as_py() == rows


@contextmanager
def _grouped(columns: Columns, kind: pa.DataType, kept: str) -> Iterator[duckdb.DuckDBPyConnection]:
    import duckdb

    with tempfile.TemporaryDirectory(prefix="batch_etl_ids_") as spill:
        settings = {"memory_limit": MEMORY_LIMIT, "temp_directory": spill, "threads": 2}
        with duckdb.connect(":memory:", config=settings) as duckling:
            duckling.execute("SET preserve_insertion_order = false")
            duckling.register("ids", _numbered(columns, kind))
            duckling.execute(
                f"CREATE TABLE twice AS SELECT id, count(*) AS times, {kept}(row) AS kept "
                "FROM ids GROUP BY id HAVING count(*) > 1"
            )
            yield duckling


def _one(duckling: duckdb.DuckDBPyConnection, query: str) -> int:
    """The one number a query gives; all is fetched, or the connection would stay busy."""
    return int(duckling.execute(query).fetchall()[0][0])


def _numbered(columns: Columns, kind: pa.DataType) -> pa.RecordBatchReader:
    schema = pa.schema([("id", kind), ("row", pa.int64())])

    def batches() -> Iterator[pa.RecordBatch]:
        start = 0
        for column in columns():
            rows = pa.array(np.arange(start, start + len(column)))
            yield pa.RecordBatch.from_arrays([column, rows], schema=schema)
            start += len(column)

    return pa.RecordBatchReader.from_batches(schema, batches())
