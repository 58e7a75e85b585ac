"""Loads on real DuckDB files: what is in the table afterwards, and what never is."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from upath import UPath

from batch_etl.errors import WarehouseError
from batch_etl.warehouse import LoadReport, TableSpec, Warehouse, schema_of
from batch_etl.warehouse import rows as rows_module
from batch_etl_tests.warehouse.make import ANSWERED_AT, partition, result, write

STRING = {"type": "string"}


def schema(required: Any = False, /, **properties: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "object", "properties": properties}
    return made | ({"required": list(properties)} if required else {})


def spec(output_schema: Any = None, **changes: Any) -> TableSpec:
    return TableSpec("t", "id", output_schema=output_schema, **changes)


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(UPath(tmp_path / "warehouse/working.duckdb"), UPath(tmp_path / "w.duckdb"))


def rows(warehouse: Warehouse, query: str) -> list[tuple[Any, ...]]:
    warehouse.publish()
    with warehouse.read_only() as connection:
        return connection.execute(query).fetchall()


def names(report: LoadReport) -> list[str]:
    return [column.name for column in report.table.columns if not column.name.startswith("_")]


def kinds(report: LoadReport) -> list[tuple[str, str]]:
    return [(change.kind, change.column) for change in report.changes]


def test_columns_come_in_order_id_record_answer_lineage(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    records = {"a": [1], "id": ["x"], "b": [2.5]}
    load = partition(tmp_path, "d1", [{"label": "ok"}], records=pa.table({"id": ["x"], **records}))
    report = warehouse.load(spec(schema(label=STRING), columns=("b", "a")), "anthropic", [load])
    assert [column.name for column in report.table.columns] == [
        "id",
        "b",
        "a",
        "label",
        "_partition",
        "_state",
        "_outcome",
        "_reason",
        "_text",
        "_misfits",
        "_stop_reason",
        "_model",
        "_request_key",
        "_batch_id",
        "_attempt",
        "_task_version",
        "_endpoint",
        "_input_tokens",
        "_output_tokens",
        "_cache_read_tokens",
        "_cache_write_tokens",
        "_cost_usd",
        "_answered_at",
        "_decided_by",
        "_decided_at",
        "_loaded_at",
    ]
    assert report.table.rows == report.rows == 1
    assert kinds(report) == [("created", "t")]


VALUES: list[tuple[dict[str, Any], str, Any]] = [
    ({"type": "integer"}, "3.0", 3),
    ({"type": "integer"}, "9007199254740993", 9007199254740993),
    ({"type": "integer"}, "-9223372036854775808", -(2**63)),
    ({"type": "integer", "maximum": 10**30}, "99999999999999999999", 99999999999999999999),
    ({"type": "number"}, "3", 3.0),
    ({"type": "number"}, "1e-7", 1e-7),
    ({"type": ["boolean", "null"]}, "null", None),
    ({"type": "boolean"}, "false", False),
    (STRING, '""', ""),
    (STRING, '"\\u00e9\\n\\"\\ud83d\\ude00\\u0000x"', 'é\n"😀\0x'),
    ({"type": "string", "format": "date"}, '"2026-02-28"', date(2026, 2, 28)),
    (
        {"type": "string", "format": "date-time"},
        '"2026-01-02T03:04:05.5+02:00"',
        datetime(2026, 1, 2, 1, 4, 5, 500000, UTC),
    ),
    ({"type": "array", "items": {"type": "integer"}}, "[1, 2.0, null]", [1, 2, None]),
    ({"type": "array", "items": STRING}, "[]", []),
    ({"type": "object"}, '{"x": [1, "a"]}', '{"x":[1,"a"]}'),
    ({}, '"text"', '"text"'),
    (
        schema(a=STRING, b=schema(c={"type": "array", "items": schema(d=STRING, e=STRING)})),
        '{"b": {"c": [{"d": "1"}, {"e": "2"}]}}',
        {"a": None, "b": {"c": [{"d": "1", "e": None}, {"d": None, "e": "2"}]}},
    ),
]


@pytest.mark.parametrize("required", [True, False])
def test_a_json_value_arrives_typed(warehouse: Warehouse, tmp_path: Path, required: bool) -> None:
    """All kinds are the properties v0, v1... of one answer; the second record has none of them."""
    parts = {f"v{number}": kind for number, (kind, _, _) in enumerate(VALUES)}
    texts = [f'"v{number}": {text}' for number, (_, text, _) in enumerate(VALUES)]
    load = partition(tmp_path, None, ["{" + ", ".join(texts) + "}", "{}", None])
    report = warehouse.load(spec(schema(required, **parts)), "anthropic", [load])
    found = rows(warehouse, f"SELECT {', '.join(parts)} FROM t ORDER BY id")
    assert list(found[0]) == [expected for _, _, expected in VALUES]
    assert set(found[1]) == set(found[2]) == {None}
    assert report.partitions[0].misfits == 0


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize(
    ("kind", "text", "path"),
    [
        ({"type": "integer"}, "99999999999999999999", "v"),
        ({"type": "string", "format": "date"}, '"next week"', "v"),
        ({"type": "string", "format": "date-time"}, '"2016-12-31T23:59:60Z"', "v"),
        ({"type": "array", "items": {"type": "integer"}}, '[1, "x"]', "v[1]"),
        (schema(a={"type": "integer"}), '{"a": 1, "b": 2}', "v.b"),
        (schema(a=STRING), '"flat"', "v"),
        (STRING, '"ok", "unknown": 1', "unknown"),
    ],
)
def test_what_a_type_cannot_hold_is_kept_as_text_and_reported(
    warehouse: Warehouse, tmp_path: Path, kind: Any, text: str, path: str, required: bool
) -> None:
    output = f'{{"v": {text}}}'
    load = partition(tmp_path, "d", ['{"v": null}', output])
    (report,) = warehouse.load(spec(schema(required, v=kind)), "anthropic", [load]).partitions
    assert report.misfits == 1
    assert (report.examples[0].record_id, report.examples[0].path) == ("r1", path)
    found = rows(warehouse, "SELECT _misfits, _text FROM t ORDER BY id")
    assert found == [(None, None), ([path], output)]


def test_an_output_that_is_not_json_is_kept_as_text(warehouse: Warehouse, tmp_path: Path) -> None:
    load = partition(tmp_path, "d", ["{broken"])
    warehouse.load(spec(schema(v=STRING)), "anthropic", [load])
    assert rows(warehouse, "SELECT v, _misfits, _text FROM t") == [(None, ["$"], "{broken")]


def test_without_a_schema_the_answer_is_text(warehouse: Warehouse, tmp_path: Path) -> None:
    load = partition(tmp_path, "d", [json.dumps('He said "no"\n😀'), None])
    warehouse.load(spec(None), "anthropic", [load])
    assert rows(warehouse, "SELECT answer FROM t ORDER BY id") == [('He said "no"\n😀',), (None,)]


def test_a_schema_that_is_no_object_is_one_column(warehouse: Warehouse, tmp_path: Path) -> None:
    load = partition(tmp_path, "d", ['["a","b"]', "[]"])
    warehouse.load(spec({"type": "array", "items": STRING}), "anthropic", [load])
    assert rows(warehouse, "SELECT answer FROM t ORDER BY id") == [(["a", "b"],), ([],)]


def test_lineage_says_where_each_row_comes_from(warehouse: Warehouse, tmp_path: Path) -> None:
    load = partition(tmp_path, "it's; --", [{"v": "x"}, None])
    warehouse.load(spec(schema(v=STRING)), "anthropic", [load])
    found = rows(
        warehouse,
        "SELECT _partition, _state, _outcome, _reason, _text, _model, _attempt, _cost_usd, "
        "_answered_at, _endpoint, _loaded_at IS NOT NULL FROM t ORDER BY id",
    )
    cost = Decimal("0.000012500000")
    assert found == [
        (
            "it's; --",
            "answered",
            "Succeeded",
            None,
            None,
            "claude-x",
            1,
            cost,
            ANSWERED_AT,
            "anthropic",
            True,
        ),
        (
            "it's; --",
            "review",
            "Refused",
            "the model refused",
            "I can't",
            "claude-x",
            1,
            cost,
            None,
            "anthropic",
            True,
        ),
    ]


def test_results_in_any_order_meet_their_own_record(warehouse: Warehouse, tmp_path: Path) -> None:
    records = {"id": [10, 20, 30], "body": ["a", "b", "c"]}
    answers = [{"v": "A"}, {"v": "B"}, {"v": "C"}]
    load = partition(tmp_path, "d", answers, records=records, order=[2, 0, 1])
    warehouse.load(spec(schema(v=STRING)), "anthropic", [load])
    found = rows(warehouse, "SELECT id, body, v FROM t ORDER BY id")
    assert found == [(10, "a", "A"), (20, "b", "B"), (30, "c", "C")]


@pytest.mark.parametrize("count", [4, 5, 10])
def test_a_large_partition_is_joined_in_parts(
    warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(rows_module, "ROWS_PER_JOIN", 4)
    answers = [{"v": f"v{n}"} for n in range(count)]
    load = partition(tmp_path, "d", answers, order=range(count)[::-1])
    assert warehouse.load(spec(schema(v=STRING)), "anthropic", [load]).rows == count
    expected = sorted((f"r{n}", f"v{n}") for n in range(count))
    assert rows(warehouse, "SELECT id, v FROM t ORDER BY id") == expected


def test_a_large_partition_whose_ids_moved_is_refused(
    warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "ROWS_PER_JOIN", 4)
    load = partition(tmp_path, "d", [{"v": "x"}] * 10, change={9: {"record_id": "zz"}})
    with pytest.raises(WarehouseError, match="'zz'"):
        warehouse.load(spec(schema(v=STRING)), "anthropic", [load])


def test_a_second_load_changes_nothing(warehouse: Warehouse, tmp_path: Path) -> None:
    loads = [partition(tmp_path, key, [{"v": "x"}]) for key in ("d1", "d2")]
    table = spec(schema(v=STRING), description="T")
    assert not warehouse.load(table, "anthropic", loads).unchanged
    before = warehouse.working.read_bytes()
    again = warehouse.load(table, "anthropic", loads)
    assert again.unchanged
    assert [part.rows for part in again.partitions] == [1, 1]
    assert warehouse.working.read_bytes() == before


def test_only_the_partition_whose_files_changed_is_replaced(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    table = spec(schema(v=STRING))
    first = partition(tmp_path, "d1", [{"v": "old"}])
    kept = partition(tmp_path, "d2", [{"v": "kept"}])
    warehouse.load(table, "anthropic", [first, kept])
    changed = partition(tmp_path, "d1", [{"v": "new"}, {"v": "more"}])
    report = warehouse.load(table, "anthropic", [changed, kept])
    assert [part.unchanged for part in report.partitions] == [False, True]
    found = rows(warehouse, "SELECT _partition, v FROM t ORDER BY ALL")
    assert found == [("d1", "more"), ("d1", "new"), ("d2", "kept")]


def test_the_only_partition_is_replaced_like_any_other(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    table = spec(schema(v=STRING))
    for text in ("a", "b"):
        warehouse.load(table, "anthropic", [partition(tmp_path, None, [{"v": text}])])
    assert rows(warehouse, "SELECT _partition, v FROM t") == [(None, "b")]


def test_an_empty_partition_is_loaded_and_remembered(warehouse: Warehouse, tmp_path: Path) -> None:
    empty = pa.table({"id": pa.array([], pa.string()), "n": pa.array([], pa.int32())})
    table = spec(schema(v=STRING))
    full = partition(
        tmp_path, "d", [{"v": "x"}], records={"id": ["1"], "n": pa.array([1], pa.int32())}
    )
    warehouse.load(table, "anthropic", [full])
    load = partition(tmp_path, "d", [], records=empty)
    report = warehouse.load(table, "anthropic", [load])
    assert (report.rows, report.table.rows, report.unchanged) == (0, 0, False)
    assert warehouse.load(table, "anthropic", [load]).unchanged


def test_endpoints_have_their_own_tables(warehouse: Warehouse, tmp_path: Path) -> None:
    endpoints = ["anthropic", "emulator", "custom:127.0.0.1:8080"]
    for endpoint in endpoints:
        load = partition(tmp_path, "d", [{"v": endpoint}], endpoint=endpoint)
        warehouse.load(spec(schema(v=STRING)), endpoint, [load])
    for endpoint in endpoints:
        found = rows(warehouse, f"SELECT v, _endpoint FROM {schema_of(endpoint)}.t")
        assert found == [(endpoint, endpoint)]
    load = partition(tmp_path, "d", [{"v": "x"}], endpoint="custom:127.0.0.1/8080")
    with pytest.raises(WarehouseError, match="never mixes"):
        warehouse.load(spec(schema(v=STRING)), "custom:127.0.0.1/8080", [load])


BAD: list[tuple[str, Callable[[Path], Any], str]] = [
    (
        "another endpoint",
        lambda d: partition(d, "d1", [{"v": "n"}], endpoint="emulator"),
        "emulator",
    ),
    ("fewer results", lambda d: _results_of(d, [0]), "2 records .* 1 results"),
    ("twice the same record", lambda d: _results_of(d, [0, 0]), "each record needs exactly one"),
    ("a row out of range", lambda d: _results_of(d, [0, 7]), "each record needs exactly one"),
    (
        "ids that moved",
        lambda d: partition(d, "d1", [{"v": "n"}], change={0: {"record_id": "zz"}}),
        "'zz'",
    ),
    (
        "an unknown state",
        lambda d: partition(d, "d1", [{"v": "n"}], change={0: {"state": "odd"}}),
        "state",
    ),
    ("no such column", lambda d: partition(d, "d1", [{"v": "n"}], records={"id": ["1"]}), "'body'"),
    (
        "a reserved name",
        lambda d: partition(d, "d1", [{"v": "n"}], records={"id": ["r0"], "file_row_number": [1]}),
        "rename",
    ),
    ("no results column", lambda d: _broken(d, pa.table({"record_id": ["r0"]})), "no column"),
    ("no Parquet at all", lambda d: _broken(d, None), "not a readable Parquet"),
]


def _results_of(folder: Path, of_rows: list[int]) -> Any:
    load = partition(folder, "d1", [{"v": "n"}, {"v": "m"}])
    made = [result(number, f"r{number}", {"v": "n"}) for number in of_rows]
    from batch_etl_tests.warehouse.make import RESULTS

    write(Path(load.results.path), pa.Table.from_pylist(made, RESULTS))
    return load


def _broken(folder: Path, table: pa.Table | None) -> Any:
    load = partition(folder, "d1", [{"v": "n"}])
    if table is None:
        Path(load.results.path).write_text("<html>")
    else:
        write(Path(load.results.path), table)
    return load


@pytest.mark.parametrize(("bad", "says"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_files_are_refused_and_nothing_is_written(
    warehouse: Warehouse, tmp_path: Path, bad: Callable[[Path], Any], says: str
) -> None:
    table = spec(schema(v=STRING), columns=("body",))
    warehouse.load(table, "anthropic", [partition(tmp_path, "d1", [{"v": "old"}])])
    good = partition(tmp_path, "d0", [{"v": "x"}])
    wider = spec(schema(v=STRING, w=STRING), columns=("body",))
    with pytest.raises(WarehouseError, match=says):
        warehouse.load(wider, "anthropic", [good, bad(tmp_path)])
    assert rows(warehouse, "SELECT _partition, v FROM t") == [("d1", "old")]
    assert "w" not in [column.name for column in warehouse.table("t", "anthropic").columns]


def test_a_missing_file_and_a_partition_given_twice_are_refused(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    load = partition(tmp_path, "d", [{"v": "x"}])
    with pytest.raises(WarehouseError, match="given twice"):
        warehouse.load(spec(schema(v=STRING)), "anthropic", [load, load])
    Path(load.results.path).unlink()
    with pytest.raises(WarehouseError, match="does not exist"):
        warehouse.load(spec(schema(v=STRING)), "anthropic", [load])


def test_an_answer_keeps_its_name_and_the_records_column_gives_way(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    records = {"id": ["1"], "Summary": ["mine"], "_state": ["TX"]}
    answer = {"summary": "theirs", "SUMMARY": "louder", "id": "a7"}
    load = partition(tmp_path, "d", [answer], records=records)
    report = warehouse.load(
        spec(schema(summary=STRING, SUMMARY=STRING, id=STRING)), "anthropic", [load]
    )
    assert names(report) == [
        "record_id",
        "record_Summary",
        "record__state",
        "summary",
        "SUMMARY_2",
        "id",
    ]
    assert report.partitions[0].misfits == 0
    found = rows(
        warehouse, "SELECT * FROM (SELECT COLUMNS('^(record_.*|summary|SUMMARY_2|id)$') FROM t)"
    )
    assert found == [("1", "mine", "TX", "theirs", "louder", "a7")]


@pytest.mark.parametrize("name", ["_partition", "_Loaded_At"])
def test_an_answer_cannot_take_a_lineage_columns_name(
    warehouse: Warehouse, tmp_path: Path, name: str
) -> None:
    load = partition(tmp_path, "d", [{}])
    with pytest.raises(WarehouseError, match="lineage"):
        warehouse.load(spec(schema(**{name: STRING})), "anthropic", [load])


HOSTILE = [
    '"; DROP TABLE t; --',
    "it's",
    "select",
    "naïve 😀",
    "a.b[0]",
    "~/x~1",
    "$",
    "file_row_number",
    "c0",
    "k",
]


def test_hostile_names_and_texts_are_only_names_and_texts(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    records = {"id": ["1"], **{f"{name} r": ["in"] for name in HOSTILE}, "c1": ["x"], "k": ["y"]}
    load = partition(
        tmp_path, "'; DROP TABLE t; --", [dict.fromkeys(HOSTILE, "out")], records=records
    )
    parts = {name: {"type": "string", "description": f"'{name}"} for name in HOSTILE}
    table = spec(schema(**parts), description="'; DROP SCHEMA main; --")
    report = warehouse.load(table, "anthropic", [load])
    assert report.partitions[0].misfits == 0
    (row,) = rows(warehouse, "SELECT * FROM t")
    found = dict(zip((column.name for column in report.table.columns), row, strict=True))
    assert [found[name] for name in HOSTILE] == ["out"] * len(HOSTILE)
    assert [found[f"{name} r"] for name in HOSTILE] == ["in"] * len(HOSTILE)
    assert (found["c1"], found["record_k"]) == ("x", "y")
    assert report.table.columns[len(records)].description is not None


@pytest.mark.parametrize("name", ["", "1t", "a b", "t; drop", "_x", 'a"b', "x" * 101])
def test_a_tables_name_is_a_plain_identifier(name: str) -> None:
    with pytest.raises(WarehouseError, match="table's name"):
        TableSpec(name, "id")


def test_descriptions_become_comments_and_follow_their_changes(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    load = partition(tmp_path, "d", [{"v": "x"}])
    for says in ("first", "second's"):
        part = {"type": "string", "description": says}
        table = spec(schema(v=part), description=f"T {says}", column_descriptions={"body": says})
        report = warehouse.load(table, "anthropic", [load])
        described = {column.name: column.description for column in report.table.columns}
        assert (described["v"], described["body"]) == (says, says)
        assert all(described.values())
    assert report.unchanged
    assert rows(warehouse, "SELECT comment FROM duckdb_tables() WHERE table_name = 't'") == [
        ("T second's",)
    ]


def test_two_hundred_thousand_rows_are_loaded_in_small_memory(tmp_path: Path) -> None:
    count = 200_000
    numbers = pa.array(range(count), pa.int64())
    records = pa.table({"id": numbers, "body": [f"text {n}" for n in range(count)]})
    one = result(0, "0", {"v": 1})
    columns = {
        name: pa.array([value] * count)
        for name, value in one.items()
        if name not in ("reason", "text")
    }
    columns |= {"record_id": numbers.cast(pa.string()), "record_row": numbers}
    columns |= {"output": pa.array([f'{{"v": {n}}}' for n in range(count)])}
    columns |= {name: pa.nulls(count, pa.string()) for name in ("reason", "text")}
    load = partition(tmp_path, "d", [])
    write(Path(load.records.path), records)
    write(Path(load.results.path), pa.table(columns))
    warehouse = Warehouse(UPath(tmp_path / "w"), UPath(tmp_path / "p"))
    report = warehouse.load(spec(schema(v={"type": "integer"})), "anthropic", [load])
    assert (report.rows, report.partitions[0].misfits) == (count, 0)
    assert rows(warehouse, "SELECT count(*) FROM t WHERE v = id AND body = 'text ' || id") == [
        (count,)
    ]


def test_a_pipeline_that_gets_partitions_later_keeps_one_row_a_record(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    whole = partition(tmp_path, None, ["1", "2", "3"])
    warehouse.load(spec(), "anthropic", [whole])
    part = partition(tmp_path, "d1", ["1", "2"])
    report = warehouse.load(spec(), "anthropic", [part])
    assert kinds(report) == [("replaced", "_partition")]
    assert rows(warehouse, "SELECT id, _partition FROM t ORDER BY id") == [
        ("r0", "d1"),
        ("r1", "d1"),
        ("r2", None),
    ]
    assert warehouse.load(spec(), "anthropic", [part]).unchanged


def test_a_pipeline_that_loses_its_partitions_keeps_one_row_a_record(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    days = [partition(tmp_path, day, ["1", "2"]) for day in ("d1", "d2")]
    warehouse.load(spec(), "anthropic", days)
    whole = partition(tmp_path, None, ["1", "2", "3"])
    report = warehouse.load(spec(), "anthropic", [whole])
    assert [str(change) for change in report.changes] == [
        "replaced _partition: 4 rows, the pipeline has no partitions any more"
    ]
    assert rows(warehouse, "SELECT id, _partition FROM t ORDER BY id") == [
        ("r0", None),
        ("r1", None),
        ("r2", None),
    ]
    assert warehouse.load(spec(), "anthropic", [whole]).unchanged
    assert not warehouse.load(spec(), "anthropic", days).unchanged
