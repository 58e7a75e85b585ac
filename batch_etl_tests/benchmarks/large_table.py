"""A table of many daily partitions: what its queries, one more load and publishing take.

    python -m batch_etl_tests.benchmarks.large_table 50000000 [--folder FOLDER]

The first partition (100,000 rows) is loaded from real files, by the load; the others are its rows
with other ids, request keys and days, inserted by SQL into the working file. Then, in fresh
connections: queries on the published file, each twice, loads of one partition again with all of its
rows changed, then one in a hundred, and of a new one whose ids were there already; and the queries
again. Wall seconds, CPU seconds and peak memory of each step.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
from upath import UPath

from batch_etl.warehouse import PartitionLoad, TableSpec, Warehouse
from batch_etl_tests.benchmarks import workload
from batch_etl_tests.benchmarks.watch import Watch

ROWS = 100_000
"""Rows in a partition."""

FIRST_DAY = date(2025, 1, 1)
DAYS_PER_INSERT = 10
ENDPOINT = "emulator"
TABLE = f"{ENDPOINT}.posts"

RECORDS = """
    SELECT printf('{ids}%07d', n) AS post_id, ['garden', 'workshop', 'kitchen', 'meta'][n % 4 + 1]
        AS channel, ['member', 'newcomer', 'moderator'][n % 3 + 1] AS role, n % 97 AS likes
    FROM range({rows}) t(n)
"""
RESULTS = """
    SELECT printf('{ids}%07d', n) AS record_id, n AS record_row,
        if(n % 67 = 0, 'review', 'answered') AS state,
        if(n % 67 = 0, 'Invalid', 'Succeeded') AS outcome,
        if(n % 67 = 0, 'the answer is no JSON', NULL) AS reason,
        if(n % 67 = 0, NULL, json_object('topic', ['garden', 'repair', 'kitchen', 'other'][key % 4
            + 1], 'tone', ['friendly', 'neutral', 'angry'][key % 3 + 1],
            'confidence', key % 100 / 100, 'reference', n)::VARCHAR) AS output,
        if(n % 67 = 0, 'It is', NULL) AS text, 'end_turn' AS stop_reason,
        'claude-haiku-4-5' AS model, md5(key::VARCHAR) AS request_key,
        'msgbatch_' || asked AS batch_id, 1::SMALLINT AS attempt, 'a1b2c3d4' AS task_version,
        'emulator' AS endpoint, 400 AS input_tokens, 30 + key % 9 AS output_tokens,
        0 AS cache_read_tokens, 0 AS cache_write_tokens,
        (0.0002 + key % 9 / 1000000)::DECIMAL(18, 12) AS cost_usd,
        TIMESTAMPTZ '2025-01-02 00:00:00+00' + to_seconds(asked) AS answered_at
    FROM (SELECT n, asked, (hash(n, asked) % 1000000007)::BIGINT AS key FROM
        (SELECT n, if(n % {one_in} = 0, {asked}, {asked} - 1) AS asked FROM range({rows}) t(n)))
    ORDER BY md5(n::VARCHAR)
"""
OTHER_DAYS = """
    INSERT INTO {table} SELECT t.* REPLACE (d.day AS _partition,
        printf('%04d-', d.number) || post_id AS post_id, md5(_request_key || d.day) AS _request_key,
        _answered_at + to_days(d.number::INTEGER) AS _answered_at)
    FROM {table} t, (SELECT i AS number, strftime(DATE '{first}' + i::INTEGER, '%Y-%m-%d') AS day
        FROM range({begin}, {end}) d(i)) d WHERE t._partition = '{first}' ORDER BY d.number
