"""Load-time checks of a schema's source: what the API or these rules cannot take. Pure.

First the whole must be JSON Schema (draft 2020-12). Then each node that describes a part of the
answer is looked at by itself, references not yet followed, so that a fault has the pointer of the
line the user wrote. Subschemas that only constrain (``not``, ``if``, ``contains``) are not nodes in
this sense: they never reach the API.

Refused is what the API does not take (keywords outside its grammar, open objects), and what would
be a schema that no answer meets (a required property that is not there, an enum value of another
type): both are found before anything is paid. Recursion and references to nothing are found later,
by ``schema_references``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, cast

import jsonschema_rs

from batch_etl.batches.schema_keywords import (
    ANNOTATIONS,
    DEFINITIONS,
    IN_LIST,
    KNOWN,
    REFUSED,
    Json,
    types_of,
)
from batch_etl.batches.schema_place import (
    PlaceError,
    below,
    escape,
    first_line,
    nearest,
    pointer_of,
)
from batch_etl.strict import did_you_mean

_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "integer": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and v == int(v),
    "number": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
}


def check_schema(source: Any) -> None:
    """Raise :class:`PlaceError` for the first thing that is wrong with a source as plain JSON."""
    _check_is_schema(source)
    for pointer, node in _nodes(source, ""):
        _check_node(node, pointer)


def _check_is_schema(source: Any) -> None:
    if not isinstance(source, dict) or not source:
        raise PlaceError(
            "", "the schema is empty or not a mapping: write type: object and properties"
        )
    schema = cast("Json", source) | {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    try:
        jsonschema_rs.meta.validate(schema)
    except jsonschema_rs.ValidationError as error:
        at = pointer_of(error.instance_path)
        if error.instance_path and error.instance_path[-1] == "type":
            raise PlaceError(
                at, f"unknown type {error.instance!r}: use {', '.join(_TYPES)}"
            ) from None
        raise PlaceError(at, f"not a JSON Schema: {first_line(error.message)}") from None


def _nodes(node: Any, at: str) -> Iterator[tuple[str, Json]]:
    """Every subschema that describes a part of the answer, with its JSON pointer."""
    if not isinstance(node, dict):
        raise PlaceError(at, f"{json.dumps(node)} is no description of a value: give it a type")
    schema = cast("Json", node)
    yield at, schema
    for keyword in ("properties", *DEFINITIONS):
        for name, child in schema.get(keyword, {}).items():
            yield from _nodes(child, f"{at}/{keyword}/{escape(name)}")
    if "items" in schema:
        yield from _nodes(schema["items"], f"{at}/items")
    for keyword in IN_LIST:
        for index, child in enumerate(schema.get(keyword, ())):
            yield from _nodes(child, f"{at}/{keyword}/{index}")


def _check_node(node: Json, at: str) -> None:
    _check_keywords(node, at)
    _check_reference(node, at)
    _check_described(node, at)
    _check_object(node, at)
    _check_literals(node, at)


def _check_keywords(node: Json, at: str) -> None:
    for keyword in node:
        if keyword in REFUSED:
            raise PlaceError(below(at, keyword), f"the API does not take it; {REFUSED[keyword]}")
        if keyword not in KNOWN and not keyword.startswith("x-"):
            raise PlaceError(below(at, keyword), f"unknown keyword{nearest(keyword, KNOWN)}")
    if len(node.get("allOf", "1")) != 1:
        raise PlaceError(f"{at}/allOf", "merge its members into one schema: objects are closed")


def _check_reference(node: Json, at: str) -> None:
    if "$ref" not in node:
        return
    reference: str = node["$ref"]
    if not reference.startswith("#"):
        raise PlaceError(f"{at}/$ref", f"{reference!r} is outside this schema: copy it into $defs")
    if not re.fullmatch(r"#/(\$defs|definitions)/[^/]+", reference):
        raise PlaceError(f"{at}/$ref", f"{reference!r}: only #/$defs/NAME can be referred to")
    extra = node.keys() - ANNOTATIONS - {"$ref", *DEFINITIONS}
    if extra:
        raise PlaceError(f"{at}/$ref", f"move {', '.join(sorted(extra))} into what it refers to")


def _check_described(node: Json, at: str) -> None:
    ways = ("type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref")
    if not any(way in node for way in ways):
        raise PlaceError(at or "/", "has no type: give it type, enum, const, anyOf or $ref")
    if "array" in types_of(node) and "items" not in node:
        raise PlaceError(at, "an array must say what its items are: add items")
    branches = [way for way in IN_LIST if way in node]
    if branches and "properties" in node:
        raise PlaceError(
            below(at, branches[0]), "beside properties: make each alternative a whole object"
        )


def _check_object(node: Json, at: str) -> None:
    if "object" not in types_of(node):
        if "properties" in node:
            raise PlaceError(at or "/", "has properties but not type: object")
        return
    if node.get("additionalProperties", False) is not False:
        raise PlaceError(
            f"{at}/additionalProperties",
            "the API takes only false; name the properties, or answer with an array of"
            " {key, value} objects",
        )
    if not node.get("properties"):
        raise PlaceError(at or "/", "an object without properties can only be answered with {}")
    for index, name in enumerate(node.get("required", ())):
        if name not in node["properties"]:
            near = did_you_mean(name, list(node["properties"]))
            raise PlaceError(f"{at}/required/{index}", f"no property is called {name!r}{near}")


def _check_literals(node: Json, at: str) -> None:
    if node.get("enum") == []:
        raise PlaceError(f"{at}/enum", "is empty: no answer could be valid")
    places = [(f"{at}/enum/{i}", value) for i, value in enumerate(node.get("enum", ()))]
    places += [(f"{at}/const", node["const"])] if "const" in node else []
    types = types_of(node)
    for place, value in places:
        if isinstance(value, (dict, list)):
            raise PlaceError(place, "only strings, numbers, booleans and null can be listed")
        if types and not any(_TYPES[name](value) for name in types):
            quotes = "; put it in quotes" if types == ["string"] else ""
            raise PlaceError(
                place, f"{json.dumps(value)} is not of type {' or '.join(types)}{quotes}"
            )
