"""Which columns come from which: records -> results -> table, as Dagster's column lineage.

An answer is made of the record's columns that the request shows, so ``results.output`` depends on
these; a part of an answer in the table depends on ``results.output``, a record's column on the
record's. The table's columns are taken as the warehouse noted them when they were loaded.
"""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg
import duckdb
import pyarrow as pa

from batch_etl.batches.finish import RESULTS
from batch_etl.batches.task import Task
from batch_etl.warehouse import TableInfo, loaded_tables

_ANSWER = ("output", "text")


def of_results(pipeline: str, task: Task, records: Sequence[str]) -> dg.TableColumnLineage:
    """``records`` are the columns of the records."""
    source = dg.AssetKey([pipeline, "records"])
    deps = [dg.TableColumnDep(source, name) for name in task.asks_with(records)]
    return dg.TableColumnLineage(dict.fromkeys(_ANSWER, deps))


def results_schema() -> dg.TableSchema:
    """A dictionary is how texts that repeat are stored: a reader is told of the texts."""
    return dg.TableSchema([dg.TableColumn(field.name, _type(field.type)) for field in RESULTS])


def _type(stored: pa.DataType) -> str:
    return str(stored.value_type if pa.types.is_dictionary(stored) else stored)


def of_table(
    connection: duckdb.DuckDBPyConnection, pipeline: str, table: TableInfo
) -> dg.TableColumnLineage:
    """Nothing of a column that other schemas left behind."""
    place = (table.schema, table.name)
    noted = [one for one in loaded_tables(connection) if (one.schema, one.name) == place]
    deps = {
        column.name: found
        for one in noted
        for column in one.columns
        if (found := _deps(pipeline, column.role, column.source))
    }
    return dg.TableColumnLineage(deps)


def _deps(pipeline: str, role: str, source: str) -> list[dg.TableColumnDep]:
    if role in ("id", "record"):
        return [dg.TableColumnDep(dg.AssetKey([pipeline, "records"]), source)]
    results = dg.AssetKey([pipeline, "results"])
    if role == "answer":
        return [dg.TableColumnDep(results, "output")]
    name = "text" if source == "$text" else source.removeprefix("p.")
    return [dg.TableColumnDep(results, name)] if name in RESULTS.names else []
