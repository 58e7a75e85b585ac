"""JSON Schema -> DuckDB types, and what becomes of a column whose type changes.

| JSON Schema                                   | DuckDB                                  |
|-----------------------------------------------|-----------------------------------------|
| string; format date; format date-time         | VARCHAR; DATE; TIMESTAMP WITH TIME ZONE |
| integer (bounds beyond 64 bits); number       | BIGINT (HUGEINT); DOUBLE                |
| boolean                                       | BOOLEAN                                 |
| array of one kind of item                     | T[]                                     |
| object with named properties                  | STRUCT                                  |
| enum, const                                   | the type of its values                  |
| T or null (type list, anyOf, oneOf)           | T: every column is nullable             |
| $ref, allOf of one                            | what it points at                       |
| mixed unions, free-form objects, tuples,      | JSON                                    |
| recursion, names that differ in case only     |                                         |

An object becomes a STRUCT only if the STRUCT can hold all of it; everything that cannot is JSON,
which holds anything. Nothing here touches a database: types are values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import duckdb

from batch_etl.warehouse.sql import comma, identifier

Schema = Mapping[str, Any]

_ENUM_VALUES_SHOWN = 20


@dataclass(frozen=True)
class Scalar:
    """Any type without named parts that this module looks into; ``sql`` is DuckDB's own name."""

    sql: str


@dataclass(frozen=True)
class ListOf:
    """``T[]``."""

    item: DuckType

    @property
    def sql(self) -> str:
        return f"{self.item.sql}[]"


@dataclass(frozen=True)
class Struct:
    """``STRUCT``: fields in order; no two names are equal when case is ignored."""

    fields: tuple[tuple[str, DuckType], ...]

    @property
    def sql(self) -> str:
        return f"STRUCT({comma([f'{identifier(name)} {kind.sql}' for name, kind in self.fields])})"


DuckType = Scalar | ListOf | Struct

VARCHAR = Scalar("VARCHAR")
JSON = Scalar("JSON")
BOOLEAN = Scalar("BOOLEAN")
BIGINT = Scalar("BIGINT")
HUGEINT = Scalar("HUGEINT")
DOUBLE = Scalar("DOUBLE")
DATE = Scalar("DATE")
TIMESTAMPTZ = Scalar("TIMESTAMP WITH TIME ZONE")
NULL = Scalar('"NULL"')
"""The type of a Parquet column that was written without one: it holds nothing but NULL."""

_FORMATS = {"date": DATE, "date-time": TIMESTAMPTZ}
_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
_UNSIGNED = {"UTINYINT": "SMALLINT", "USMALLINT": "INTEGER", "UINTEGER": "BIGINT"}


PLAIN = re.compile(
    r"VARCHAR|JSON|BOOLEAN|U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER|FLOAT|DOUBLE|DECIMAL\(\d+,\d+\)|"
    r"DATE|TIME|TIMESTAMP( WITH TIME ZONE|_S|_MS|_NS)?|UUID|BLOB"
)
"""Types without parts, by the names that DuckDB gives them. Values that look the same are equal."""


@lru_cache(maxsize=256)
def parse(sql: str) -> DuckType:
    """DuckDB's name of a type as a value.

    DuckDB's own reading of it costs a database in memory; most names need none.
    """
    if PLAIN.fullmatch(sql):
        return Scalar(sql)
    if sql.endswith("[]"):
        return ListOf(parse(sql.removesuffix("[]")))
    return _from_duckdb(duckdb.sqltype(sql))


def _from_duckdb(kind: Any) -> DuckType:
    if kind.id == "list":
        return ListOf(_from_duckdb(kind.children[0][1]))
    if kind.id == "struct":
        return Struct(tuple((name, _from_duckdb(child)) for name, child in kind.children))
    return Scalar(str(kind))


@dataclass(frozen=True)
class Property:
    """One top-level property of an output schema."""

    name: str
    type: DuckType
    description: str | None


def properties(schema: Schema) -> tuple[Property, ...] | None:
    """The top-level properties of an object schema, in order; None if it is not such a schema."""
    body, _ = _resolved(schema, schema, ())
    named = body.get("properties")
    if not isinstance(named, Mapping) or not named:
        return None
    return tuple(
        Property(str(name), type_of(part, schema), description_of(part, schema))
        for name, part in cast("Mapping[str, Any]", named).items()
    )


def type_of(schema: object, root: Schema, seen: tuple[str, ...] = ()) -> DuckType:
    """The DuckDB type that holds every value that ``schema`` allows; ``root`` has its ``$defs``."""
    if not isinstance(schema, Mapping):
        return JSON
    body, seen = _resolved(cast("Schema", schema), root, seen)
    if "enum" in body or "const" in body:
        return _type_of_values(body.get("enum", [body.get("const")]))
    for union in ("anyOf", "oneOf"):
        if union in body:
            return _type_of_union(body[union], root, seen)
    kinds = _kinds(body)
    if kinds == {"integer", "number"}:
        return DOUBLE
    return _type_of_kind(kinds.pop(), body, root, seen) if len(kinds) == 1 else JSON


def _type_of_kind(kind: str, body: Schema, root: Schema, seen: tuple[str, ...]) -> DuckType:
    plain: dict[str, DuckType] = {"number": DOUBLE, "boolean": BOOLEAN}
    match kind:
        case "string":
            return _FORMATS.get(str(body.get("format")), VARCHAR)
        case "integer":
            return _integer(body)
        case "array":
            return _array(body, root, seen)
        case "object":
            return _object(body, root, seen)
        case _:
            return plain.get(kind, JSON)


