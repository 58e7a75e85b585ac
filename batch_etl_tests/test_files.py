"""files.py: where things lie, and files that are there whole or not at all."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from urllib.parse import unquote

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from upath import UPath

from batch_etl.files import (
    ROWS_PER_GROUP,
    Home,
    ParquetSink,
    partition_stem,
    read_batches,
    replacing,
    row_count,
)

SCHEMA = pa.schema([("n", pa.int64())])


def numbers(start: int, stop: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"n": list(range(start, stop))}, SCHEMA)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=19))
def test_any_partition_key_is_one_plain_file_name(key: str) -> None:
    stem = partition_stem(key)
    assert unquote(stem) == key
    assert not set(stem) & set("/\\\0:*?")
    assert not stem.startswith(".")
    assert stem != "all"


def test_no_partition_is_not_the_partition_called_all() -> None:
    assert (partition_stem(None), partition_stem("all")) == ("all", "%61ll")


LONG = ["東" * 26, "東" * 300, "東" * 299 + "京", "." + "a" * 250, "a" * 231, "a" * 232]


@pytest.mark.parametrize("key", LONG)
def test_a_partition_whose_key_is_longer_than_a_file_name_has_a_file(
    key: str, tmp_path: Path
) -> None:
    home = Home.at(tmp_path)
    for path in (home.records("p", key), home.results("emulator", "p", key)):
        with ParquetSink(path, SCHEMA) as sink:
            sink.write(numbers(0, 3))
        assert row_count(path) == 3


def test_long_keys_that_differ_have_files_that_differ() -> None:
    stems = [partition_stem(key) for key in LONG]
    assert len({*stems, *map(partition_stem, stems)}) == 2 * len(LONG)


def test_the_name_of_a_file_that_could_be_written_ever_stays() -> None:
    assert partition_stem("a" * 230) == "a" * 230
    assert partition_stem("東" * 25) == "%E6%9D%B1" * 25


def test_everything_lies_below_home(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    paths = [
        home.records("p", "2026-01-01"),
        home.results("anthropic", "p", None),
        home.transform("t"),
        home.answers("http://127.0.0.1:1/x"),
        *(home.ledger, home.warehouse, home.warehouse_working, home.dagster, home.emulator),
    ]
    assert len(set(map(str, paths))) == len(paths)
    assert all(str(path).startswith(f"{tmp_path}/") for path in paths)
    assert home.answers("http://127.0.0.1:1/x").parent == home.root / "answers"


def test_a_failed_replacement_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = UPath(tmp_path / "a.txt")
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (path.read_text(), names(tmp_path)) == ("old", ["a.txt"])
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert (path.read_text(), names(tmp_path)) == ("new", ["a.txt"])


def test_a_sink_makes_its_folder_and_appears_when_done(tmp_path: Path) -> None:
    path = UPath(tmp_path / "deep" / "er" / "a.parquet")
    with ParquetSink(path, SCHEMA) as sink:
        sink.write(numbers(0, 3))
        assert not path.exists()
    assert (sink.rows, row_count(path), names(tmp_path / "deep" / "er")) == (3, 3, ["a.parquet"])


def test_a_sink_without_rows_is_an_empty_file_with_its_schema(tmp_path: Path) -> None:
    path = UPath(tmp_path / "a.parquet")
    with ParquetSink(path, SCHEMA) as sink:
        sink.write(numbers(0, 0))
    assert (row_count(path), list(read_batches(path))) == (0, [])
    assert pq.read_schema(str(path)) == SCHEMA


@pytest.mark.parametrize("broken", ["body", "schema"])
def test_a_failed_sink_leaves_nothing(tmp_path: Path, broken: str) -> None:
    path = UPath(tmp_path / "a.parquet")
    wrong = pa.RecordBatch.from_pydict({"other": ["x"]})

    def fail() -> None:
        with ParquetSink(path, SCHEMA) as sink:
            sink.write(numbers(0, ROWS_PER_GROUP + 1))
            if broken == "body":
                raise KeyError
            sink.write(wrong)

    with pytest.raises((KeyError, ValueError)):
        fail()
    assert names(tmp_path) == []


def test_held_rows_can_be_written_early(tmp_path: Path) -> None:
    path = UPath(tmp_path / "a.parquet")
    with ParquetSink(path, SCHEMA) as sink:
        sink.write(numbers(0, 10))
        assert sink.held_bytes > 0
        sink.flush()
        assert (sink.held_bytes, sink.rows) == (0, 10)
        sink.write(numbers(10, 20))
    with pq.ParquetFile(str(path)) as file:
        assert file.metadata.num_row_groups == 2
    assert row_count(path) == 20


def test_batches_are_read_in_order_and_never_too_large(tmp_path: Path) -> None:
    path = UPath(tmp_path / "a.parquet")
    rows = ROWS_PER_GROUP * 2 + 17
    with ParquetSink(path, SCHEMA) as sink:
        for start in range(0, rows, 7000):
            sink.write(numbers(start, min(start + 7000, rows)))
    batches = list(read_batches(path, ["n"], rows=1000))
    assert max(batch.num_rows for batch in batches) <= 1000
    assert [n for batch in batches for n in batch.column("n").to_pylist()] == list(range(rows))


def test_a_row_group_is_made_of_whole_batches(tmp_path: Path) -> None:
    path = UPath(tmp_path / "a.parquet")
    sizes = [3000] * 8 + [ROWS_PER_GROUP + 5, 1]
    with ParquetSink(path, SCHEMA) as sink:
        for size in sizes:
            sink.write(numbers(0, size))
    with pq.ParquetFile(str(path)) as file:
        groups = [file.metadata.row_group(at).num_rows for at in range(file.num_row_groups)]
    assert groups == [18_000, 6_000, ROWS_PER_GROUP, 5, 1]


LEAN = pa.schema(
    [
        ("key", pa.binary(4)),
        ("word", pa.dictionary(pa.int32(), pa.string())),
        ("text", pa.string()),
        ("digits", pa.string()),
        ("count", pa.int64()),
        ("small", pa.int16()),
        ("at", pa.timestamp("us", tz="UTC")),
        ("cost", pa.decimal128(18, 12)),
        ("yes", pa.bool_()),
    ]
)


def lean_rows(first: int, words: list[str]) -> pa.RecordBatch:
    """Rows of which every seventh is null throughout."""
    known = [None if n % 7 == 3 else n for n in range(first, first + 1000)]
    columns = {
        "key": [None if n is None else n.to_bytes(4, "big") for n in known],
        "word": pa.array([None if n is None else words[n % 2] for n in known]).dictionary_encode(),
        "text": [None if n is None else f"text {n}" for n in known],
        "digits": [None if n is None else f"{n * 2**40:020x}" for n in known],
        "count": [None if n is None else n * (-1) ** n * 2**40 for n in known],
        "small": [None if n is None else n % 300 for n in known],
        "at": pa.array([None if n is None else n * 10**9 for n in known], LEAN.field("at").type),
        "cost": [None if n is None else Decimal(n) / 1000 for n in known],
        "yes": [None if n is None else n % 3 == 0 for n in known],
    }
    return pa.RecordBatch.from_pydict(columns, LEAN)


def test_a_lean_file_tells_the_same_to_arrow_and_to_duckdb(tmp_path: Path) -> None:
    batches = [lean_rows(0, ["a", "b"]), lean_rows(1000, ["c", "a"])]
    path, plain = UPath(tmp_path / "lean.parquet"), UPath(tmp_path / "plain.parquet")
    for file, options in ((path, {"lean": True, "noise": ["digits"]}), (plain, {})):
        with ParquetSink(file, LEAN, **options) as sink:
            for batch in batches:
                sink.write(batch)
    expected = [row for batch in batches for row in batch.to_pylist()]
    assert pq.read_table(str(path)).to_pylist() == expected
    assert [row for batch in read_batches(path) for row in batch.to_pylist()] == expected
    with duckdb.connect() as connection:
        connection.execute(f"SELECT count(*) FROM (FROM '{path}' EXCEPT ALL FROM '{plain}')")
        assert connection.fetchall() == [(0,)]
        connection.execute(f"SELECT count(*), count(count) FROM '{path}'")
        assert connection.fetchall() == [(2000, 1714)]


def test_a_lean_file_compresses_what_gains_by_it(tmp_path: Path) -> None:
    path = UPath(tmp_path / "a.parquet")
    with ParquetSink(path, LEAN, lean=True, noise=["digits"]) as sink:
        sink.write(lean_rows(0, ["a", "b"]))
        sink.write(lean_rows(1000, ["c", "a"]))
    with pq.ParquetFile(str(path)) as file:
        group = file.metadata.row_group(0)
        columns = {LEAN.names[at]: group.column(at) for at in range(group.num_columns)}
    compressed = {name for name, column in columns.items() if column.compression == "LZ4"}
    assert compressed == {"word", "text", "cost", "yes"}
    by_difference = {
        name for name, column in columns.items() if "DELTA_BINARY_PACKED" in column.encodings
    }
    assert by_difference == {"count", "small", "at"}
    words = [name for name, column in columns.items() if "RLE_DICTIONARY" in column.encodings]
    assert words == ["word"]
    assert columns["word"].total_uncompressed_size < 2000  # none is written out
