"""FilesSource against real files: every value comes out as it went in, or the file is refused."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from batch_etl.errors import ConfigError, SourceError
from batch_etl.sources import FilesSource

HOSTILE = [
    "",
    "plain",
    "007",
    "1e5",
    "2026-03-01",
    "NULL",
    "nan",
    "true",
    "  padded  ",
    "two\nlines",
    "two\r\nlines",
    "lone\rreturn",
    "\n",
    'quote " and "" more',
    '"',
    '""',
    "a,b;c\td|e",
    "back\\slash \\n \\u0041",
    "line\u2028and\u2029paragraph\u0085next",
    "nul\x00inside",
    "🙂‍↔️👩🏽‍🚀🇩🇪",
    "مرحبا بالعالم",
    "\u202eright to left\u202c",
    "\ufeffmark",
    "<p class='x'>&amp;<script>alert(\"1\")</script></p>",
    "{{ record.id }} {% raw %}",
    "é e\u0301",
    "x" * 50_000,
]


def rows_of(source: FilesSource) -> list[dict[str, Any]]:
    return [row for portion in source.read() for row in portion.batch.to_pylist()]


def schema_of(source: FilesSource) -> pa.Schema:
    return next(iter(source.read())).batch.schema


def csv_text(rows: list[dict[str, str]], delimiter: str = ",", quoting: Any = csv.QUOTE_ALL) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, quoting=quoting)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write(path: Path, rows: list[dict[str, Any]], encoding: str = "utf-8") -> Path:
    """The rows in the format that the name asks for, compressed if it asks for that."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    if name.endswith(".jsonl"):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    elif name.endswith(".json"):
        text = json.dumps(rows, ensure_ascii=False, indent=1)
    else:
        text = csv_text(rows, "\t" if name.endswith(".tsv") else ",")
    data = text.encode(encoding)
    if path.suffix == ".gz":
        data = gzip.compress(data[: len(data) // 2]) + gzip.compress(data[len(data) // 2 :])
    elif path.suffix == ".zst":
        data = pa.compress(data, codec="zstd", asbytes=True)
    path.write_bytes(data)
    return path


NAMES = ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.csv.gz", "a.tsv.zst", "a.jsonl.gz", "a.json.zst"]


@pytest.mark.parametrize("name", [*NAMES, "a.parquet"])
def test_hostile_text_survives_every_format(tmp_path: Path, name: str) -> None:
    rows = [{"id": f"r{number}", "text": text} for number, text in enumerate(HOSTILE)]
    assert rows_of(FilesSource(path=str(write(tmp_path / name, rows)), id="id")) == rows


any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.parquet"])
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(texts=st.lists(st.tuples(any_text, any_text), min_size=1, max_size=8))
def test_any_unicode_text_survives(tmp_path: Path, name: str, texts: list[tuple[str, str]]) -> None:
    rows = [{"id": one, "text": other} for one, other in texts]
    assert rows_of(FilesSource(path=str(write(tmp_path / name, rows)), id="id")) == rows


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(texts=st.lists(any_text.filter(bool), min_size=1, max_size=8))
def test_any_minimally_quoted_csv_survives(tmp_path: Path, texts: list[str]) -> None:
    rows = [{"id": "x", "text": text} for text in texts]
    path = tmp_path / "a.csv"
    path.write_bytes(csv_text(rows, quoting=csv.QUOTE_MINIMAL).encode())
    assert rows_of(FilesSource(path=str(path), id="id")) == rows


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8-sig", "é🙂"),
        ("utf-16", "é🙂 مرحبا"),
        ("utf-16-le", "é🙂"),
        ("utf-32", "é🙂"),
        ("latin-1", "déjà vu ÿ"),
        ("cp1252", "“quoted” €"),
        ("shift_jis", "日本語テスト"),
        ("gb18030", "中文🙂"),
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.csv.gz"])
def test_encodings_are_decoded(tmp_path: Path, name: str, encoding: str, text: str) -> None:
    rows = [{"id": "1", "text": text}, {"id": "2", "text": f"{text}\n{text}" * 1000}]
    path = write(tmp_path / name, rows, encoding)
    assert rows_of(FilesSource(path=str(path), id="id", encoding=encoding)) == rows


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json"])
def test_a_utf8_mark_is_no_part_of_the_first_column(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, [{"id": "1"}], "utf-8-sig")
    assert rows_of(FilesSource(path=str(path), id="id")) == [{"id": "1"}]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.csv.zst"])
def test_records_larger_than_a_block_survive_between_small_ones(tmp_path: Path, name: str) -> None:
    sizes = [1, 1_000_000, 5, 3_500_000, 2, *([10] * 5000), 1_100_000]
    rows = [{"id": str(number), "text": "é" * size} for number, size in enumerate(sizes)]
    path = write(tmp_path / name, rows)
    assert rows_of(FilesSource(path=str(path), id="id")) == rows


CSV_TEXTS: list[tuple[str, dict[str, Any], list[dict[str, Any]]]] = [
    ('id,t\n1,\n2,""\n', {}, [{"id": "1", "t": None}, {"id": "2", "t": ""}]),
    (
        'id,t\n1,NA\n2,"NA"\n',
        {"null_values": ["", "NA"]},
        [{"id": "1", "t": None}, {"id": "2", "t": "NA"}],
    ),
    ("id,t\n", {}, []),
    ("id,t", {}, []),
    ("id,t\r\n1,x", {}, [{"id": "1", "t": "x"}]),
    ("\n\nid,t\n\n1,x\n\n", {}, [{"id": "1", "t": "x"}]),
    ('"id","two\nlines"\n1,x\n', {}, [{"id": "1", "two\nlines": "x"}]),
    (",id\n0,1\n", {}, [{"column_1": "0", "id": "1"}]),
    (
        "1;x\n2;y\n",
        {"header": False, "columns": ["id", "t"], "delimiter": ";"},
        [{"id": "1", "t": "x"}, {"id": "2", "t": "y"}],
    ),
    ("old,names\n1,x\n", {"columns": ["id", "t"]}, [{"id": "1", "t": "x"}]),
    ("id,t\n1,it's \"so\n", {"quote": ""}, [{"id": "1", "t": "it's \"so"}]),
    ('id,t\n1,5" screen\n', {}, [{"id": "1", "t": '5" screen'}]),
    ("id,t\n1,'a,b'\n", {"quote": "'"}, [{"id": "1", "t": "a,b"}]),
]


@pytest.mark.parametrize(("text", "options", "expected"), CSV_TEXTS)
def test_csv_dialects(tmp_path: Path, text: str, options: dict[str, Any], expected: Any) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode())
    assert rows_of(FilesSource(path=str(path), id="id", **options)) == expected


def test_csv_columns_are_text_unless_declared(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        'id,n,f,b,d,t,s,m\n1,007,1.5,true,2026-01-02,2026-01-02T03:00:00+02:00,1767225600,12.30\n2,"",,,,,,\n'
    )
    types = {"n": "int64", "f": "float64", "b": "bool", "d": "date", "t": "timestamp"}
    types |= {"s": "timestamp_s", "m": "decimal(9,2)"}
    source = FilesSource(path=str(tmp_path / "a.csv"), id="id", types=types)
    first, second = rows_of(source)
    shown = {name: str(value) for name, value in first.items()}
    assert shown == {
        "id": "1",
        "n": "7",
        "f": "1.5",
        "b": "True",
        "d": "2026-01-02",
        "t": "2026-01-02 01:00:00+00:00",
        "s": "2026-01-01 00:00:00+00:00",
        "m": "12.30",
    }
    assert set(second.values()) == {"2", None}


JSON_COLUMNS: list[tuple[str, list[Any], pa.DataType, list[Any]]] = [
    ("dates stay text", ["2026-01-01", "2026-01-01T00:00:00Z"], pa.string(), []),
    ("64-bit integers are exact", [2**53 + 1, -(2**63), 2**63 - 1], pa.int64(), []),
    ("larger integers are text", [2**63, 10**30, 1], pa.string(), [str(2**63), str(10**30), "1"]),
    ("inexact numbers are text", [2**53 + 1, 0.5], pa.string(), [str(2**53 + 1), "0.5"]),
    ("numbers widen", [1, 2.5, None], pa.float64(), [1.0, 2.5, None]),
    (
        "mixed types are text",
        [1, "1a", None, True, {"a": [1]}],
        pa.string(),
        ["1", "1a", None, "true", '{"a":[1]}'],
    ),
    (
        "objects are structs",
        [{"a": 1}, {"b": "x"}, None],
        pa.struct([("a", pa.int64()), ("b", pa.string())]),
        [{"a": 1, "b": None}, {"a": None, "b": "x"}, None],
    ),
    ("lists are lists", [[1], [], None], pa.list_(pa.int64()), []),
    ("lists of objects", [[{"a": "x"}], []], pa.list_(pa.struct([("a", pa.string())])), []),
    ("mixed lists are text", [[1, "x"], []], pa.string(), ['[1,"x"]', "[]"]),
    (
        "objects that disagree are text",
        [{"a": 1}, {"a": "x"}],
        pa.string(),
        ['{"a":1}', '{"a":"x"}'],
    ),
    ("empty objects are text", [{}, {}], pa.string(), ["{}", "{}"]),
    ("nothing but null is text", [None, None], pa.string(), []),
    (
        "maps of many keys are text",
        [{f"k{n}": n} for n in range(200)],
        pa.string(),
        [f'{{"k{n}":{n}}}' for n in range(200)],
    ),
]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [case[1:] for case in JSON_COLUMNS],
    ids=[c[0] for c in JSON_COLUMNS],
)
def test_json_types(tmp_path: Path, name: str, values: list[Any], kind: Any, expected: Any) -> None:
    rows = [{"id": str(number), "v": value} for number, value in enumerate(values)]
    source = FilesSource(path=str(write(tmp_path / name, rows)), id="id")
    assert schema_of(source).field("v").type == kind
    assert [row["v"] for row in rows_of(source)] == (expected or values)


