"""SqlSource against real databases: SQLite files and a PostgreSQL server."""

from __future__ import annotations

import sqlite3
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import ValidationError
from upath import UPath

from batch_etl.errors import SourceError
from batch_etl.sources import PartitionSlice, SqlSource, extract
from batch_etl.sources.rows import MOST_ROWS
from batch_etl.strict import explain
from batch_etl_tests.batches import postgres
from batch_etl_tests.conftest import prerequisite
from batch_etl_tests.sources.databases import days, ids, read, schema_of

ORDERS = """
CREATE TABLE orders (id TEXT, at TEXT, region TEXT, amount REAL);
INSERT INTO orders VALUES
  ('a', '2026-11-01 00:00:00', 'emea', 1.5), ('b', '2026-11-01 23:59:59', 'apac', 2),
  ('c', '2026-11-02 00:00:00', 'emea', NULL), ('d', '2026-11-04 12:00:00', 'emea', 4)
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return sqlite(tmp_path / "shop.db", ORDERS)


def sqlite(path: Path, script: str) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    return path


def source(folder: Path, query: str, **settings: Any) -> SqlSource:
    values = {"type": "sql", "path": "shop.db", "id": "id", "query": query} | settings
    return SqlSource.model_validate(values).anchored(folder)


# What is asked ------------------------------------------------------------------------------------


def test_a_query_without_bounds_is_all_rows(shop: Path) -> None:
    found = read(source(shop.parent, "SELECT * FROM orders ORDER BY id"))
    assert ids(found) == {None: ["a", "b", "c", "d"]}
    assert found[None][0] == {
        "id": "a",
        "at": "2026-11-01 00:00:00",
        "region": "emea",
        "amount": 1.5,
    }


@pytest.mark.parametrize(
    ("query", "settings"),
    [
        ("SELECT * FROM orders WHERE at >= :start AND at < :end ORDER BY id", {}),
        ("SELECT * FROM orders ORDER BY id", {"partition_column": "at"}),
        (
            "SELECT * FROM orders WHERE at >= :start AND at < :end ORDER BY id",
            {"partition_column": "at"},
        ),
        ("SELECT * FROM orders WHERE date(at) = :partition ORDER BY id", {}),
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


def test_keys_are_a_bound_or_a_column(shop: Path) -> None:
    slices = [PartitionSlice("emea"), PartitionSlice("amer")]
    expected = {"emea": ["a", "c", "d"], "amer": []}
    bound = source(shop.parent, "SELECT * FROM orders WHERE region = :partition ORDER BY id")
    assert ids(read(bound, slices)) == expected
    column = source(shop.parent, "SELECT * FROM orders ORDER BY id", partition_column="region")
    assert ids(read(column, slices)) == expected


def test_neighbouring_days_are_one_query_and_days_apart_are_two(shop: Path) -> None:
    """What SQLite is asked for is seen in what it answers: the bounds themselves."""
    query = "SELECT :start || ' ' || :end AS id, :start AS at"
    found = read(source(shop.parent, query, partition_column="at"), days(1, 2, 4))
    assert ids(found) == {
        "2026-11-01": ["2026-11-01 2026-11-03"],
        "2026-11-02": [],
        "2026-11-04": ["2026-11-04 2026-11-05"],
    }


def test_a_bound_is_a_value_and_never_text_of_the_statement(shop: Path) -> None:
    hostile = "x' OR '1'='1"
    asked = source(shop.parent, "SELECT :partition AS id, ':end' AS text FROM orders LIMIT 1")
    assert read(asked, [PartitionSlice(hostile)]) == {hostile: [{"id": hostile, "text": ":end"}]}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"query": "SELECT :start"}, ":start and :end go together"),
        ({"query": "SELECT :partition, :start, :end"}, "use one of the two"),
        (
            {"query": "SELECT :partition", "partition_column": "at"},
            "partition_column: :partition says it already",
        ),
        ({"query": "SELECT :strat"}, ":strat is no bound; did you mean ':start'?"),
        ({"path": None}, "either `url_env`, or `path`"),
        ({"url_env": "WAREHOUSE_URL"}, "either `url_env`, or `path`"),
        (
            {"path": None, "url_env": "postgresql://u:p@h/d"},
            "url_env is the name of an environment variable",
        ),
        ({"types": {"id": "text"}}, "unknown type 'text'"),
        ({"quary": "x"}, "unknown key 'quary'; did you mean 'query'?"),
    ],
)
def test_a_mistake_in_the_block_is_found_at_load(settings: dict[str, Any], words: str) -> None:
    values = {"type": "sql", "path": "shop.db", "id": "id", "query": "SELECT 1"} | settings
    with pytest.raises(ValidationError) as caught:
        SqlSource.model_validate(values)
    assert words in explain(caught.value, "source")


@pytest.mark.parametrize(
    ("query", "column", "cut", "words"),
    [
        ("SELECT 1", None, None, None),
        ("SELECT 1", None, "time", "`partitions` needs `source.partition_column`, or :start"),
        ("SELECT 1", "at", "time", None),
        ("SELECT 1", "at", None, "add a `partitions` block"),
        ("SELECT :partition", None, None, "add a `partitions` block"),
        ("SELECT :partition", None, "keys", None),
        ("SELECT :start, :end", None, "time", None),
        ("SELECT :start, :end", None, "keys", "for keys there is :partition"),
    ],
)
def test_a_source_says_how_it_can_be_cut(
    query: str, column: str | None, cut: Any, words: str | None
) -> None:
    asked = source(Path(), query, partition_column=column)
    if words is None:
        asked.check_partitions(cut)
        return
    with pytest.raises(ValueError, match=words):
        asked.check_partitions(cut)


# What comes of it ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("SELECT * FROM order_lines", "the query on shop.db: no such table: order_lines"),
        ("DELETE FROM orders", "attempt to write a readonly database"),
        ("SELECT 1 AS a, 2 AS a", "two columns are called 'a'"),
        ("SELECT region FROM orders", "id: there is no column 'id'"),
    ],
)
def test_a_query_that_cannot_be_read_is_refused(shop: Path, query: str, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        read(source(shop.parent, query))
    with closing(sqlite3.connect(shop)) as connection:
        assert connection.execute("SELECT count(*) FROM orders").fetchone() == (4,)


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"there is no SQLite file .*shop\.db"):
        read(source(tmp_path, "SELECT 1"))
    assert list(tmp_path.iterdir()) == []


def test_a_query_of_no_rows_still_has_its_columns(shop: Path) -> None:
    asked = source(shop.parent, "SELECT id, amount FROM orders WHERE 0", types={"amount": "int64"})
    assert read(asked) == {None: []}
    assert schema_of(asked) == {"id": "string", "amount": "int64"}


def numbered(path: Path, last: str) -> Path:
    """Five thousand numbers, and one more row."""
    many = f"WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n LIMIT {MOST_ROWS})"
    return sqlite(
        path,
        f"CREATE TABLE t (id, n); INSERT INTO t {many} SELECT id, id FROM n;"
        f"INSERT INTO t VALUES ({MOST_ROWS + 1}, {last})",
    )


@pytest.mark.parametrize("last", ["'many'", "1.5", "x'ff'", "1e300"])
def test_a_later_value_that_does_not_fit_the_first_rows_is_named(tmp_path: Path, last: str) -> None:
    numbered(tmp_path / "shop.db", last)
    with pytest.raises(SourceError) as caught:
        read(source(tmp_path, "SELECT * FROM t ORDER BY id"))
    assert f"the query on shop.db record {MOST_ROWS + 1}: 'n' is " in str(caught.value)
    assert "which is no int64" in str(caught.value)
    assert "declare types: {n: string}" in str(caught.value)


@pytest.mark.parametrize(
    ("last", "declared", "first_and_last"),
    [
        ("'many'", "string", ["1", "many"]),
        ("1.5", "float64", [1.0, 1.5]),
        ("1.5", "decimal(20,2)", [Decimal("1.00"), Decimal("1.50")]),
        ("NULL", "int64", [1, None]),
    ],
)
def test_a_declared_type_serves_all_rows(
    tmp_path: Path, last: str, declared: str, first_and_last: list[Any]
) -> None:
    numbered(tmp_path / "shop.db", last)
    rows = read(source(tmp_path, "SELECT * FROM t ORDER BY id", types={"n": declared}))[None]
    assert [rows[0]["n"], rows[-1]["n"]] == first_and_last


def test_values_that_differ_within_the_first_rows_are_named_too(tmp_path: Path) -> None:
    sqlite(tmp_path / "shop.db", "CREATE TABLE t (id, n); INSERT INTO t VALUES (1, 2), (2, 'x')")
    with pytest.raises(SourceError, match="record 2: 'n' is 'x', which is no int64"):
        read(source(tmp_path, "SELECT * FROM t"))


def test_a_duplicate_id_is_named_with_its_rows(shop: Path, tmp_path: Path) -> None:
    asked = source(shop.parent, "SELECT region AS id, at FROM orders ORDER BY at")
    with pytest.raises(SourceError, match="'emea' 3 times") as caught:
        extract(asked, None, lambda _: UPath(tmp_path / "all.parquet"))
    assert "the query on shop.db record 1" in str(caught.value)


def test_rows_are_streamed(tmp_path: Path) -> None:
    """120 MB of text pass through in blocks of a few MB."""
    sqlite(tmp_path / "shop.db", "CREATE TABLE t (x)")
    many = "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n LIMIT 1200)"
    asked = source(tmp_path, f"{many} SELECT id, printf('%.*c', 100000, 'x') AS text FROM n")
    tracemalloc.start()
    try:
        rows = sum(portion.batch.num_rows for portion in asked.read())
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert rows == 1200
    assert peak_bytes < 75 * 2**20


# A database by its URL ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    programs = postgres.programs()
    prerequisite(programs, "PostgreSQL (make services)")
    assert programs is not None
    with postgres.running(programs) as server:
        yield server


@pytest.fixture
def url(server: postgres.Server, monkeypatch: pytest.MonkeyPatch) -> str:
    url = server.new_database()
    monkeypatch.setenv("WAREHOUSE_URL", url)
    return url


def filled(url: str, *statements: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def asked_of_url(query: str, **settings: Any) -> SqlSource:
    values = {"type": "sql", "url_env": "WAREHOUSE_URL", "id": "id", "query": query}
    return SqlSource.model_validate(values | settings)


def test_postgresql_tells_its_types_even_of_columns_that_begin_with_nulls(url: str) -> None:
    filled(
        url,
        "CREATE TABLE t (id int, big bigint, x real, price numeric(10,2), free numeric, yes bool, "
        "day date, at timestamptz, plain timestamp, u uuid, j jsonb, words text[], b bytea)",
        "INSERT INTO t (id) VALUES (1)",
        "INSERT INTO t VALUES (2, 3, 1.5, 9.99, 1.25, true, '2026-11-01', "
        "'2026-11-01 10:00+02', '2026-11-01 10:00', 'f3a1b7c2-0000-4000-8000-000000000001', "
        """'{"a": [1, "ü"]}', '{a,b}', '\\x00ff')""",
    )
    asked = asked_of_url("SELECT * FROM t ORDER BY id")
    assert schema_of(asked) == {
        "id": "int64",
        "big": "int64",
        "x": "double",
        "price": "decimal128(10, 2)",
        "free": "decimal128(38, 2)",
        "yes": "bool",
        "day": "date32[day]",
        "at": "timestamp[us, tz=UTC]",
        "plain": "timestamp[us]",
        "u": "string",
        "j": "string",
        "words": "list<item: string>",
        "b": "binary",
    }
    assert read(asked)[None][1] == {
        "id": 2,
        "big": 3,
        "x": 1.5,
        "price": Decimal("9.99"),
        "free": Decimal("1.25"),
        "yes": True,
        "day": date(2026, 11, 1),
        "at": datetime(2026, 11, 1, 8, tzinfo=UTC),
        "plain": datetime(2026, 11, 1, 10),  # noqa: DTZ001 - the column has no zone
        "u": "f3a1b7c2-0000-4000-8000-000000000001",
        "j": '{"a": [1, "ü"]}',
        "words": ["a", "b"],
        "b": b"\x00\xff",
    }


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp", "date"])
def test_windows_are_in_utc_whatever_the_servers_zone(url: str, kind: str) -> None:
    database = url.rpartition("/")[2]
    filled(
        url,
        f"ALTER DATABASE {database} SET timezone TO 'Asia/Tokyo'",
        f"CREATE TABLE t (id text, at {kind})",
        "SET timezone TO 'UTC'",
        "INSERT INTO t VALUES ('a', '2026-11-01 00:00'), ('b', '2026-11-02 00:00')",
    )
    asked = asked_of_url("SELECT * FROM t WHERE at >= :start AND at < :end")
    assert ids(read(asked, days(1, 2))) == {"2026-11-01": ["a"], "2026-11-02": ["b"]}


def test_percent_signs_casts_and_texts_with_colons_are_as_they_are_written(url: str) -> None:
    asked = asked_of_url(
        "SELECT '100% :start'::text AS id, 7 % 4 AS rest, '{\"a\":\"b\"}'::jsonb ->> 'a' AS a "
        "WHERE 'x' LIKE '%' AND :partition = 'k' -- :end"
    )
    assert read(asked, [PartitionSlice("k")]) == {"k": [{"id": "100% :start", "rest": 3, "a": "b"}]}


def test_a_query_that_would_write_is_refused_by_the_server(url: str) -> None:
    filled(url, "CREATE TABLE t (id int)", "INSERT INTO t VALUES (1)")
    writing = (
        "CREATE FUNCTION more() RETURNS int LANGUAGE SQL AS 'INSERT INTO t VALUES (2); SELECT 2'"
    )
    filled(url, writing)
    with pytest.raises(SourceError, match="cannot execute INSERT in a read-only transaction"):
        read(asked_of_url("SELECT more() AS id"))
    assert read(asked_of_url("SELECT id FROM t")) == {None: [{"id": 1}]}


def test_a_large_answer_stays_on_the_server(url: str) -> None:
    """A cursor there gives 60 MB in pieces: the client's process holds a few of them."""
    asked = asked_of_url(
        "SELECT id, repeat('x', 100000) AS text FROM generate_series(1, 600) AS id"
    )
    tracemalloc.start()
    try:
        rows = sum(portion.batch.num_rows for portion in asked.read())
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert rows == 600
    assert peak_bytes < 75 * 2**20


