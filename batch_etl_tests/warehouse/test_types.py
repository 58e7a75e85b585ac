"""JSON Schema becomes the narrowest DuckDB type that holds every value the schema allows."""

from __future__ import annotations

from typing import Any

import duckdb
import pytest

from batch_etl.warehouse.types import (
    ListOf,
    Scalar,
    Struct,
    description_of,
    merged_answer,
    merged_record,
    parse,
    properties,
    type_of,
)

STRING: dict[str, Any] = {"type": "string"}
DEFS = {
    "Money": {
        "type": "object",
        "description": "An amount.",
        "properties": {"amount": {"type": "number"}, "currency": {"enum": ["EUR", "USD"]}},
    },
    "Node": {
        "type": "object",
        "properties": {
            "name": STRING,
            "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
        },
    },
}
MONEY = 'STRUCT("amount" DOUBLE, "currency" VARCHAR)'

CASES: list[tuple[Any, str]] = [
    (STRING, "VARCHAR"),
    ({"type": "string", "format": "date"}, "DATE"),
    ({"type": "string", "format": "date-time"}, "TIMESTAMP WITH TIME ZONE"),
    ({"type": "string", "format": "email"}, "VARCHAR"),
    ({"type": "integer"}, "BIGINT"),
    ({"type": "integer", "maximum": 2**64}, "HUGEINT"),
    ({"type": "integer", "minimum": 0, "maximum": 5}, "BIGINT"),
    ({"type": "number"}, "DOUBLE"),
    ({"type": "boolean"}, "BOOLEAN"),
    ({"type": ["string", "null"]}, "VARCHAR"),
    ({"type": ["integer", "number"]}, "DOUBLE"),
    ({"type": ["integer", "string"]}, "JSON"),
    ({"type": "null"}, "JSON"),
    ({"enum": ["a", "b", None]}, "VARCHAR"),
    ({"enum": [1, 2]}, "BIGINT"),
    ({"enum": [1, 2.5]}, "DOUBLE"),
    ({"enum": [1, "a"]}, "JSON"),
    ({"enum": [True, 1]}, "JSON"),
    ({"const": "yes"}, "VARCHAR"),
    ({"anyOf": [{"type": "number"}, {"type": "null"}]}, "DOUBLE"),
    ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "DOUBLE"),
    ({"anyOf": [STRING, {"type": "integer"}]}, "JSON"),
    ({"anyOf": [{"$ref": "#/$defs/Money"}, {"type": "null"}]}, MONEY),
    ({"allOf": [{"$ref": "#/$defs/Money"}], "description": "x"}, MONEY),
    ({"allOf": [STRING, {"minLength": 3}]}, "JSON"),
    ({"$ref": "#/$defs/Missing"}, "JSON"),
    ({"$ref": "https://elsewhere/x"}, "JSON"),
    ({"$ref": "#/$defs/Node"}, 'STRUCT("name" VARCHAR, "children" JSON[])'),
    ({"type": "array", "items": STRING}, "VARCHAR[]"),
    ({"type": "array", "items": {"$ref": "#/$defs/Money"}}, f"{MONEY}[]"),
    ({"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}, "BIGINT[][]"),
    ({"type": "array"}, "JSON"),
    ({"type": "array", "prefixItems": [STRING], "items": STRING}, "JSON"),
    ({"type": "object"}, "JSON"),
    ({"type": "object", "properties": {"a": STRING}, "additionalProperties": True}, "JSON"),
    ({"type": "object", "properties": {"a": STRING, "A": STRING}}, "JSON"),
    ({"type": "object", "properties": {"": STRING}}, "JSON"),
    ({"properties": {'o"o': STRING}}, 'STRUCT("o""o" VARCHAR)'),
    (True, "JSON"),
    ({}, "JSON"),
]


@pytest.mark.parametrize(("schema", "expected"), CASES)
def test_a_schema_maps_to_this_type(schema: Any, expected: str) -> None:
    assert type_of(schema, {"$defs": DEFS}).sql == expected


@pytest.mark.parametrize("schema", [schema for schema, _ in CASES])
def test_every_type_is_one_that_duckdb_reads_back_as_the_same(schema: Any) -> None:
    kind = type_of(schema, {"$defs": DEFS})
    assert parse(str(duckdb.sqltype(kind.sql))) == kind


@pytest.mark.parametrize(
    "name",
    [
        *("VARCHAR", "JSON", "BOOLEAN", "TINYINT", "UBIGINT", "HUGEINT", "INTEGER", "UINTEGER"),
        *("FLOAT", "DOUBLE", "DECIMAL(18,12)", "DATE", "TIME", "TIMESTAMP", "UUID", "BLOB"),
        *(
            "TIMESTAMP WITH TIME ZONE",
            "TIMESTAMP_S",
            "TIMESTAMP_MS",
            "TIMESTAMP_NS",
            "INTEGER[3]",
            "ENUM('a', 'b[]')",
        ),
    ],
)
def test_a_name_that_needs_no_parser_is_read_as_duckdb_reads_it(name: str) -> None:
    assert parse(name) == Scalar(str(duckdb.sqltype(name)))
    assert parse(f"{name}[][]") == ListOf(ListOf(parse(name)))
    nested = parse(f'STRUCT("a[]" {name}[], b {name})[]')
    assert nested == ListOf(Struct((("a[]", ListOf(parse(name))), ("b", parse(name)))))


def test_a_root_reference_gives_the_top_level_properties() -> None:
    parts = properties({"$ref": "#/$defs/Money", "$defs": DEFS})
    assert parts is not None
    assert [(part.name, part.type.sql) for part in parts] == [
        ("amount", "DOUBLE"),
        ("currency", "VARCHAR"),
    ]


def test_a_description_is_the_propertys_own_then_that_of_its_definition() -> None:
    root = {"$defs": DEFS}
    assert description_of({"$ref": "#/$defs/Money"}, root) == "An amount."
    assert description_of({"$ref": "#/$defs/Money", "description": "Total."}, root) == "Total."
    assert description_of({"enum": ["a"], "description": "L."}, root) == "L. One of: a."
    assert description_of(STRING, root) is None


@pytest.mark.parametrize(
    ("old", "new", "answer", "record"),
    [
        ("BIGINT", "BIGINT", "BIGINT", "BIGINT"),
        ("INTEGER", "BIGINT", "BIGINT", "BIGINT"),
        ("BIGINT", "INTEGER", "BIGINT", "BIGINT"),
        ("UINTEGER", "INTEGER", "BIGINT", "BIGINT"),
        ("BIGINT", "DOUBLE", "DOUBLE", "DOUBLE"),
        ("DOUBLE", "BIGINT", "DOUBLE", "DOUBLE"),
        ("DATE", "VARCHAR", "VARCHAR", "VARCHAR"),
        ("VARCHAR", "BIGINT", None, "VARCHAR"),
        ("BOOLEAN", "DOUBLE", None, "VARCHAR"),
        ("VARCHAR", "JSON", "JSON", "JSON"),
        ("JSON", "STRUCT(a VARCHAR)", None, "VARCHAR"),
        ("BIGINT", '"NULL"', None, "BIGINT"),
        ("VARCHAR", "VARCHAR[]", None, "VARCHAR"),
        ("BIGINT[]", "DOUBLE[]", "DOUBLE[]", "DOUBLE[]"),
        (
            "STRUCT(a BIGINT)",
            "STRUCT(b DATE, a DOUBLE)",
            "STRUCT(a DOUBLE, b DATE)",
            "STRUCT(a DOUBLE, b DATE)",
        ),
        (
            "STRUCT(a BIGINT, b DATE)",
            "STRUCT(a BIGINT)",
            "STRUCT(a BIGINT, b DATE)",
            "STRUCT(a BIGINT, b DATE)",
        ),
        ("STRUCT(a VARCHAR)", "STRUCT(a BIGINT)", None, "VARCHAR"),
        ("STRUCT(a VARCHAR)", "STRUCT(A VARCHAR)", None, "VARCHAR"),
    ],
)
def test_a_changed_type_becomes_one_that_holds_both_or_none(
    old: str, new: str, answer: str | None, record: str
) -> None:
    merged = merged_answer(parse(old), parse(new))
    assert (merged and parse(merged.sql)) == (parse(answer) if answer else None)
    assert merged_record(parse(old), parse(new)) == parse(record)