def _kinds(body: Schema) -> set[str]:
    kind = body.get("type")
    if kind is None:
        if "properties" in body:
            return {"object"}
        return {"array"} if "items" in body else set()
    return {kind} - {"null"} if isinstance(kind, str) else set(kind) - {"null"}


def _integer(body: Schema) -> DuckType:
    bounds = [body[key] for key in ("minimum", "maximum") if isinstance(body.get(key), int | float)]
    return BIGINT if all(-(2**63) <= bound < 2**63 for bound in bounds) else HUGEINT


def _array(body: Schema, root: Schema, seen: tuple[str, ...]) -> DuckType:
    items = body.get("items")
    if not isinstance(items, Mapping) or body.get("prefixItems"):
        return JSON
    return ListOf(type_of(cast("Schema", items), root, seen))


def _object(body: Schema, root: Schema, seen: tuple[str, ...]) -> DuckType:
    named = body.get("properties")
    is_open = body.get("additionalProperties") not in (None, False) or "patternProperties" in body
    if not isinstance(named, Mapping) or not named or is_open:
        return JSON
    parts = cast("Mapping[str, Any]", named)
    if len({name.casefold() for name in parts}) < len(parts) or any(map(_unspeakable, parts)):
        return JSON
    return Struct(tuple((name, type_of(part, root, seen)) for name, part in parts.items()))


def _unspeakable(name: str) -> bool:
    return not name or "\0" in name


def _type_of_values(values: object) -> DuckType:
    kinds = {type(value) for value in cast("Sequence[object]", values) if value is not None}
    if kinds == {int, float}:
        return DOUBLE
    scalars: dict[type, DuckType] = {str: VARCHAR, bool: BOOLEAN, int: BIGINT, float: DOUBLE}
    return scalars.get(kinds.pop(), JSON) if len(kinds) == 1 else JSON


def _type_of_union(branches: object, root: Schema, seen: tuple[str, ...]) -> DuckType:
    live = [branch for branch in cast("Sequence[object]", branches) if not _is_null(branch)]
    kinds = {type_of(branch, root, seen) for branch in live}
    if kinds == {BIGINT, DOUBLE}:
        return DOUBLE
    return kinds.pop() if len(kinds) == 1 else JSON


def _is_null(schema: object) -> bool:
    if not isinstance(schema, Mapping):
        return False
    body = cast("Schema", schema)
    return body.get("type") in ("null", ["null"]) or ("const" in body and body["const"] is None)


def _resolved(
    schema: Schema, root: Schema, seen: tuple[str, ...]
) -> tuple[Schema, tuple[str, ...]]:
    """Follow ``$ref`` and a lone ``allOf``; an empty schema (JSON) where that leads nowhere."""
    while True:
        if "$ref" in schema:
            ref = str(schema["$ref"])
            if ref in seen:
                return {}, seen
            schema, seen = _target(ref, root), (*seen, ref)
        elif "allOf" in schema:
            parts = cast("Sequence[object]", schema["allOf"])
            if len(parts) != 1 or not isinstance(parts[0], Mapping) or "properties" in schema:
                return {}, seen
            schema = cast("Schema", parts[0])
        else:
            return schema, seen


def _target(ref: str, root: Schema) -> Schema:
    place: object = root
    for step in ref.removeprefix("#").split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        place = cast("Schema", place).get(key) if isinstance(place, Mapping) else None
    if not ref.startswith("#") or not isinstance(place, Mapping):
        return {}
    return cast("Schema", place)


def description_of(schema: object, root: Schema) -> str | None:
    """The schema's own description or that of what it points at, then its enum's values."""
    if not isinstance(schema, Mapping):
        return None
    own = cast("Schema", schema)
    body, _ = _resolved(own, root, ())
    text = own.get("description") or body.get("description") or own.get("title")
    values = body.get("enum")
    if isinstance(values, list) and len(cast("list[object]", values)) <= _ENUM_VALUES_SHOWN:
        text = f"{text or ''} One of: {', '.join(map(str, cast('list[object]', values)))}.".strip()
    return str(text) if text else None


def merged_answer(old: DuckType, new: DuckType) -> DuckType | None:
    """The type that holds an answer column's old values and its new ones, both still typed.

    None: there is no such type (a string turned into a number), so the old column must step aside.
    """
    if old == new:
        return old
    match old, new:
        case ListOf(), ListOf():
            item = merged_answer(old.item, new.item)
            return ListOf(item) if item else None
        case Struct(), Struct():
            return _merged_struct(old, new)
        case Scalar(), Scalar() if number := _merged_number(old.sql, new.sql):
            return Scalar(number)
        case _:
            return new if new in (VARCHAR, JSON) else None


def merged_record(old: DuckType, new: DuckType) -> DuckType:
    """As :func:`merged_answer` for a record's column: text holds whatever nothing else can.

    A file source may guess another type in each partition, so its columns never step aside.
    """
    if new == NULL:
        return old
    return merged_answer(old, new) or VARCHAR


def _merged_struct(old: Struct, new: Struct) -> Struct | None:
    fields = dict(old.fields)
    spelled = {name.casefold(): name for name in fields}
    for name, kind in new.fields:
        if spelled.get(name.casefold(), name) != name:
            return None
        both = merged_answer(fields[name], kind) if name in fields else kind
        if both is None:
            return None
        fields[name] = both
    return Struct(tuple(fields.items()))


def _merged_number(old: str, new: str) -> str | None:
    old, new = _UNSIGNED.get(old, old), _UNSIGNED.get(new, new)
    if old in _INTEGERS and new in _INTEGERS:
        return max(old, new, key=_INTEGERS.index)
    floats = {"FLOAT", "DOUBLE"}
    if {old, new} <= floats | set(_INTEGERS) and floats & {old, new}:
        return "DOUBLE"
    return None
