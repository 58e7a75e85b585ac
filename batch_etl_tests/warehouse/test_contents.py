"""The data dictionary, and files made of tables and views."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from upath import UPath

from batch_etl.errors import WarehouseError
from batch_etl.warehouse import (
    Relation,
    TableSpec,
    Warehouse,
    dictionary,
    export,
    format_of,
    relations,
)
from batch_etl_tests.warehouse.make import partition

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "tags": {"type": "array", "items": {"type": "string"}, "description": "a | b\n<script>"},
        "note": {"type": "string"},
    },
}
ANSWERS = [{"tags": ["x,y", 'z"'], "note": ""}, None]


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    made = Warehouse(UPath(tmp_path / "warehouse/working.duckdb"), UPath(tmp_path / "w.duckdb"))
    for endpoint in ("emulator", "anthropic"):
        spec = TableSpec("posts", "id", description="Posts.", output_schema=SCHEMA)
        made.load(spec, endpoint, [partition(tmp_path, "d", ANSWERS, endpoint=endpoint)])
    made.publish()
    return made


def found(connection: duckdb.DuckDBPyConnection, name: str) -> Relation:
    return next(one for one in relations(connection) if one.qualified_name == name)


def test_relations_are_real_answers_first_tables_before_views(warehouse: Warehouse) -> None:
    with warehouse.read_only() as connection:
        listed = [(one.qualified_name, one.kind) for one in relations(connection)]
    assert listed[:2] == [("main.posts", "table"), ("main.batches", "view")]
    assert listed[8:9] == [("emulator.posts", "table")]
    assert len(listed) == 16


def test_the_dictionary_describes_every_column_in_a_table_of_its_own_line(
    warehouse: Warehouse,
) -> None:
    with warehouse.read_only() as connection:
        listed = relations(connection)
    lines = dictionary(listed).splitlines()
    assert lines.count("### Table `posts`") == 2
    assert "| `tags` | `VARCHAR[]` | a \\| b &lt;script> |" in lines
    rows = [line for line in lines if line.startswith("| `")]
    assert len(rows) == sum(len(one.columns) for one in listed)
    assert not [line for line in rows if line.endswith("|  |")]


def test_parquet_keeps_types_and_all_rows(warehouse: Warehouse, tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "posts's.parquet"
    with warehouse.read_only() as connection:
        assert export(connection, found(connection, "main.posts"), path) == 2
    table = pq.read_table(path).sort_by("id")
    assert table.column("tags").to_pylist() == [["x,y", 'z"'], None]
    assert str(table.schema.field("_cost_usd").type) == "decimal128(18, 12)"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_csv_has_nested_values_as_json_and_tells_null_from_empty(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    path = tmp_path / "posts.csv"
    with warehouse.read_only() as connection:
        export(connection, found(connection, "main.posts"), path)
    text = path.read_text(encoding="utf-8")
    rows = sorted(csv.DictReader(text.splitlines()), key=lambda row: row["id"])
    assert rows[0]["tags"] == '["x,y","z\\""]'
    assert (rows[1]["tags"], rows[1]["_text"]) == ("", "I can't")
    query = f"SELECT id, note FROM read_csv('{path}', allow_quoted_nulls = false)"
    assert sorted(duckdb.execute(query).fetchall()) == [("r0", ""), ("r1", None)]


def test_every_view_can_be_written_in_both_formats(warehouse: Warehouse, tmp_path: Path) -> None:
    with warehouse.read_only() as connection:
        for relation in relations(connection):
            for kind in ("csv", "parquet"):
                path = tmp_path / f"{relation.qualified_name}.{kind}"
                export(connection, relation, path)
                assert path.stat().st_size > 0


@pytest.mark.parametrize(
    ("name", "words"),
    [("x.xlsx", "must end in .parquet or .csv"), ("x", "must end"), ("x.parkuet", "'parquet'")],
)
def test_another_ending_is_refused(name: str, words: str) -> None:
    with pytest.raises(WarehouseError, match=words):
        format_of(Path(name))


def test_what_cannot_be_written_leaves_the_old_file(warehouse: Warehouse, tmp_path: Path) -> None:
    folder = tmp_path / "folder.csv"
    folder.mkdir()
    old = tmp_path / "old.csv"
    old.write_text("old")
    with warehouse.read_only() as connection:
        with pytest.raises(WarehouseError, match="is a folder"):
            export(connection, found(connection, "main.posts"), folder)
        with pytest.raises(WarehouseError, match="cannot be written"):
            export(connection, found(connection, "main.posts"), old / "x.csv")
        broken = Relation("main", "gone", "table", None, found(connection, "main.posts").columns)
        with pytest.raises(WarehouseError, match="gone"):
            export(connection, broken, old)
    assert old.read_text() == "old"
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.is_file()) == [
        ".csv",
        ".duckdb",
    ]
