"""Labels: the parts of an answer that have few values, and how often each value occurs.

A label column is a top-level property of the output schema that is a boolean or an enum (or
either of them or null). Counted is by DuckDB, in results files (before a load) or in the table
(after it); both give the same words, a null is ``null``. Only answered records count.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import duckdb

from batch_etl.components.drift import Counts
from batch_etl.components.results_files import Files, reading, there
from batch_etl.warehouse import TableInfo
from batch_etl.warehouse.sql import comma, identifier, literal, qualified

ByColumn = dict[str, Counter[str]]
ByPartition = dict[str | None, ByColumn]


def label_columns(schema: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The label columns of a resolved output schema, in order."""
    named: Mapping[str, Any] = (schema or {}).get("properties", {})
    return tuple(name for name, part in named.items() if _is_label(part))


def _is_label(schema: Any) -> bool:
    if not isinstance(schema, dict):
        return False
    if "enum" in schema:
        return not any(isinstance(value, dict | list) for value in schema["enum"])
    if "const" in schema or schema.get("type") in ("boolean", ["boolean"]):
        return True
    kinds = schema.get("type")
    if isinstance(kinds, list):
        return set(kinds) == {"boolean", "null"}
    branches = schema.get("anyOf") or schema.get("oneOf") or []
    live = [one for one in branches if one != {"type": "null"}]
    return bool(live) and all(map(_is_label, live))


def in_results(files: Files, columns: Sequence[str]) -> ByPartition:
    """Labels in results files, by the partition whose file it is; files that are not there: none.

    Streamed: a file is read once and an answer parsed once, whatever the number of columns.
    """
    keys, names = there(files), list(columns)
    counted = _nothing()
    if not keys or not names:
        return counted
    paths = comma([_json_path(name) for name in names])
    relation = (
        f"SELECT filename AS place, json_extract_string(output, [{paths}]) AS labels "
        "FROM read_parquet($files, filename = true) WHERE state = 'answered'"
    )
    with reading() as connection:
        rows = connection.execute(_counting(relation), {"files": list(keys)}).fetchall()
    for place, number, label, count in rows:
        counted[keys[place]][names[number - 1]][label] = count
    return counted


def in_table(
    connection: duckdb.DuckDBPyConnection,
    table: TableInfo,
    partitions: Iterable[str | None],
    columns: Sequence[str],
) -> ByPartition:
    """Labels in a table, decisions of people among them."""
    counted = _nothing()
    shown = {column.name for column in table.columns}
    known = [name for name in columns if name in shown]
    keys = list(partitions)
    if not known or not keys:
        return counted
    values = comma([f"CAST({identifier(name)} AS VARCHAR)" for name in known])
    relation = (
        f"SELECT _partition AS place, [{values}] AS labels "
        f"FROM {qualified(table.schema, table.name)} "
        "WHERE _state = 'answered' AND (_partition IS NULL OR list_contains($keys, _partition))"
    )
    rows = connection.execute(_counting(relation), {"keys": [k for k in keys if k]}).fetchall()
    for place, number, label, count in rows:
        counted[place][known[number - 1]][label] = count
    return counted


def together(parts: Iterable[Mapping[str, Counts]]) -> ByColumn:
    """The counts of several partitions as one."""
    total: ByColumn = defaultdict(Counter)
    for part in parts:
        for column, counts in part.items():
            total[column].update(counts)
    return total


def _counting(relation: str) -> str:
    """Place, number of the column from 1, label, and how many rows of ``relation`` have it."""
    return (
        "SELECT place, number, coalesce(label, 'null'), count(*) FROM ("
        "SELECT place, unnest(labels) AS label, generate_subscripts(labels, 1) AS number "
        f"FROM ({relation})) GROUP BY ALL ORDER BY ALL"
    )


def _nothing() -> ByPartition:
    return defaultdict(lambda: defaultdict(Counter))


def _json_path(name: str) -> str:
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    return literal(f'$."{quoted}"')
