"""The figures of the report: what each endpoint was asked, how it went and what it cost, by SQL.

Everything comes from the published file: the views ``batches`` and ``cost_by_day`` (whatever they
are called there), the tables' own outcomes, and what was loaded of each partition. An endpoint is a
section of its own, so that emulated dollars are never added to real ones. An amount that is not
known is None, never 0.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import duckdb

from batch_etl.warehouse.bookkeeping import SCHEMA, LoadedTable, loaded_tables, tables_in
from batch_etl.warehouse.history_views import history_views
from batch_etl.warehouse.sql import literal

_PARTITIONS = 60
_SLOWEST = 10
_OUTCOME = "[A-Z][A-Za-z]*"
"""Other counts of a batch (unreadable lines, for instance) are no outcomes."""


@dataclass(frozen=True)
class Asked:
    """What one pipeline asked one model: on a day, or on all days (``day`` is None)."""

    day: dt.date | None
    pipeline: str
    model: str
    batches: int
    requests: int
    cost_usd: Decimal | None
    standard_cost_usd: Decimal | None


@dataclass(frozen=True)
class Latency:
    """How many seconds the API took for a pipeline's batches: on a day, or on all days."""

    day: dt.date | None
    pipeline: str
    batches: int
    median_s: float
    p95_s: float
    longest_s: float


@dataclass(frozen=True)
class Ended:
    """How many requests ended so on a day."""

    day: dt.date
    outcome: str
    requests: int


@dataclass(frozen=True)
class Loaded:
    """One partition of a table; ``review``: its records without an answer."""

    partition: str | None
    rows: int
    review: int


@dataclass(frozen=True)
class Table:
    """One table: all of its records, by what became of them."""

    name: str
    pipeline: str
    rows: int
    review: int
    outcomes: Mapping[str, int]
    partitions: Sequence[Loaded]
    """The newest, by their keys."""


@dataclass(frozen=True)
class Slow:
    """One of the batches that took longest."""

    batch_id: str
    pipeline: str
    ended_at: dt.datetime
    requests: int
    processing_s: float


@dataclass(frozen=True)
class Section:
    """All that is told of one endpoint."""

    endpoint: str
    tables: Sequence[Table]
    asked: Sequence[Asked]
    by_day: Sequence[Asked]
    latencies: Sequence[Latency]
    latency_by_day: Sequence[Latency]
    outcomes: Sequence[Ended]
    slowest: Sequence[Slow]

    @property
    def emulated(self) -> bool:
        return self.endpoint == "emulator"


@dataclass(frozen=True)
class Figures:
    """The whole report: the days from ``since`` to ``until``, Claude before all others."""

    since: dt.date
    until: dt.date
    loaded_at: dt.datetime | None
    """When something was loaded last; None: never."""
    sections: Sequence[Section]


def figures(connection: duckdb.DuckDBPyConnection, until: dt.date, days: int) -> Figures:
    """The figures of so many days, the last of which is ``until`` (UTC)."""
    since = until - dt.timedelta(days=days - 1)
    tables = loaded_tables(connection)
    if "batches" not in tables_in(connection, SCHEMA):
        return Figures(since, until, None, ())
    (loaded_at,) = _row(connection, f"SELECT max(loaded_at) FROM {SCHEMA}.loads")
    asked = _column(connection, f"SELECT DISTINCT endpoint FROM {SCHEMA}.transforms")
    endpoints = {*asked, *(table.endpoint for table in tables)}
    ordered = sorted(endpoints, key=lambda name: (name != "anthropic", name == "emulator", name))
    span = {"since": since, "until": until}
    found = [_section(_History(connection, endpoint, span), tables) for endpoint in ordered]
    return Figures(since, until, loaded_at, found)


