"""Enum values in the schema's casing, whatever casing the answer has. Pure.

The API does not promise the casing of enum values (docs/batches-api.md, section 5): a schema that
lists ``Red`` may be answered with ``red``. A string that meets exactly one of its place's literals
but for case is given that literal; where two literals differ only in case, nothing is guessed.
All alternatives of ``anyOf``, ``oneOf`` and ``allOf`` count together: which one was meant is for
the validator to say afterwards. Only answers that fail validation are recased, so speed is of no
matter here, and schemas without a string literal never are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from batch_etl.batches.schema_keywords import IN_LIST, Json


def _branches(node: Json) -> Iterator[Json]:
    yield node
    for keyword in IN_LIST:
        for child in node.get(keyword, ()):
            yield from _branches(child)


def has_enums(node: Json) -> bool:
    for branch in _branches(node):
        if any(isinstance(value, str) for value in _literals(branch)):
            return True
        children = [*branch.get("properties", {}).values(), *_items(branch)]
        if any(has_enums(child) for child in children):
            return True
    return False


def _items(node: Json) -> list[Json]:
    return [node["items"]] if "items" in node else []


def _literals(node: Json) -> list[Any]:
    return [*node.get("enum", ()), *([node["const"]] if "const" in node else ())]


def recase(node: Json, value: Any) -> Any:
    """The value with each string that meets exactly one enum value but for case written so."""
    if isinstance(value, str):
        literals = [x for branch in _branches(node) for x in _literals(branch)]
        return _recased(value, [x for x in literals if isinstance(x, str)])
    cased: Any = value
    for branch in _branches(node):
        if isinstance(value, list) and "items" in branch:
            cased = _recase_items(branch["items"], cast("list[Any]", cased))
        elif isinstance(value, dict) and "properties" in branch:
            cased = _recase_properties(branch["properties"], cast("Json", cased))
    return cased


def _recase_items(items: Json, values: list[Any]) -> list[Any]:
    return [recase(items, value) for value in values]


def _recase_properties(properties: Json, value: Json) -> Json:
    return {k: recase(properties[k], v) if k in properties else v for k, v in value.items()}


def _recased(value: str, literals: list[str]) -> str:
    if value in literals:
        return value
    folded = value.casefold()
    matches = {literal for literal in literals if literal.casefold() == folded}
    return matches.pop() if len(matches) == 1 else value
