"""The answers of one partition that their columns do not hold wholly, as a temporary table."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import duckdb
import pyarrow as pa

from batch_etl.warehouse.answers import Answers, Misfit

_SHOWN = 5
_ROWS_PER_INSERT = 10_000


def find(
    connection: duckdb.DuckDBPyConnection, answers: Answers, results: str
) -> tuple[int, tuple[Misfit, ...]]:
    """Fill the temporary table ``misfits`` (record_row, paths); returns its size and examples."""
    connection.execute("CREATE OR REPLACE TEMP TABLE misfits (record_row BIGINT, paths VARCHAR[])")
    by_row = itertools.groupby(
        answers.misfits(connection.cursor(), results), key=lambda pair: pair[0]
    )
    count, examples = 0, list[Misfit]()
    rows = ((row, [misfit for _, misfit in group]) for row, group in by_row)
    while block := list(itertools.islice(rows, _ROWS_PER_INSERT)):
        count += len(block)
        examples += [misfit for _, group in block for misfit in group][:_SHOWN]
        _keep(connection, block)
    return count, tuple(examples[:_SHOWN])


def _keep(connection: duckdb.DuckDBPyConnection, block: Sequence[tuple[int, list[Misfit]]]) -> None:
    rows = pa.table(
        {
            "record_row": pa.array([row for row, _ in block], pa.int64()),
            "paths": pa.array(
                [[misfit.path for misfit in group] for _, group in block], pa.list_(pa.string())
            ),
        }
    )
    connection.register("misfits_block", rows)
    connection.execute("INSERT INTO misfits SELECT * FROM misfits_block")
    connection.unregister("misfits_block")
