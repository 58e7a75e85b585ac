"""Fan-out: each record of a source once for each value, and none lost, doubled or mixed up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from batch_etl.errors import ConfigError, SourceError
from batch_etl.sources import FanOut, FilesSource, ForEach, Portion, extract
from batch_etl.sources import fan_out as module

LANGUAGES = ["de", "fr", "no"]


def each(**values: Any) -> ForEach:
    return ForEach.load({"into": "language", **values}, "for_each")


def source_of(path: Path, rows: list[dict[str, Any]], **settings: Any) -> FilesSource:
    path.mkdir(parents=True, exist_ok=True)
    (path / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return FilesSource(path=str(path / "s.jsonl"), id="id", **settings)


def rows(path: Path, source: FanOut) -> list[dict[str, Any]]:
    extract(source, None, lambda _: UPath(path) / "out.parquet")
    return pq.read_table(path / "out.parquet").to_pylist()


def test_each_record_is_there_once_for_each_value_with_an_id_of_its_own(tmp_path: Path) -> None:
    strings = [{"id": "s1", "text": "Hi"}, {"id": "s2", "text": None}]
    out = FanOut(source_of(tmp_path, strings), each(values=LANGUAGES))
    assert rows(tmp_path, out) == [
        {"id_language": f"{string['id']}:{language}", "language": language, **string}
        for string in strings
        for language in LANGUAGES
    ]
    assert out.expected_rows(UPath(tmp_path) / "out.parquet") == 6


def test_each_record_may_have_its_own_list(tmp_path: Path) -> None:
    strings = [
        {"id": 1, "to": ["de", None, "fr"]},
        {"id": 2, "to": []},
        {"id": 3, "to": None},
        {"id": 4, "to": ["it"]},
    ]
    out = FanOut(source_of(tmp_path, strings), each(column="to", id="key"))
    found = [(row["key"], row["language"], row["id"]) for row in rows(tmp_path, out)]
    assert found == [("1:de", "de", 1), ("1:fr", "fr", 1), ("4:it", "it", 4)]
    assert out.expected_rows(UPath(tmp_path) / "out.parquet") == 3


def test_numbers_stay_numbers(tmp_path: Path) -> None:
    out = FanOut(source_of(tmp_path, [{"id": "a"}]), ForEach(values=[1, 2], into="level"))
    assert [(row["id_level"], row["level"]) for row in rows(tmp_path, out)] == [
        ("a:1", 1),
        ("a:2", 2),
    ]


def test_the_rows_of_a_partition_stay_in_it(tmp_path: Path) -> None:
    from batch_etl.sources import PartitionSlice

    strings = [{"id": n, "region": "north" if n % 2 else "south"} for n in range(10)]
    source = source_of(tmp_path, strings, partition_column="region")
    out = FanOut(source, each(values=LANGUAGES))
    slices = [PartitionSlice("north"), PartitionSlice("south"), PartitionSlice("west")]
    found = extract(out, slices, lambda key: UPath(tmp_path) / f"{key}.parquet")
    assert [(one.partition, one.rows) for one in found] == [
        ("north", 15),
        ("south", 15),
        ("west", 0),
    ]
    north = pq.read_table(tmp_path / "north.parquet").to_pylist()
    assert {row["region"] for row in north} == {"north"}
    assert pq.read_schema(tmp_path / "west.parquet") == pq.read_schema(tmp_path / "north.parquet")


def test_a_source_without_any_file_has_no_records(tmp_path: Path) -> None:
    source = FilesSource(path=str(tmp_path / "*.csv"), id="id", missing="empty")
    for one in (each(values=LANGUAGES), each(column="to")):
        assert rows(tmp_path, FanOut(source, one)) == []


def test_a_value_that_comes_twice_in_a_list_is_named_with_its_place(tmp_path: Path) -> None:
    source = source_of(tmp_path, [{"id": "a", "to": ["de"]}, {"id": "b", "to": ["de", "de"]}])
    with pytest.raises(SourceError) as error:
        rows(tmp_path, FanOut(source, each(column="to")))
    assert "'b:de' 2 times" in str(error.value)
    assert "record 2" in str(error.value)


def test_a_record_without_an_id_is_refused(tmp_path: Path) -> None:
    source = source_of(tmp_path, [{"id": "a"}, {"id": None}])
    with pytest.raises(SourceError, match=r"column 'id_language' is empty in .*record 2"):
        rows(tmp_path, FanOut(source, each(values=["de"])))


REFUSED = [
    ({}, "give either `values` or `column`"),
    ({"values": ["de"], "column": "to"}, "give either `values` or `column`"),
    ({"values": []}, "for_each.values: "),
    ({"values": ["de", False]}, "YAML reads yes, no, on and off as true and false"),
    ({"values": ["de", "de"]}, "'de' is there twice"),
    ({"values": ["1", 1]}, "'1' is there twice"),
    ({"values": [""]}, "a value is empty"),
    ({"values": [1.5]}, "for_each.values.0"),
    ({"column": "language"}, "'language' must be a name of its own"),
    ({"value": ["de"]}, "did you mean 'values'"),
]


@pytest.mark.parametrize(("values", "words"), REFUSED)
def test_what_cannot_be_meant_is_refused_at_load(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        each(**values)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("record", "values", "words"),
    [
        ({"to": "de"}, {"column": "to"}, "'to' is string, and must be a list"),
        ({"to": [{"a": 1}]}, {"column": "to"}, "they must be texts or numbers"),
        ({"to": ["de"]}, {"column": "tu"}, "for_each.column: there is no column 'tu'"),
        ({"language": "x"}, {"values": ["de"]}, "have a column 'language' already"),
        ({"key": "x"}, {"values": ["de"], "id": "key"}, "for_each.id: the records have a column"),
    ],
)
def test_what_the_records_do_not_fit_is_refused_with_the_key(
    record: dict[str, Any], values: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(SourceError) as error:
        rows(tmp_path, FanOut(source_of(tmp_path, [{"id": "a", **record}]), each(**values)))
    assert words in str(error.value)


class Held:
    """A source of one portion."""

    id = "id"
    on_duplicate = "refuse"

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.batch = batch

    def read(self, slices: Any) -> Any:
        yield Portion(None, self.batch, "here", range(1, self.batch.num_rows + 1))


_LISTS = st.lists(st.none() | st.lists(st.none() | st.integers(0, 99), max_size=4), max_size=12)


@settings(max_examples=60)
@given(lists=_LISTS, offset=st.integers(0, 3))
def test_any_lists_become_what_a_plain_loop_makes_of_them(
    lists: list[list[int | None] | None], offset: int
) -> None:
    """Slices of larger columns too: an Arrow array need not begin at its buffer's start."""
    padded = [[7]] * offset + lists
    ids = [f"r{n}" for n in range(len(padded))]
    kinds = pa.schema([("id", pa.string()), ("to", pa.list_(pa.int64()))])
    batch = pa.RecordBatch.from_pydict({"id": ids, "to": padded}, schema=kinds).slice(offset)
    out = FanOut(Held(batch), each(column="to"))  # type: ignore[arg-type]
    found = [row for portion in out.read(None) for row in portion.batch.to_pylist()]
    expected = [
        (f"r{n}:{value}", value)
        for n, values in enumerate(lists, offset)
        for value in values or ()
        if value is not None
    ]
    assert [(row["id_language"], row["language"]) for row in found] == expected


def test_long_texts_are_multiplied_a_few_at_a_time() -> None:
    """A hundred texts of 1 MB for twenty values are 2 GB; no portion has more than 16 MB or one
    text's."""
    batch = pa.RecordBatch.from_pydict(
        {"id": [str(n) for n in range(100)], "text": ["x" * 1_000_000] * 100}
    )
    out = FanOut(Held(batch), each(values=[f"l{n}" for n in range(20)]))  # type: ignore[arg-type]
    sizes = [(portion.batch.num_rows, portion.batch.nbytes) for portion in out.read(None)]
    assert sum(count for count, _ in sizes) == 2_000
    assert max(size for _, size in sizes) < module._SLICE_BYTES + 21_000_000