def test_a_type_that_changes_late_in_a_file_is_seen_from_the_start(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"id": n, "v": n} for n in range(5000)] + [{"id": 5000, "v": "x"}]
    rows.append({"id": 5001, "late": 1})
    source = FilesSource(path=str(write(tmp_path / "a.jsonl", rows)), id="id")
    read = rows_of(source)
    assert (read[0], read[-2]["v"], read[-1]["late"]) == ({"id": 0, "v": "0", "late": None}, "x", 1)


def test_a_large_number_far_from_a_fraction_stays_exact(tmp_path: Path) -> None:
    rows = [{"id": n, "v": 0.5 if n else 2**53 + 1} for n in range(5000)]
    read = rows_of(FilesSource(path=str(write(tmp_path / "a.jsonl", rows)), id="id"))
    assert (read[0]["v"], read[-1]["v"]) == ("9007199254740993", "0.5")


def test_declared_text_keeps_an_object_as_its_json(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"id": 1, "meta": {"b": 1, "a": "é"}}])
    source = FilesSource(path=str(path), id="id", types={"meta": "string"})
    assert rows_of(source) == [{"id": 1, "meta": '{"b":1,"a":"é"}'}]


@pytest.mark.parametrize(
    ("text", "records_at", "ids"),
    [
        ("[]", None, []),
        (' [ {"id":1} , {"id":2} ] \n', None, [1, 2]),
        ('{"id":1}', None, [1]),
        ('{"id":1}\n{"id":2}\n', None, [1, 2]),
        ('{"n":2,"data":{"x":[[]],"items":[{"id":1},{"id":2}]},"after":{}}', "data.items", [1, 2]),
    ],
)
def test_json_documents(tmp_path: Path, text: str, records_at: str | None, ids: list[int]) -> None:
    (tmp_path / "a.json").write_text(text)
    source = FilesSource(path=str(tmp_path / "a.json"), id="id", records_at=records_at)
    assert [row["id"] for row in rows_of(source)] == ids


