"""The vocabulary: what becomes of each JSON Schema keyword. Pure data.

    kept        goes to the API as it is
    hint        left out of ``api`` and told to the model in words, still enforced here
    annotation  says something to people; no constraint
    refused     the API does not take it and it cannot be told in words; the value says what to do

The list of what the API's grammar takes is that of docs/batches-api.md, section 5. Where one
keyword is both (``format``, ``minItems``), its value decides: see ``schema_forms``. A keyword in
none of these tables is unknown, and refused at load.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeAlias, cast

Json: TypeAlias = dict[str, Any]

API_FORMATS = frozenset(
    ["date", "time", "date-time", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"]
)
"""String formats that the API's grammar takes."""

KEPT = frozenset(["type", "enum", "const", "required", "title", "description", "default"])
"""Keywords that go to the API as they are."""

ANNOTATIONS = frozenset(
    (
        *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"),
        *("discriminator", "$comment", "$schema", "$id"),
    )
)
"""Keywords that constrain nothing."""

DEFINITIONS = ("$defs", "definitions")
IN_LIST = ("anyOf", "oneOf", "allOf")
"""Keywords whose value is a list of schemas for the same value."""

REFUSED = {
    "patternProperties": "name the properties, or answer with an array of {key, value} objects",
    "prefixItems": "answer with an object whose properties have names",
    "unevaluatedProperties": "drop it: no object may have properties that are not named",
    "unevaluatedItems": "drop it, and say in items what the array holds",
    "$dynamicRef": "use $ref to #/$defs/NAME",
    "$dynamicAnchor": "use $ref to #/$defs/NAME",
    "$anchor": "use $ref to #/$defs/NAME",
    "$vocabulary": "drop it",
    "nullable": 'write type: [string, "null"] instead',
}
"""Keywords that cannot be used, and what to do instead."""


def _count(noun: str, words: str) -> Callable[[Any], str]:
    return lambda n: f"{words} {n} {noun}{'' if n == 1 else 's'}"


def _as_json(keyword: str) -> Callable[[Any], str]:
    return lambda value: f"{keyword}: {json.dumps(value, ensure_ascii=False)}"


_LOCAL_ONLY = (
    *("not", "if", "then", "else", "contains", "minContains", "maxContains", "propertyNames"),
    *("dependentRequired", "dependentSchemas", "contentEncoding", "contentMediaType"),
)

HINTS: dict[str, Callable[[Any], str]] = {
    "minLength": _count("character", "at least"),
    "maxLength": _count("character", "at most"),
    "pattern": lambda v: f"matching the pattern {v}",
    "format": lambda v: f"in the format {v}",
    "minimum": lambda v: f"{v} or more",
    "maximum": lambda v: f"{v} or less",
    "exclusiveMinimum": lambda v: f"more than {v}",
    "exclusiveMaximum": lambda v: f"less than {v}",
    "multipleOf": lambda v: f"a multiple of {v}",
    "minItems": _count("item", "at least"),
    "maxItems": _count("item", "at most"),
    "uniqueItems": lambda v: "without duplicates" if v else "",
    "minProperties": _count("key", "at least"),
    "maxProperties": _count("key", "at most"),
    **{key: _as_json(key) for key in _LOCAL_ONLY},
}
"""Keywords that are enforced here only, and how the model is told of their value."""

KNOWN = (
    KEPT
    | ANNOTATIONS
    | HINTS.keys()
    | REFUSED.keys()
    | {"$ref", "properties", "items", "anyOf", "oneOf", "allOf", "additionalProperties"}
    | set(DEFINITIONS)
)


def types_of(node: Json) -> list[str]:
    """The node's types, none where it has no ``type``."""
    types: Any = node.get("type", [])
    return [types] if isinstance(types, str) else cast("list[str]", types)
