"""The ledger's history in the warehouse: which batches there were, how long, what they cost.

The warehouse knows no ledger. Its caller hands over rows as mappings, with the ledger's own names
for the columns; what is not named here is left alone. Rows are merged by their id, so a caller may
give all of them or only those of one pipeline or endpoint, and a row that is as it was is not
written. Nothing is ever taken out: what was bought was bought.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa

from batch_etl.warehouse.bookkeeping import SCHEMA

Row = Mapping[str, Any]

_TIME = pa.timestamp("us", "UTC")
_USD = pa.decimal128(38, 12)
_VERSION_LENGTH = 12

_TRANSFORMS = pa.schema(
    [
        ("id", pa.string()),
        ("pipeline", pa.string()),
        ("endpoint", pa.string()),
        ("partitions", pa.list_(pa.string())),
        ("task_version", pa.string()),
        ("status", pa.string()),
        ("attempt", pa.int64()),
        ("counts", pa.string()),
        ("created_at", _TIME),
        ("updated_at", _TIME),
    ]
)

_BATCHES = pa.schema(
    [
        ("id", pa.string()),
        ("transform_id", pa.string()),
        ("endpoint", pa.string()),
        ("attempt", pa.int64()),
        ("status", pa.string()),
        ("requests", pa.int64()),
        ("payload_bytes", pa.int64()),
        ("claude_model", pa.string()),
        ("batch_id", pa.string()),
        ("planned_at", _TIME),
        ("submitted_at", _TIME),
        ("expires_at", _TIME),
        ("ended_at", _TIME),
        ("collected_at", _TIME),
        ("outcomes", pa.string()),
        ("input_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("cache_read_tokens", pa.int64()),
        ("cache_write_tokens", pa.int64()),
        ("cost_usd", _USD),
        ("standard_cost_usd", _USD),
    ]
)


def transforms_table(rows: Iterable[Row]) -> pa.Table:
    """Transforms (``scope``: partition keys; ``fingerprint``; ``counts``: a mapping) as Arrow."""
    made = [
        {
            **row,
            "partitions": [key for key in row["scope"] if key is not None],
            "task_version": row["fingerprint"][:_VERSION_LENGTH],
            "counts": _json(row["counts"]),
        }
        for row in rows
    ]
    return pa.Table.from_pylist(made, _TRANSFORMS)


def batches_table(rows: Iterable[Row]) -> pa.Table:
    """Batches (``outcomes``: a mapping; ``*_pico_usd``: 1e-12 dollars, None if unknown)."""
    made = [
        {
            **row,
            "outcomes": _json(row["outcomes"]),
            "cost_usd": _usd(row["cost_pico_usd"]),
            "standard_cost_usd": _usd(row["standard_pico_usd"]),
        }
        for row in rows
    ]
    return pa.Table.from_pylist(made, _BATCHES)


def _json(counts: Mapping[str, int] | None) -> str | None:
    return None if counts is None else json.dumps(dict(counts), sort_keys=True)


def _usd(pico_usd: int | None) -> Decimal | None:
    return None if pico_usd is None else Decimal(pico_usd).scaleb(-12)


def merge(connection: duckdb.DuckDBPyConnection, name: str, rows: pa.Table) -> int:
    """Bring ``_batch_etl.<name>`` up to date; returns how many rows were new or different."""
    table = f"{SCHEMA}.{name}"
    names = ", ".join(rows.column_names)
    connection.register("history_rows", rows)
    try:
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE history_changes AS "
            f"SELECT {names} FROM history_rows EXCEPT SELECT {names} FROM {table}"
        )
    finally:
        connection.unregister("history_rows")
    counted = connection.execute("SELECT count(*) FROM history_changes").fetchone()
    changed = counted[0] if counted else 0
    if changed:
        connection.execute(f"DELETE FROM {table} WHERE id IN (SELECT id FROM history_changes)")
        connection.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM history_changes")
    connection.execute("DROP TABLE history_changes")
    return changed