"""
QUERIES = {
    "README: verdicts and cost by day": f"""
        SELECT _partition AS day, count(*) AS posts, count(*) FILTER (topic = 'repair'),
            count(*) FILTER (_state = 'review') AS review, sum(_cost_usd) AS cost_usd
        FROM {TABLE} GROUP BY day ORDER BY day LIMIT 3""",
    "one day": f"SELECT count(*), avg(confidence) FROM {TABLE} WHERE _partition = '{{last}}'",
    "one record, by id": f"SELECT * FROM {TABLE} WHERE post_id = '0001-0000007'",
    "topics": f"SELECT topic, tone, count(*) FROM {TABLE} GROUP BY ALL",
    "review queue, the first 20": f"SELECT * FROM {TABLE}_review LIMIT 20",
    "latest answers of one day": (
        f"SELECT topic, count(*) FROM {TABLE}_latest WHERE _partition = '{{last}}' GROUP BY topic"
    ),
    "latest answer of one record": f"FROM {TABLE}_latest WHERE post_id = '0001-0000007'",
    "latest answers, all by topic": f"SELECT topic, count(*) FROM {TABLE}_latest GROUP BY topic",
}


class LargeTable:
    """The table in a folder of its own."""

    def __init__(self, folder: Path, days: int) -> None:
        self._folder = folder
        self._days = days
        self._last = (FIRST_DAY + timedelta(days=days - 1)).isoformat()
        self.warehouse = Warehouse(UPath(folder / "w/working.duckdb"), UPath(folder / "w.duckdb"))

    def load(self, asked: int, *, one_in: int = 1, day: int = 0, ids: int = 0) -> None:
        """Load the rows of a day, of which one in so many were asked again, for this time.

        ``ids``: the day whose ids they have.
        """
        paths = {"records": self._folder / "r.parquet", "results": self._folder / "p.parquet"}
        for name, query in (("records", RECORDS), ("results", RESULTS)):
            prefix = f"{ids:04d}-" if ids else ""
            sql = query.format(rows=ROWS, asked=asked, one_in=one_in, ids=prefix)
            duckdb.sql(f"COPY ({sql}) TO '{paths[name]}' (FORMAT parquet, COMPRESSION zstd)")
        key = (FIRST_DAY + timedelta(days=day)).isoformat()
        load = PartitionLoad(key, UPath(paths["records"]), UPath(paths["results"]))
        spec = TableSpec(
            "posts", workload.ID, output_schema=workload.SCHEMA, columns=workload.SHOWN
        )
        timed(f"load of {key}", lambda: self.warehouse.load(spec, ENDPOINT, [load]))

    def fill(self, days: int) -> None:
        """Insert the other days, which have the first one's rows under other ids."""
        settings: dict[str, Any] = {"memory_limit": "2GB", "threads": 1}
        with duckdb.connect(self.warehouse.working, config=settings) as connection:
            for begin in range(1, days, DAYS_PER_INSERT):
                end = min(begin + DAYS_PER_INSERT, days)
                connection.execute(
                    OTHER_DAYS.format(table=TABLE, first=FIRST_DAY, begin=begin, end=end)
                )
            connection.execute(
                "INSERT INTO _batch_etl.loads SELECT l.* REPLACE (p._partition AS partition) "
                f"FROM _batch_etl.loads l, (SELECT DISTINCT _partition FROM {TABLE}) p "
                "WHERE p._partition <> l.partition"
            )

    def ask(self) -> None:
        """Each query in a fresh connection, twice: the second finds the file in memory."""
        for name, query in QUERIES.items():
            for _ in range(2):
                with self.warehouse.read_only() as connection:
                    sql = query.format(last=self._last)
                    timed(name, lambda c=connection, sql=sql: c.execute(sql).fetchall())

    def replace(self) -> None:
        """Load the last day twice more, then one whose ids are those of the day before it."""
        self.load(1, day=self._days - 1, ids=self._days - 1)
        self.load(2, day=self._days - 1, ids=self._days - 1, one_in=100)
        self.load(3, day=self._days, ids=self._days - 1)
        timed("publish", self.warehouse.publish)


def timed(name: str, work: Callable[[], object]) -> None:
    """Do the work and print what it took."""
    watch = Watch(time.monotonic(), "")
    with watch.stage(name):
        work()
    took = watch.stages[name]
    print(
        f"{name:34}{took['wall_s']:9.2f} s{took['cpu_s']:9.2f} CPU s{took['peak_mb']:7.0f} MB",
        flush=True,
    )


def main() -> None:
    """Build the table, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=int)
    parser.add_argument("--folder", type=Path)
    said = parser.parse_args()
    days = max(said.rows // ROWS, 2)
    with tempfile.TemporaryDirectory(prefix="batch-etl-large-", dir=said.folder) as folder:
        table = LargeTable(Path(folder), days)
        table.load(0)
        timed(f"{days - 1} more days by SQL", lambda: table.fill(days))
        timed("publish", table.warehouse.publish)
        print(f"file: {table.warehouse.published.stat().st_size / 1e6:,.0f} MB", flush=True)
        table.ask()
        table.replace()
        table.ask()


if __name__ == "__main__":
    main()
