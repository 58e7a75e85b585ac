"""Columns of values as moments in UTC: ISO 8601 text, dates, timestamps. No zone means UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute

pc: Any = pyarrow.compute  # its functions are made at import: type checkers see none

UTC_MICROSECONDS = pa.timestamp("us", "UTC")


def as_times(column: pa.Array) -> pa.Array:
    """The column as UTC microseconds; null where it was null or is no time.

    Raises ArrowInvalid for a type that holds no times, such as a number: its unit would be a guess.
    """
    if pa.types.is_timestamp(column.type):
        if column.type.tz is not None:
            return column.cast(UTC_MICROSECONDS, safe=False)
        return pc.assume_timezone(column.cast(pa.timestamp("us"), safe=False), "UTC")
    if pa.types.is_date(column.type):
        return pc.assume_timezone(column.cast(pa.timestamp("us")), "UTC")
    if pa.types.is_string(column.type):
        return _parsed(column)
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), UTC_MICROSECONDS)
    raise pa.ArrowInvalid(f"{column.type} is no time")


def _parsed(column: pa.StringArray) -> pa.Array:
    """One layout for the whole column is the quick way; mixed layouts go one by one."""
    for kind in (pa.timestamp("us"), UTC_MICROSECONDS):
        try:
            return column.cast(kind).cast(UTC_MICROSECONDS)
        except pa.ArrowInvalid:
            continue
    return pa.array([_moment(text) for text in column.to_pylist()], UTC_MICROSECONDS)


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
