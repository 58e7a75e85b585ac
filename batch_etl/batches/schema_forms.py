"""The two forms derived from a resolved schema: what is sent and what is enforced. Pure.

    api        only what the API's grammar takes; a constraint it does not know is told to the
               model at the end of the description, in brackets, in the order it was written
    enforced   every constraint and no annotation, so that two schemas that differ in words only
               enforce the same

Both close every object (``additionalProperties: false``), as the API demands. ``oneOf`` is sent
as ``anyOf``, the nearest thing that the grammar knows, and enforced as ``oneOf``.
"""

from __future__ import annotations

from typing import Any

from batch_etl.batches.schema_keywords import (
    ANNOTATIONS,
    API_FORMATS,
    HINTS,
    IN_LIST,
    KEPT,
    Json,
    types_of,
)


def api_form(node: Json) -> Json:
    """The legal form of a resolved node: unknown keywords become a hint in the description."""
    legal: Json = {}
    hints: list[str] = []
    for key, value in node.items():
        if key in KEPT:
            legal[key] = value
        elif key == "properties":
            legal[key] = {name: api_form(child) for name, child in value.items()}
        elif key == "items":
            legal[key] = api_form(value)
        elif key in IN_LIST:
            legal["allOf" if key == "allOf" else "anyOf"] = [api_form(child) for child in value]
        elif _is_legal(node, key, value):
            legal[key] = value
        elif key in HINTS:
            hints.append(HINTS[key](value))
    if "object" in types_of(node):
        legal["additionalProperties"] = False
    return _with_hints(legal, [hint for hint in hints if hint])


def _is_legal(node: Json, key: str, value: Any) -> bool:
    if key == "format":
        return value in API_FORMATS and "string" in types_of(node)
    return key == "minItems" and value in (0, 1)


def _with_hints(legal: Json, hints: list[str]) -> Json:
    if hints:
        described = f"{legal.get('description', '')} ({', '.join(hints)})"
        legal["description"] = described.strip()
    return legal


def enforced_form(node: Json) -> Json:
    """What is validated: every constraint, objects closed as in ``api``, no annotations."""
    closed: Json = {}
    for key, value in node.items():
        if key == "properties":
            closed[key] = {name: enforced_form(child) for name, child in value.items()}
        elif key == "items":
            closed[key] = enforced_form(value)
        elif key in IN_LIST:
            closed[key] = [enforced_form(child) for child in value]
        elif key not in ANNOTATIONS and not key.startswith("x-"):
            closed[key] = value
    if "object" in types_of(node):
        closed["additionalProperties"] = False
    return closed
