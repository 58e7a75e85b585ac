"""A table whose task changes keeps every value in it, and the report says what was done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from upath import UPath

from batch_etl.warehouse import LoadReport, TableSpec, Warehouse, bookkeeping
from batch_etl.warehouse.columns import layout
from batch_etl.warehouse.evolution import Table
from batch_etl.warehouse.types import VARCHAR, DuckType, parse
from batch_etl_tests.warehouse.make import partition

STRING = {"type": "string"}
INTEGER = {"type": "integer"}
NUMBER = {"type": "number"}


def obj(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


class Story:
    """Loads d1, d2, ... of one table, each with its own schema or records."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.warehouse = Warehouse(UPath(folder / "working.duckdb"), UPath(folder / "w.duckdb"))
        self.count = 0

    def load(
        self, schema: dict[str, Any], answer: Any, records: Any = None, columns: Any = ()
    ) -> LoadReport:
        self.count += 1
        load = partition(self.folder, f"d{self.count}", [answer], records=records)
        spec = TableSpec("t", "id", output_schema=schema, columns=columns)
        return self.warehouse.load(spec, "anthropic", [load])

    def rows(self, columns: str) -> list[tuple[Any, ...]]:
        self.warehouse.publish()
        with self.warehouse.read_only() as connection:
            return connection.execute(f"SELECT {columns} FROM t ORDER BY _partition").fetchall()


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(tmp_path)


def kinds(report: LoadReport) -> list[tuple[str, str]]:
    return [(change.kind, change.column) for change in report.changes]


def test_a_new_property_is_a_new_column_null_in_old_rows(story: Story) -> None:
    story.load(obj(v=STRING), {"v": "a"})
    report = story.load(obj(v=STRING, w=INTEGER), {"v": "b", "w": 2})
    assert kinds(report) == [("added", "w")]
    assert story.rows("v, w") == [("a", None), ("b", 2)]


def test_a_property_that_is_gone_keeps_its_column_and_is_reported(story: Story) -> None:
    story.load(obj(v=STRING, w=INTEGER), {"v": "a", "w": 1})
    report = story.load(obj(v=STRING), {"v": "b"})
    assert kinds(report) == [("retired", "w")]
    assert story.rows("v, w") == [("a", 1), ("b", None)]


WIDENING: list[tuple[Any, Any, Any, Any, list[Any]]] = [
    (INTEGER, 1, NUMBER, 2.5, [1.0, 2.5]),
    (NUMBER, 1.5, INTEGER, 2, [1.5, 2.0]),
    (INTEGER, 1, STRING, "two", ["1", "two"]),
    ({"type": "boolean"}, True, STRING, "x", ["true", "x"]),
    (
        {"type": "array", "items": INTEGER},
        [1],
        {"type": "array", "items": NUMBER},
        [0.5],
        [[1.0], [0.5]],
    ),
    (
        obj(a=INTEGER, d={"type": "string", "format": "date"}),
        {"a": 1},
        obj(a=NUMBER, b=obj(c=STRING)),
        {"a": 2.5, "b": {"c": "x"}},
        [{"a": 1.0, "d": None, "b": None}, {"a": 2.5, "d": None, "b": {"c": "x"}}],
    ),
    (obj(a=INTEGER), {"a": 1}, {"type": "object"}, {"z": 1}, ['{"a":1}', '{"z":1}']),
]


@pytest.mark.parametrize(("old", "first", "new", "second", "expected"), WIDENING)
def test_a_type_that_can_hold_both_keeps_both_in_one_column(
    story: Story, old: Any, first: Any, new: Any, second: Any, expected: list[Any]
) -> None:
    story.load(obj(v=old), {"v": first})
    report = story.load(obj(v=new), {"v": second})
    assert {kind for kind, _ in kinds(report)} <= {"widened"}
    assert report.partitions[0].misfits == 0
    assert [row[0] for row in story.rows("v")] == expected


def test_a_type_that_cannot_hold_both_sets_the_old_column_aside(story: Story) -> None:
    story.load(obj(v=STRING), {"v": "high"})
    report = story.load(obj(v=INTEGER), {"v": 3})
    assert kinds(report) == [("set_aside", "v"), ("added", "v")]
    report = story.load(obj(v=obj(a=STRING)), {"v": {"a": "x"}})
    assert kinds(report) == [("set_aside", "v"), ("added", "v")]
    assert story.rows("v__old1, v__old2, v") == [
        ("high", None, None),
        (None, 3, None),
        (None, None, {"a": "x"}),
    ]


def test_a_column_of_nulls_takes_any_type(story: Story) -> None:
    story.load(obj(v=STRING), {"v": None})
    assert kinds(story.load(obj(v=INTEGER), {"v": 3})) == [("widened", "v")]
    assert story.rows("v") == [(None,), (3,)]


def test_a_records_column_widens_to_text_at_worst(story: Story) -> None:
    values: list[Any] = [
        pa.nulls(1),
        pa.array([7], pa.int32()),
        pa.array([2**40]),
        ["0123"],
        [True],
    ]
    for value in values:
        story.load(obj(v=STRING), {"v": "x"}, {"id": ["1"], "zip": value}, columns=("zip",))
    assert story.rows("zip") == [(None,), ("7",), (str(2**40),), ("0123",), ("true",)]


def test_a_property_that_takes_a_records_name_leaves_the_records_values_to_it(story: Story) -> None:
    records = {"id": ["1"], "summary": ["mine"]}
    story.load(obj(v=STRING), {"v": "a"}, records, columns=None)
    report = story.load(
        obj(v=STRING, summary=STRING), {"v": "b", "summary": "theirs"}, records, columns=None
    )
    assert kinds(report) == [("renamed", "summary"), ("added", "summary")]
    assert story.rows("record_summary, summary") == [("mine", None), ("mine", "theirs")]


def test_the_id_may_become_text(story: Story) -> None:
    story.load(obj(v=STRING), {"v": "a"}, {"id": [1]})
    story.load(obj(v=STRING), {"v": "b"}, {"id": ["x"]})
    assert story.rows("id, v") == [("1", "a"), ("x", "b")]


def test_answers_of_an_older_schema_lose_nothing_under_a_newer_one(story: Story) -> None:
    report = story.load(obj(v=INTEGER), {"v": "high", "old": 1})
    assert report.partitions[0].misfits == 1
    assert story.rows("v, _misfits, _text") == [(None, ["v", "old"], '{"v": "high", "old": 1}')]


def test_what_a_table_knows_of_its_columns_is_what_the_file_has(tmp_path: Path) -> None:
    """It is not read again after each change."""
    record: list[tuple[str, DuckType]] = [("id", VARCHAR), ("body", parse("STRUCT(a DATE[])"))]
    first = layout(TableSpec("t", "id", output_schema=obj(v=STRING, w=NUMBER)), record)
    described = {"type": "object", "description": "x", "properties": {"v": INTEGER, "n": NUMBER}}
    second = layout(TableSpec("t", "id", output_schema=described), record[:1])
    with duckdb.connect(tmp_path / "t.duckdb") as connection:
        bookkeeping.prepare(connection)
        table = Table(connection, "main", "t")
        for columns in (first, second):
            table.comment("Words.", table.fit(columns))
            assert table.existing() == Table(connection, "main", "t").existing()
            assert list(table.existing()) == list(Table(connection, "main", "t").existing())
