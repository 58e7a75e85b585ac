"""The doubtful answers of a partition that was just inserted, looked at one by one.

The insert writes the ``record_row`` of each into ``_misfits``; here it becomes the paths of what
the columns do not hold, with the whole answer in ``_text``, or NULL where they hold all of it. So
that an answer is parsed once by a load whose answers fit, as nearly all do.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import datetime

import duckdb
import pyarrow as pa

from batch_etl.warehouse.answers import Answers, Misfit
from batch_etl.warehouse.evolution import Table
from batch_etl.warehouse.partition import Files, results_sql

_SHOWN = 5
_ROWS_PER_INSERT = 10_000

_FOUND = pa.schema(
    [("record_row", pa.int64()), ("paths", pa.list_(pa.string())), ("output", pa.string())]
)

_DOUBTFUL = "_loaded_at = ? AND _partition IS NOT DISTINCT FROM ? AND _misfits IS NOT NULL"

_Looked = tuple[int, str, list[Misfit]]


def settle(
    connection: duckdb.DuckDBPyConnection,
    answers: Answers,
    table: Table,
    files: Files,
    loaded_at: datetime,
) -> tuple[int, tuple[Misfit, ...]]:
    """Look at the doubtful rows of this load of ``files``; returns how many are misfits, and
    examples.
    """
    scope = [loaded_at, files.partition]
    doubtful = connection.sql(
        f"SELECT _misfits[1]::BIGINT AS record_row FROM {table.sql} WHERE {_DOUBTFUL}", params=scope
    ).to_arrow_table()
    if not doubtful.num_rows:
        return 0, ()
    found = _find(connection, answers, files, doubtful)
    connection.execute(
        f"UPDATE {table.sql} t SET _misfits = m.paths, _text = coalesce(t._text, m.output) "
        f"FROM misfits m WHERE {_DOUBTFUL} AND t._misfits[1]::BIGINT = m.record_row",
        scope,
    )
    return found


def _find(
    connection: duckdb.DuckDBPyConnection, answers: Answers, files: Files, doubtful: pa.Table
) -> tuple[int, tuple[Misfit, ...]]:
    """Fill the temporary table ``misfits`` with a row for each doubtful one."""
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE misfits (record_row BIGINT, paths VARCHAR[], output VARCHAR)"
    )
    reader = connection.cursor()
    reader.register("doubtful", doubtful)
    rows = answers.looked_at(reader, f"{results_sql(files)} SEMI JOIN doubtful USING (record_row)")
    count, examples = 0, list[Misfit]()
    while block := list(itertools.islice(rows, _ROWS_PER_INSERT)):
        count += sum(1 for _, _, misfits in block if misfits)
        examples += itertools.islice(
            (misfit for _, _, misfits in block for misfit in misfits), _SHOWN
        )
        _keep(connection, block)
    return count, tuple(examples[:_SHOWN])


def _keep(connection: duckdb.DuckDBPyConnection, block: Sequence[_Looked]) -> None:
    rows = [
        {
            "record_row": row,
            "paths": [misfit.path for misfit in misfits] or None,
            "output": output if misfits else None,
        }
        for row, output, misfits in block
    ]
    connection.register("misfits_block", pa.Table.from_pylist(rows, _FOUND))
    connection.execute("INSERT INTO misfits SELECT * FROM misfits_block")
    connection.unregister("misfits_block")