def test_files_of_one_glob_are_one_table(tmp_path: Path) -> None:
    """Columns are united, the paths give the order, formats may differ, hidden files are unseen."""
    write(tmp_path / "in/b.csv", [{"id": "2", "more": "x"}])
    write(tmp_path / "in/a.jsonl.gz", [{"id": "1", "text": "t"}])
    write(tmp_path / "in/deep/er/c.csv", [{"id": "3", "text": "u"}])
    write(tmp_path / "in/.d.csv", [{"id": "4", "text": "u"}])
    source = FilesSource(path=["in/*.*", "in/**/*.csv"], id="id", base_folder=tmp_path)
    assert rows_of(source) == [
        {"id": "1", "text": "t", "more": None},
        {"id": "2", "text": None, "more": "x"},
        {"id": "3", "text": "u", "more": None},
    ]


def test_a_path_with_glob_characters_is_taken_as_written(tmp_path: Path) -> None:
    path = write(tmp_path / "week [1]?*.csv", [{"id": "1"}])
    assert rows_of(FilesSource(path=str(path), id="id")) == [{"id": "1"}]


def test_json_files_that_disagree_meet_as_text(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [{"id": 1}])
    write(tmp_path / "b.jsonl", [{"id": "x"}])
    assert rows_of(FilesSource(path="*", id="id", base_folder=tmp_path)) == [
        {"id": "1"},
        {"id": "x"},
    ]


