"""Records and results files as the engine writes them, for the tests of the load."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from batch_etl.warehouse import PartitionLoad

RESULTS = pa.schema(
    [
        ("record_id", pa.string()),
        ("record_row", pa.int64()),
        ("state", pa.string()),
        ("outcome", pa.dictionary(pa.int32(), pa.string())),
        ("reason", pa.string()),
        ("output", pa.string()),
        ("text", pa.string()),
        ("stop_reason", pa.dictionary(pa.int32(), pa.string())),
        ("model", pa.dictionary(pa.int32(), pa.string())),
        ("request_key", pa.string()),
        ("batch_id", pa.string()),
        ("custom_id", pa.string()),
        ("message_id", pa.string()),
        ("attempt", pa.int16()),
        ("task_version", pa.string()),
        ("endpoint", pa.string()),
        ("answered_at", pa.timestamp("us", "UTC")),
        ("input_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("cache_read_tokens", pa.int64()),
        ("cache_write_tokens", pa.int64()),
        ("cost_usd", pa.decimal128(18, 12)),
    ]
)

ANSWERED_AT = datetime(2026, 11, 1, 12, 30, tzinfo=UTC)


def result(row: int, record_id: str, output: Any, endpoint: str = "anthropic") -> dict[str, Any]:
    """One results row; ``output`` None is a record in review."""
    answered = output is not None
    return {
        "record_id": record_id,
        "record_row": row,
        "state": "answered" if answered else "review",
        "outcome": "Succeeded" if answered else "Refused",
        "reason": None if answered else "the model refused",
        "output": output if isinstance(output, str) or output is None else json.dumps(output),
        "text": None if answered else "I can't",
        "stop_reason": "end_turn" if answered else "refusal",
        "model": "claude-x",
        "request_key": f"{row:032x}",
        "batch_id": "msgbatch_1",
        "custom_id": f"c{row}",
        "message_id": f"msg_{row}",
        "attempt": 1,
        "task_version": "v1",
        "endpoint": endpoint,
        "answered_at": ANSWERED_AT if answered else None,
        "input_tokens": 10,
        "output_tokens": 5,
        "cache_read_tokens": 0,
        "cache_write_tokens": 0,
        "cost_usd": Decimal("0.000012500000"),
    }


def write(path: Path, table: pa.Table) -> UPath:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return UPath(path)


def partition(
    folder: Path,
    key: str | None,
    answers: Sequence[Any],
    *,
    records: Mapping[str, Any] | pa.Table | None = None,
    endpoint: str = "anthropic",
    change: Mapping[int, Mapping[str, Any]] | None = None,
    order: Sequence[int] | None = None,
) -> PartitionLoad:
    """Files of one partition: record ``i`` is answered by ``answers[i]`` (JSON value, text or
    None).
    """
    if records is None:
        records = {"id": [f"r{n}" for n in range(len(answers))], "body": ["text"] * len(answers)}
    table: pa.Table = pa.table(dict(records)) if isinstance(records, Mapping) else records
    ids = table.column(0).to_pylist()
    rows = [result(n, str(ids[n]), answer, endpoint) for n, answer in enumerate(answers)]
    for number, values in (change or {}).items():
        rows[number].update(values)
    rows = [rows[n] for n in order] if order is not None else rows
    name = "all" if key is None else key
    return PartitionLoad(
        key,
        write(folder / "records" / f"{name}.parquet", table),
        write(folder / "results" / f"{name}.parquet", pa.Table.from_pylist(rows, RESULTS)),
    )