def test_the_variable_must_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAREHOUSE_URL", raising=False)
    with pytest.raises(SourceError, match="url_env: the environment variable WAREHOUSE_URL is not"):
        read(asked_of_url("SELECT 1"))


PASSWORD = "p@ss w/rd:%1"
QUOTED = "p%40ss%20w%2Frd%3A%251"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"postgresql+psycopg2://me:{QUOTED}@127.0.0.1:{{port}}/none", "password authentication"),
        (f"postgresql+psycopg2://me:{QUOTED}@127.0.0.1:1/none", "refused"),
        (f"postgresql+nodriver://me:{QUOTED}@127.0.0.1/none", "SQLAlchemy knows no database"),
        (f"oracle+oracledb://me:{QUOTED}@127.0.0.1/none", "is not installed"),
        (f"me:{QUOTED}@127.0.0.1", "what WAREHOUSE_URL holds is no database URL"),
        (
            f"postgresql+psycopg2://127.0.0.1:1/none?user=me&password={QUOTED}&bad_key={QUOTED}",
            "WAREHOUSE_URL",
        ),
        (f"sqlite:////nowhere/{QUOTED}?mode=ro&uri=true", "WAREHOUSE_URL"),
    ],
)
def test_no_error_holds_the_password(
    server: postgres.Server, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    monkeypatch.setenv("WAREHOUSE_URL", text.replace("{port}", str(server.port)))
    with pytest.raises(SourceError, match=words) as caught:
        read(asked_of_url("SELECT 1 AS id"))
    shown = str(caught.value)
    error = caught.value.__cause__
    while error is not None:
        shown += repr(error)
        error = error.__cause__
    if not text.startswith("sqlite"):
        for form in (PASSWORD, QUOTED):
            assert form not in shown
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