def test_parquet_brings_its_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": pa.array([1, 2], pa.int32()),
            "d": pa.array(["x", "y"]).dictionary_encode(),
            "l": pa.array(["x", "y"], pa.large_string()),
            "s": [{"a": 1}, {"a": 2}],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": pa.array([2**40])}), tmp_path / "b.parquet")
    source = FilesSource(path="*.parquet", id="id", base_folder=tmp_path)
    kinds = {field.name: field.type for field in schema_of(source)}
    assert kinds == {
        "id": pa.int64(),
        "d": pa.string(),
        "l": pa.string(),
        "s": pa.struct([("a", pa.int64())]),
    }
    assert rows_of(source)[-1] == {"id": 2**40, "d": None, "l": None, "s": None}


BROKEN: list[tuple[str, bytes, dict[str, Any], list[str]]] = [
    ("a.csv", b"", {}, ["a.csv", "empty (0 bytes)"]),
    ("a.csv", b"\n\n", {}, ["a.csv", "no header"]),
    ("a.csv", b"id,t\n1,2\n3\n4,5\n", {}, ["a.csv line 3", "1 cells", "header has 2"]),
    ("a.csv", b'id,t\n1,"2\n2"\n3,4,5\n', {}, ["a.csv line 4", "3 cells"]),
    ("a.csv", b'id,t\n1,2\n3,"open\n4,5\n', {}, ["a.csv", "line 3", "never closed"]),
    ("a.csv", b"id,t\n1,a\n2,\xff\n", {}, ["a.csv", "0xff", "offset 11", "line 3", "encoding"]),
    ("a.csv", "id\n1".encode("utf-16"), {}, ["a.csv", "offset 0", "utf-16"]),
    ("a.csv", b"id,t\n1,\x81\n", {"encoding": "shift_jis"}, ["a.csv", "shift_jis", "line 2"]),
    ("a.csv", b"id,t,t\n1,2,3\n", {}, ["a.csv", "'t' twice"]),
    ("a.csv", b"Id,t\n1,2\n", {}, ["a.csv", "no column 'id'", "did you mean 'Id'", "Id, t"]),
    (
        "a.csv",
        b"id,n\n1,2\n2,x\n",
        {"types": {"n": "int64"}},
        ["a.csv record 2", "'n'", "'x'", "int64"],
    ),
    ("a.csv", b"id\n1\n", {"types": {"n": "int64"}}, ["types", "'n'", "id"]),
    ("a.csv.gz", b"id\n1\n", {}, ["a.csv.gz", "compressed"]),
    (
        "a.csv.gz",
        gzip.compress(b"id\n" + b"1234\n" * 99, mtime=0)[:-20],
        {},
        ["a.csv.gz", "cut off"],
    ),
    ("a.csv.gz", gzip.compress(b"", mtime=0), {}, ["a.csv.gz", "no header"]),
    ("a.jsonl", b'{"id":1}\n{"id":\n', {}, ["a.jsonl line 2", "JSON"]),
    ("a.jsonl", b'{"id":1}\n\n[1]\n', {}, ["a.jsonl line 3"]),
    ("a.jsonl", b'{"id":1}\n{"id":"\xff"}\n', {}, ["a.jsonl", "offset 16", "line 2"]),
    ("a.jsonl", b'{"id":NaN}\n', {}, ["a.jsonl line 1"]),
    ("a.json", b'[{"id":1},\n{"id":}]', {}, ["a.json line 2"]),
    ("a.json", b'[{"id":1}', {}, ["a.json", "where the file ends"]),
    ("a.json", b'[{"id":1}] []', {}, ["a.json", "follows the end"]),
    ("a.json", b'[{"id":"\xff"}]', {}, ["a.json", "0xff", "offset 8"]),
    ("a.json", b'[{"id":"\\ud800"}]', {}, ["a.json record 1", "surrogate"]),
    ("a.json", b"[1]", {}, ["a.json", "must be an object"]),
    ("a.json", b'{"data":[]}', {"records_at": "items"}, ["a.json", "'items'", "data"]),
    ("a.json", b'{"data":{}}', {"records_at": "data"}, ["a.json", "no list"]),
    ("a.parquet", b"PAR1 not really", {}, ["a.parquet", "Parquet"]),
    ("a.xlsx", b"PK", {}, ["a.xlsx", "format"]),
]


