"""Databases for the tests of sources, and what a source reads of them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from batch_etl.sources import PartitionSlice, Source


def days(*numbers: int) -> list[PartitionSlice]:
    """Days of November 2026 as partitions."""
    first = datetime(2026, 11, 1, tzinfo=UTC)
    starts = [first + timedelta(days=number - 1) for number in numbers]
    return [PartitionSlice(f"{at:%Y-%m-%d}", at, at + timedelta(days=1)) for at in starts]


def read(
    source: Source, slices: Iterable[PartitionSlice] | None = None
) -> dict[str | None, list[dict[str, Any]]]:
    """The rows by partition, after a check of the two promises that a source makes."""
    wanted = None if slices is None else list(slices)
    schemas: dict[str | None, pa.Schema] = {}
    rows: dict[str | None, list[dict[str, Any]]] = {}
    for portion in source.read(wanted):
        assert schemas.setdefault(portion.partition, portion.batch.schema) == portion.batch.schema
        assert portion.batch.num_rows == len(portion.rows)
        rows.setdefault(portion.partition, []).extend(portion.batch.to_pylist())
    assert set(rows) == ({None} if wanted is None else {piece.key for piece in wanted})
    return rows


def ids(found: dict[str | None, list[dict[str, Any]]]) -> dict[str | None, list[Any]]:
    return {key: [row["id"] for row in rows] for key, rows in found.items()}


def schema_of(source: Source) -> dict[str, str]:
    schema = next(iter(source.read(None))).batch.schema
    return {field.name: str(field.type) for field in schema}
