"""extract: one Parquet a partition, one id a record, all partitions or none."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from batch_etl.errors import SourceError
from batch_etl.sources import Extracted, FilesSource, PartitionSlice, Portion, duplicates, extract

Destination = Callable[[str | None], UPath]


@pytest.fixture
def out(tmp_path: Path) -> Destination:
    return lambda key: UPath(tmp_path) / "out" / f"{key}.parquet"


def days(first: str, count: int) -> list[PartitionSlice]:
    start = datetime.fromisoformat(first).replace(tzinfo=UTC)
    bounds = [start + timedelta(days=number) for number in range(count + 1)]
    return [PartitionSlice(f"{low:%Y-%m-%d}", low, high) for low, high in pairwise(bounds)]


def source_of(path: Path, text: str, **settings: Any) -> FilesSource:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return FilesSource(path=str(path), id="id", **settings)


def ids(extracted: list[Extracted]) -> dict[str | None, list[Any]]:
    return {each.partition: pq.read_table(str(each.path))["id"].to_pylist() for each in extracted}


def leftovers(tmp_path: Path) -> list[str]:
    folder = tmp_path / "out"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_an_unpartitioned_source_is_one_file(tmp_path: Path, out: Destination) -> None:
    source = source_of(tmp_path / "a.jsonl", '{"id": 7, "t": "x"}\n{"id": 8, "t": null}\n')
    (one,) = extract(source, None, out)
    assert (one.partition, one.path, one.rows, one.duplicates_dropped) == (None, out(None), 2, 0)
    assert one.schema == pa.schema([("id", pa.int64()), ("t", pa.string())])
    assert one.size_bytes == one.path.stat().st_size
    assert duckdb.execute(f"SELECT id, t FROM '{one.path}'").fetchall() == [(7, "x"), (8, None)]
    assert leftovers(tmp_path) == ["None.parquet"]


def test_the_digest_is_that_of_the_records(tmp_path: Path, out: Destination) -> None:
    def digest(text: str) -> str:
        return extract(source_of(tmp_path / "a.csv", text), None, out)[0].digest

    assert digest("id,t\n1,x\n") == digest('"id","t"\n"1","x"\n') != digest("id,t\n1,y\n")


TIMES = [
    ("2026-03-01", "2026-03-01"),
    ("2026-03-01T23:59:59.999999Z", "2026-03-01"),
    ("2026-03-02T00:00:00Z", "2026-03-02"),
    ("2026-03-02T01:00:00+02:00", "2026-03-01"),
    ("2026-03-02 10:00", "2026-03-02"),
    ("2026-03-03T09:00:00.123456789Z", "2026-03-03"),
    ("2026-02-28T23:59:59Z", None),
    ("2026-03-04", None),
]


@pytest.mark.parametrize("chosen", [TIMES, *[[time] for time in TIMES]], ids=lambda c: str(len(c)))
def test_rows_go_to_the_window_that_holds_their_time(
    tmp_path: Path, out: Destination, chosen: list[tuple[str, str | None]]
) -> None:
    text = "".join(f"{number},{time}\n" for number, (time, _) in enumerate(chosen))
    source = source_of(tmp_path / "a.csv", "id,at\n" + text, partition_column="at")
    wanted = days("2026-03-01", 3)
    expected = {
        piece.key: [str(n) for n, (_, key) in enumerate(chosen) if key == piece.key]
        for piece in wanted
    }
    assert ids(extract(source, wanted[::-1], out)) == expected


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["2026-03-01 23:00", "2026-03-02 00:00"]).cast(pa.timestamp("ns")),
        pa.array(["2026-03-01 23:00Z", "2026-03-02 00:00Z"]).cast(pa.timestamp("s", "Asia/Tokyo")),
        pa.array(["2026-03-01", "2026-03-02"]).cast(pa.date32()),
        pa.array(["2026-03-01", "2026-03-02"]).dictionary_encode(),
    ],
    ids=str,
)
def test_typed_times_are_taken_as_such(tmp_path: Path, out: Destination, column: pa.Array) -> None:
    pq.write_table(pa.table({"id": [1, 2], "at": column}), tmp_path / "a.parquet")
    source = FilesSource(path=str(tmp_path / "a.parquet"), id="id", partition_column="at")
    assert list(ids(extract(source, days("2026-03-01", 2), out)).values()) == [[1], [2]]


def test_numbers_are_times_only_when_declared(tmp_path: Path, out: Destination) -> None:
    text = '{"id": 1, "at": 1772323200}\n'
    source = source_of(tmp_path / "a.jsonl", text, partition_column="at")
    with pytest.raises(SourceError, match=r"'at' is int64.*timestamp_s"):
        extract(source, days("2026-03-01", 1), out)
    told = source.model_copy(update={"types": {"at": "timestamp_s"}})
    assert ids(extract(told, days("2026-03-01", 1), out)) == {"2026-03-01": [1]}


def test_static_partitions_match_by_text(tmp_path: Path, out: Destination) -> None:
    text = '{"id":1,"n":1,"s":"de"}\n{"id":2,"n":2,"s":"fr"}\n{"id":3,"n":1,"s":"it"}\n'
    by_text = source_of(tmp_path / "a.jsonl", text, partition_column="s")
    wanted = [PartitionSlice("fr"), PartitionSlice("de"), PartitionSlice("es")]
    assert ids(extract(by_text, wanted, out)) == {"fr": [2], "de": [1], "es": []}
    by_number = source_of(tmp_path / "a.jsonl", text, partition_column="n")
    assert ids(extract(by_number, [PartitionSlice("1")], out)) == {"1": [1, 3]}


def test_a_partition_without_rows_is_an_empty_file_with_the_schema(
    tmp_path: Path, out: Destination
) -> None:
    source = source_of(tmp_path / "a.csv", "id,day,t\n", partition_column="day")
    (one,) = extract(source, [PartitionSlice("x")], out)
    assert (one.rows, pq.read_schema(str(one.path)).names) == (0, ["id", "day", "t"])


@pytest.mark.parametrize("wanted", [days("2026-03-01", 1), [PartitionSlice("2026-03-01")]])
def test_rows_of_no_known_partition_are_refused(
    tmp_path: Path, out: Destination, wanted: list[PartitionSlice]
) -> None:
    text = "id,at\n1,2026-03-01\n2,\n3,2026-03-01\n" + "4,\n" * 5
    source = source_of(tmp_path / "a.csv", text, partition_column="at")
    with pytest.raises(SourceError) as refused:
        extract(source, wanted, out)
    assert "'at'" in str(refused.value)
    assert [f"a.csv record {n} " in str(refused.value) for n in (2, 4, 5, 6)] == [1, 1, 1, 0]
    assert leftovers(tmp_path) == []


def test_a_time_that_is_none_is_named(tmp_path: Path, out: Destination) -> None:
    text = "id,at\n1,2026-03-01\n2,yesterday\n"
    source = source_of(tmp_path / "a.csv", text, partition_column="at")
    with pytest.raises(SourceError, match=r"a\.csv record 2 \('yesterday'\)"):
        extract(source, days("2026-03-01", 1), out)


def test_a_placeholder_gives_each_partition_its_files(tmp_path: Path, out: Destination) -> None:
    for day in ("2026/03/01", "2026/03/02"):
        source_of(tmp_path / "in" / day / "a.csv", f"id\n{day}\n")
    dated = FilesSource(path="in/{start:%Y/%m/%d}/*.csv", id="id", base_folder=tmp_path)
    read = ids(extract(dated, days("2026-03-01", 2), out))
    assert read == {"2026-03-01": ["2026/03/01"], "2026-03-02": ["2026/03/02"]}
    source_of(tmp_path / "in/[a]*.csv", "id\n1\n")
    keyed = FilesSource(path="in/{partition}.csv", id="id", base_folder=tmp_path)
    assert ids(extract(keyed, [PartitionSlice("[a]*")], out)) == {"[a]*": ["1"]}


def test_a_partition_without_files_is_refused_or_empty(tmp_path: Path, out: Destination) -> None:
    source_of(tmp_path / "a.csv", "id\n1\n")
    source = FilesSource(path="{partition}.csv", id="id", base_folder=tmp_path)
    wanted = [PartitionSlice("a"), PartitionSlice("b")]
    with pytest.raises(SourceError, match=r"'b\.csv'"):
        extract(source, wanted, out)
    assert leftovers(tmp_path) == []
    forgiving = source.model_copy(update={"missing": "empty"})
    assert ids(extract(forgiving, wanted, out)) == {"a": ["1"], "b": []}


@pytest.mark.parametrize(
    ("path", "slices", "told"),
    [
        ("{partition}.csv", None, "no partitions"),
        ("a.csv", [PartitionSlice("x")], "partition_column"),
        ("{start:%Y}.csv", [PartitionSlice("x")], "time-partitioned"),
    ],
)
def test_partitions_and_source_must_agree(
    tmp_path: Path, out: Destination, path: str, slices: list[PartitionSlice] | None, told: str
) -> None:
    source_of(tmp_path / "a.csv", "id\n1\n")
    with pytest.raises(SourceError, match=told):
        extract(FilesSource(path=path, id="id", base_folder=tmp_path), slices, out)


def test_duplicates_are_named_with_their_places(tmp_path: Path, out: Destination) -> None:
    source_of(tmp_path / "a.csv", "id\nx\ny\nx\nz\n")
    source_of(tmp_path / "b.csv", "id\nz\nx\nx\n")
    source = FilesSource(path="*.csv", id="id", base_folder=tmp_path)
    with pytest.raises(SourceError) as refused:
        extract(source, None, out)
    told = str(refused.value).replace(f"{tmp_path}/", "")
    assert "2 values occur more than once: 'x' 4 times (a.csv record 1, a.csv record 3, " in told
    assert "b.csv record 2, ...); 'z' 2 times (a.csv record 4, b.csv record 1)" in told
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(("keep", "texts"), [("first", ["1", "2"]), ("last", ["2", "3"])])
def test_duplicates_are_dropped_when_asked(
    tmp_path: Path, out: Destination, keep: str, texts: list[str]
) -> None:
    text = "id,t\nx,1\ny,2\nx,3\n"
    (one,) = extract(source_of(tmp_path / "a.csv", text, on_duplicate=keep), None, out)
    assert (one.rows, one.duplicates_dropped) == (2, 1)
    assert pq.read_table(str(one.path))["t"].to_pylist() == texts


def test_an_id_may_occur_in_two_partitions(tmp_path: Path, out: Destination) -> None:
    source = source_of(tmp_path / "a.csv", "id,p\n1,a\n1,b\n", partition_column="p")
    assert ids(extract(source, [PartitionSlice("a"), PartitionSlice("b")], out)) == {
        "a": ["1"],
        "b": ["1"],
    }


def test_a_bad_partition_leaves_every_file_as_it_was(tmp_path: Path, out: Destination) -> None:
    good, bad = "id,p\n1,a\n2,b\n", "id,p\n3,a\n4,b\n4,b\n"
    wanted = [PartitionSlice("a"), PartitionSlice("b")]
    before = extract(source_of(tmp_path / "a.csv", good, partition_column="p"), wanted, out)
    with pytest.raises(SourceError, match="in partition 'b'"):
        extract(source_of(tmp_path / "a.csv", bad, partition_column="p"), wanted, out)
    assert ids(before) == {"a": ["1"], "b": ["2"]}
    assert leftovers(tmp_path) == ["a.parquet", "b.parquet"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"id":"a"}\n{"id":null}\n{"id":""}\n{"t":1}\n', "record 2, .*record 3, .*record 4;"),
        ('{"id":1}\n{"id":null}\n', "empty in .*a.jsonl record 2"),
        ('{"id":1.5}\n', "double, which cannot identify"),
        ('{"id":{"a":1}}\n', "cannot identify"),
        ('{"ID":1}\n', "did you mean 'ID'"),
    ],
)
def test_every_record_needs_an_id(tmp_path: Path, out: Destination, text: str, told: str) -> None:
    with pytest.raises(SourceError, match=told):
        extract(source_of(tmp_path / "a.jsonl", text), None, out)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("kind", [pa.string(), pa.int64()])
def test_surplus_agrees_with_a_plain_count(kind: pa.DataType) -> None:
    values = pa.array(np.random.default_rng(7).integers(0, 300_000, 250_000)).cast(kind)
    chunks = [values.slice(start, 20_000) for start in range(0, len(values), 20_000)]
    texts = values.to_pylist()
    last = {value: row for row, value in enumerate(texts)}
    first = {value: len(texts) - 1 - row for row, value in enumerate(reversed(texts))}
    for keep, kept in (("first", first), ("last", last)):
        surplus = duplicates.surplus(lambda: iter(chunks), kind, keep)  # type: ignore[arg-type]
        assert surplus.tolist() == sorted(set(range(len(texts))) - set(kept.values()))
    found = duplicates.find(lambda: iter(chunks), kind)
    assert found is not None
    assert found.values == sum(first[value] != last[value] for value in first)


def test_hundreds_of_partitions_are_read_in_few_passes(tmp_path: Path, out: Destination) -> None:
    class Counted:
        id = "id"
        on_duplicate = "refuse"
        passes = 0

        def read(self, slices: Any) -> Any:
            Counted.passes += 1
            batch = pa.RecordBatch.from_pydict({"id": ["1"]})
            return (Portion(piece.key, batch, "made", [1]) for piece in slices)

    wanted = [PartitionSlice(f"p{number}") for number in range(450)]
    assert len(extract(Counted(), wanted, out)) == 450  # type: ignore[arg-type]
    assert Counted.passes == 3


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (datetime(2026, 1, 1, tzinfo=UTC), None),
        (datetime.fromisoformat("2026-01-01"), datetime.fromisoformat("2026-01-02")),
        (datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)),
    ],
)
def test_half_a_window_is_no_partition(start: datetime, end: datetime | None) -> None:
    with pytest.raises(ValueError, match="partition 'x'"):
        PartitionSlice("x", start, end)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user to be refused")
@pytest.mark.parametrize("locked", ["file", "folder"])
def test_permission_denied_names_the_file(locked: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        path = folder / "in" / "a.csv"
        path.parent.mkdir()
        path.write_text("id\n1\n")
        (path if locked == "file" else path.parent).chmod(0)
        os.seteuid(65534)
        try:
            with pytest.raises(SourceError, match=r"in/a\.csv: permission denied"):
                list(FilesSource(path=str(path), id="id").read())
        finally:
            os.seteuid(0)