@pytest.mark.parametrize(("name", "data", "options", "told"), BROKEN)
def test_a_broken_file_is_refused_with_its_place(
    tmp_path: Path, name: str, data: bytes, options: dict[str, Any], told: list[str]
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceError) as refused:
        rows_of(FilesSource(path=str(tmp_path / name), id="id", **options))
    assert [part for part in told if part not in str(refused.value)] == [], str(refused.value)


def test_the_offset_of_a_bad_byte_counts_from_the_start_of_a_large_file(tmp_path: Path) -> None:
    head = b"id,t\n" + "1,é\n".encode() * 500_000
    (tmp_path / "a.csv").write_bytes(head + b"2,\xe9\n")
    with pytest.raises(SourceError, match=rf"offset {len(head) + 2} \(line 500002\)"):
        rows_of(FilesSource(path=str(tmp_path / "a.csv"), id="id"))


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("in/post.csv", ["'in/post.csv'", "did you mean 'posts.csv'", "posts.csv"]),
        ("in/*.parquet", ["'in/*.parquet'", "it holds posts.csv"]),
        ("on/posts.csv", ["folder does not exist", "in"]),
        ("in", ["is a folder", "in/*.csv"]),
    ],
)
def test_a_missing_file_is_told_with_what_there_is(
    tmp_path: Path, path: str, told: list[str]
) -> None:
    write(tmp_path / "in/posts.csv", [{"id": "1"}])
    with pytest.raises(SourceError) as refused:
        rows_of(FilesSource(path=path, id="id", base_folder=tmp_path))
    assert [part for part in told if part not in str(refused.value)] == [], str(refused.value)


def test_types_that_no_column_can_serve_name_both_files(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["1"], "n": [1]}), tmp_path / "a.parquet")
    write(tmp_path / "b.csv", [{"id": "2", "n": "x"}])
    source = FilesSource(path="*", id="id", base_folder=tmp_path)
    with pytest.raises(SourceError, match=r"'n' is int64 in .*a\.parquet but string in .*b\.csv"):
        rows_of(source)
    declared = FilesSource(path="*", id="id", base_folder=tmp_path, types={"n": "string"})
    assert [row["n"] for row in rows_of(declared)] == ["1", "x"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"pth": "a.csv"}, "did you mean 'path'"),
        ({"path": []}, "at least one"),
        ({"encoding": "utf-99"}, "unknown encoding 'utf-99'"),
        ({"delimiter": ",,"}, "one ASCII character"),
        ({"types": {"n": "integer"}}, "unknown type 'integer'"),
        ({"path": "{partition}.csv", "partition_column": "day"}, "one of the two"),
        ({"on_duplicate": "drop"}, "on_duplicate"),
    ],
)
def test_unusable_settings_are_refused_at_load(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        FilesSource.load({"path": "a.csv", "id": "id"} | settings, "source")
    assert told in str(refused.value)


def test_settings_are_strict() -> None:
    with pytest.raises(ValidationError):
        FilesSource(path="a.csv", id="id", unknown=1)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json"])
def test_declared_types_convert_text_in_every_format(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, [{"id": "1", "n": "12"}, {"id": "2", "n": ""}])
    source = FilesSource(path=str(path), id="id", types={"n": "int64"})
    assert rows_of(source) == [{"id": "1", "n": 12}, {"id": "2", "n": None}]


def test_declared_times_are_of_the_unit_that_was_said(tmp_path: Path) -> None:
    rows = [{"id": 1, "s": 1767225600, "ms": 1767225600001, "t": "2026-01-01T02:00:00+02:00"}]
    types = {"s": "timestamp_s", "ms": "timestamp_ms", "t": "timestamp"}
    (row,) = rows_of(FilesSource(path=str(write(tmp_path / "a.jsonl", rows)), id="id", types=types))
    assert [str(row[name]) for name in types] == [
        "2026-01-01 00:00:00+00:00",
        "2026-01-01 00:00:00.001000+00:00",
        "2026-01-01 00:00:00+00:00",
    ]
