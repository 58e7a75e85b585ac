"""Records from DuckDB: a query on a file that is opened read only, or on files without one.

DuckDB's types are exact and known before the first row, and its rows come as Arrow batches: nothing
is guessed, nothing copied into Python. Without ``path`` the query is on files that it names itself
(``FROM 'exports/*.parquet'``), relative to the YAML's folder.

Bounds are values of the statement: times with their zone, in a session in UTC.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
from pydantic import Field

from batch_etl.errors import SourceError
from batch_etl.files import ROWS_PER_READ
from batch_etl.sources.asked import Block, QuerySource, distinct
from batch_etl.sources.bounds import Bounds, rewritten
from batch_etl.sources.columns import conform, declared_type, plain

if TYPE_CHECKING:
    import duckdb

MEMORY_LIMIT = "512MB"


class DuckdbSource(QuerySource):
    """Which DuckDB file, and what is asked of it."""

    type: Literal["duckdb"]
    path: str | None = Field(
        default=None,
        description="The DuckDB file; relative to the YAML's folder. Without it the query names "
        "the files that it reads",
    )

    def blocks(self, bounds: Bounds) -> Iterator[Block]:
        origin = "the query" if self.path is None else f"the query on {self.path}"
        named = {name: bounds[name] for name in self.bounds}
        with self._connected() as duckling, _explained(origin):
            answer = duckling.sql(rewritten(self.query, lambda name: f"${name}"), params=named)
            if answer is None:
                raise SourceError("query: it is empty; write one SELECT")
            reader = answer.to_arrow_reader(ROWS_PER_READ)
            schema = self._schema(reader.schema)
            yield Block(origin, pa.RecordBatch.from_pylist([], schema), 1)
            first = 1
            for batch in reader:
                yield Block(origin, conform(batch, schema, self.types, origin, first), first)
                first += batch.num_rows

    def _schema(self, found: pa.Schema) -> pa.Schema:
        distinct(found.names)
        for field in found:
            if pa.types.is_interval(field.type) and field.name not in self.types:
                raise SourceError(
                    f"query: column {field.name!r} is an interval, which has no place in a record; "
                    "cast it, for instance to VARCHAR"
                )
        declared = {name: declared_type(kind) for name, kind in self.types.items()}
        return pa.schema([(f.name, declared.get(f.name, plain(f.type))) for f in found])

    @contextmanager
    def _connected(self) -> Iterator[duckdb.DuckDBPyConnection]:
        import duckdb

        path = None if self.path is None else self.base_folder / self.path
        if path is not None and not path.is_file():
            raise SourceError(f"path: there is no DuckDB file {path}; correct `path`")
        with _explained(f"path: {path}"):
            duckling = duckdb.connect(path or ":memory:", read_only=path is not None)
        with duckling:
            duckling.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
            duckling.execute(f"SET memory_limit = '{MEMORY_LIMIT}'; SET threads = 2")
            folder = str(self.base_folder.absolute()).replace("'", "''")
            duckling.execute(f"SET file_search_path = '{folder}'")
            yield duckling


@contextmanager
def _explained(origin: str) -> Iterator[None]:
    import duckdb

    try:
        yield
    except duckdb.IOException as error:
        if "lock" not in str(error):
            raise SourceError(f"{origin}: {error}") from error
        raise SourceError(
            f"{origin}: another process has the file open for writing ({error}); read a copy of "
            "it, or run again when that process has closed it"
        ) from error
    except duckdb.Error as error:
        raise SourceError(f"{origin}: {error}") from error
