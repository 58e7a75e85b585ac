"""DuckdbSource against real files: types as they are there, read only, streamed."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from batch_etl.errors import SourceError
from batch_etl.sources import DuckdbSource, PartitionSlice
from batch_etl_tests.sources.databases import days, ids, read, schema_of


def made(path: Path, *statements: str) -> Path:
    with duckdb.connect(str(path)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for statement in statements:
            connection.execute(statement)
    return path


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return made(
        tmp_path / "shop.duckdb",
        "CREATE TABLE orders (id TEXT, placed TIMESTAMP, region TEXT)",
        "INSERT INTO orders VALUES ('a', '2026-11-01', 'emea'), ('b', '2026-11-01 23:59:59', "
        "'apac'), ('c', '2026-11-02', 'emea'), ('d', '2026-11-04 12:00', 'emea')",
    )


def source(folder: Path, query: str, **settings: Any) -> DuckdbSource:
    values = {"type": "duckdb", "path": "shop.duckdb", "id": "id", "query": query} | settings
    return DuckdbSource.model_validate(values).anchored(folder)


@pytest.mark.parametrize(
    ("query", "settings"),
    [
        ("FROM orders WHERE placed >= :start AND placed < :end ORDER BY id", {}),
        ("FROM orders ORDER BY id", {"partition_column": "placed"}),
        (
            "FROM orders WHERE placed >= :start AND placed < :end ORDER BY id",
            {"partition_column": "placed"},
        ),
        ("FROM orders WHERE placed::date = :partition::date ORDER BY id", {}),
    ],
    ids=["bounds", "column", "both", "key"],
)
def test_each_way_to_say_a_partition_gives_the_same_days(
    shop: Path, query: str, settings: dict[str, Any]
) -> None:
    found = read(source(shop.parent, query, **settings), days(1, 2, 3, 4))
    assert ids(found) == {
        "2026-11-01": ["a", "b"],
        "2026-11-02": ["c"],
        "2026-11-03": [],
        "2026-11-04": ["d"],
    }


@pytest.mark.parametrize("kind", ["TIMESTAMP", "TIMESTAMPTZ", "DATE"])
def test_bounds_compare_with_every_type_of_time(tmp_path: Path, kind: str) -> None:
    made(
        tmp_path / "shop.duckdb",
        f"CREATE TABLE t AS SELECT 1 AS id, {kind} '2026-11-01' AS placed "
        f"UNION ALL SELECT 2, {kind} '2026-11-02'",
    )
    asked = source(tmp_path, "FROM t WHERE placed >= :start AND placed < :end")
    assert ids(read(asked, days(1, 2))) == {"2026-11-01": [1], "2026-11-02": [2]}


def test_a_key_is_a_value(shop: Path) -> None:
    asked = source(shop.parent, "FROM orders WHERE region = :partition ORDER BY id")
    slices = [PartitionSlice("emea"), PartitionSlice("x' OR 'a' = 'a")]
    assert ids(read(asked, slices)) == {"emea": ["a", "c", "d"], "x' OR 'a' = 'a": []}


def test_types_are_duckdbs_own(shop: Path) -> None:
    asked = source(
        shop.parent,
        "SELECT 1 AS id, 2::HUGEINT AS huge, 'x'::ENUM('x', 'y') AS label, TIME '10:00' AS t, "
        "{'a': [1, 2]} AS nested, '[1]'::JSON AS j, TIMESTAMPTZ '2026-11-01' AS placed, "
        "NULL AS nil, DATE '2026-11-01' AS day, 1.5::DECIMAL(10,2) AS price, "
        "[1] AS n, uuid() IS NULL AS u",
        types={"price": "float64"},
    )
    assert read(asked)[None] == [
        {
            "id": 1,
            "huge": Decimal(2),
            "label": "x",
            "t": time(10),
            "nested": {"a": [1, 2]},
            "j": "[1]",
            "placed": datetime(2026, 11, 1, tzinfo=UTC),
            "nil": None,
            "day": date(2026, 11, 1),
            "price": 1.5,
            "n": [1],
            "u": False,
        }
    ]
    kinds = schema_of(asked)
    assert (kinds["label"], kinds["huge"]) == ("string", "decimal128(38, 0)")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("FROM order_lines", r"the query on shop\.duckdb: Catalog Error"),
        ("DELETE FROM orders", "read-only mode"),
        ("", "query: it is empty; write one SELECT"),
        ("SELECT 1 AS id, 2 AS id", "two columns are called 'id'"),
        ("SELECT 1 AS id, INTERVAL 1 DAY AS i", "column 'i' is an interval"),
        ("SELECT 1 AS n", "id: there is no column 'id'"),
        ("SELECT 1 AS id, error('no such rate') AS n", "no such rate"),
    ],
)
def test_a_query_that_cannot_be_read_is_refused(shop: Path, query: str, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        read(source(shop.parent, query))


def test_a_value_that_is_not_of_its_declared_type_is_named(shop: Path) -> None:
    asked = source(shop.parent, "FROM orders ORDER BY id", types={"region": "int64"})
    with pytest.raises(
        SourceError, match=r"the query on shop\.duckdb record 1: 'region' is 'emea'"
    ):
        read(asked)


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"there is no DuckDB file .*shop\.duckdb"):
        read(source(tmp_path, "SELECT 1"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_none_of_duckdb_is_named(tmp_path: Path) -> None:
    (tmp_path / "shop.duckdb").write_text("id\n1\n" * 3000)
    with pytest.raises(SourceError, match=r"path: .*shop\.duckdb: .*not a valid DuckDB"):
        read(source(tmp_path, "SELECT 1"))


def test_a_file_that_another_process_writes_is_said_to_be_so(shop: Path) -> None:
    program = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); input()"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", program, str(shop)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert writer.stdout is not None
        writer.stdout.readline()
        with pytest.raises(SourceError, match="another process has the file open for writing"):
            read(source(shop.parent, "FROM orders"))
    finally:
        writer.communicate(b"\n", timeout=30)
    assert ids(read(source(shop.parent, "FROM orders ORDER BY id"))) == {None: ["a", "b", "c", "d"]}


def test_without_a_path_the_query_names_its_files_below_the_yaml(tmp_path: Path) -> None:
    (tmp_path / "it's").mkdir()
    (tmp_path / "it's" / "a.csv").write_text("id,n\n1,2\n")
    (tmp_path / "it's" / "b.csv").write_text("id,n\n3,4\n")
    asked = source(tmp_path / "it's", "FROM '*.csv' ORDER BY id", path=None)
    assert read(asked)[None] == [{"id": 1, "n": 2}, {"id": 3, "n": 4}]


def test_rows_are_streamed(shop: Path) -> None:
    """300 MB of text pass through: the process grows by a fraction of it."""
    program = """if True:
        import resource, sys
        from pathlib import Path
        from batch_etl.sources import DuckdbSource
        asked = DuckdbSource(type="duckdb", path=sys.argv[1], id="id", query=sys.argv[2])
        def peak_bytes():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        list(asked.model_copy(update={"query": "SELECT 1 AS id"}).read())
        before = peak_bytes()
        print(sum(p.batch.num_rows for p in asked.read()), peak_bytes() - before)
    """
    query = "SELECT range AS id, repeat('x', 10000) AS text FROM range(30000)"
    done = subprocess.run(
        [sys.executable, "-c", program, str(shop), query],
        capture_output=True,
        text=True,
        check=True,
    )
    rows, grown_bytes = map(int, done.stdout.split())
    assert rows == 30_000
    assert grown_bytes < 150 * 2**20