@dataclass(frozen=True)
class _History:
    """The batches of one endpoint that ended on the report's days."""

    connection: duckdb.DuckDBPyConnection
    endpoint: str
    span: Mapping[str, dt.date]

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """``query`` may read ``batches`` and ``costs``, which have a ``day``."""
        views = {view.name: view.select for view in history_views(self.endpoint)}
        day = "(ended_at AT TIME ZONE 'UTC')::DATE"
        return self.connection.execute(
            f"WITH batches AS (SELECT *, {day} AS day FROM ({views['batches']}) "
            f"WHERE {day} BETWEEN $since AND $until), "
            f"costs AS (FROM ({views['cost_by_day']}) WHERE day BETWEEN $since AND $until) {query}",
            dict(self.span),
        ).fetchall()

    def asked(self) -> list[Asked]:
        rows = self.rows(
            "SELECT pipeline, model, sum(batches)::BIGINT, sum(requests)::BIGINT, "
            f"{_sum('cost_usd')}, {_sum('standard_cost_usd')} FROM costs "
            "GROUP BY pipeline, model ORDER BY pipeline, model"
        )
        return [Asked(None, *row) for row in rows]

    def by_day(self) -> list[Asked]:
        rows = self.rows(
            "SELECT day, pipeline, model, batches, requests, cost_usd, standard_cost_usd "
            "FROM costs ORDER BY day, pipeline, model"
        )
        return [Asked(*row) for row in rows]

    def latencies(self) -> list[Latency]:
        rows = self.rows(f"SELECT NULL, pipeline, {_TOOK} GROUP BY pipeline ORDER BY pipeline")
        return [Latency(*row) for row in rows]

    def latency_by_day(self) -> list[Latency]:
        rows = self.rows(f"SELECT day, pipeline, {_TOOK} GROUP BY ALL ORDER BY day, pipeline")
        return [Latency(*row) for row in rows]

    def outcomes(self) -> list[Ended]:
        rows = self.rows(
            "SELECT day, entry.key, sum(entry.value)::BIGINT "
            "FROM (SELECT day, unnest(map_entries(outcomes)) AS entry FROM batches) "
            f"WHERE regexp_full_match(entry.key, {literal(_OUTCOME)}) GROUP BY ALL ORDER BY ALL"
        )
        return [Ended(*row) for row in rows]

    def slowest(self) -> list[Slow]:
        rows = self.rows(
            "SELECT batch_id, pipeline, ended_at, requests, processing_s FROM batches "
            f"WHERE processing_s IS NOT NULL ORDER BY processing_s DESC, batch_id LIMIT {_SLOWEST}"
        )
        return [Slow(*row) for row in rows]


_TOOK = (
    "count(*), median(processing_s), quantile_cont(processing_s, 0.95), max(processing_s) "
    "FROM batches WHERE processing_s IS NOT NULL"
)


def _section(history: _History, tables: Sequence[LoadedTable]) -> Section:
    mine = [table for table in tables if table.endpoint == history.endpoint]
    return Section(
        history.endpoint,
        [_table(history.connection, table) for table in mine],
        history.asked(),
        history.by_day(),
        history.latencies(),
        history.latency_by_day(),
        history.outcomes(),
        history.slowest(),
    )


def _sum(column: str) -> str:
    """SQL: a sum that is NULL where one amount is not known."""
    return f"CASE WHEN count({column}) = count(*) THEN sum({column}) END"


def _table(connection: duckdb.DuckDBPyConnection, table: LoadedTable) -> Table:
    counted = connection.execute(
        f"SELECT _outcome, _state = 'review', count(*) FROM {table.sql} GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    outcomes: dict[str, int] = {}
    for outcome, _, rows in counted:
        outcomes[outcome] = outcomes.get(outcome, 0) + rows
    partitions = connection.execute(
        "SELECT _partition, count(*), count(*) FILTER (_state = 'review') "
        f"FROM {table.sql} GROUP BY _partition ORDER BY _partition DESC LIMIT {_PARTITIONS}"
    ).fetchall()
    return Table(
        table.qualified_name,
        table.pipeline,
        sum(outcomes.values()),
        sum(rows for _, review, rows in counted if review),
        outcomes,
        [Loaded(*row) for row in reversed(partitions)],
    )


def _row(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    row = connection.execute(query).fetchone()
    assert row is not None  # noqa: S101 - an aggregate always has a row
    return row


def _column(connection: duckdb.DuckDBPyConnection, query: str) -> list[Any]:
    return [value for (value,) in connection.execute(query).fetchall()]
