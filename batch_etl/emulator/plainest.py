"""The plainest value that a schema allows: what is answered when nothing could be read. Pure.

Null where null is allowed, else the first of an enum or of alternatives; an object with its
required members, an empty array or the fewest items, false, 0 or the nearest number allowed, ""
or the shortest string of the format, pattern or length. It says nothing of any record, and is the
same for every one.

Tool schemas may use all of JSON Schema; of what ``output_config`` refuses, bounds, lengths,
``minItems``, ``multipleOf`` and ``oneOf`` are kept to, and a recursive part ends where it may.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from batch_etl.emulator.formats import from_pattern, legal_default
from batch_etl.emulator.nodes import Nodes, enum_values, implied_kind
from batch_etl.emulator.schemas import kinds_of
from batch_etl.emulator.shared import once


@once
def plainest(schema: dict[str, Any]) -> Any:
    """Raises RecursionError when the schema allows no finite value."""
    return _Plainest(schema).value(schema)


class _Plainest:
    def __init__(self, root: dict[str, Any]) -> None:
        self._nodes = Nodes(root)

    def value(self, schema: Any) -> Any:
        schema = self._nodes.flat(schema)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            values = enum_values(schema)
            return None if None in values else values[0]
        for word in ("anyOf", "oneOf"):
            if word in schema:
                return self._first(self._nodes.branches(schema, word))
        kinds = kinds_of(schema) or [implied_kind(schema)]
        return self._of_kind("null" if "null" in kinds else kinds[0], schema)

    def _first(self, branches: list[dict[str, Any]]) -> Any:
        """Null if a branch is that, else the first branch with a finite value."""
        if any(_is_null(branch) for branch in branches):
            return None
        for branch in branches[:-1]:
            try:
                return self.value(branch)
            except RecursionError:
                continue
        return self.value(branches[-1])

    def _of_kind(self, kind: str, schema: dict[str, Any]) -> Any:
        makers: dict[str, Callable[[dict[str, Any]], Any]] = {
            "null": lambda _: None,
            "boolean": lambda _: False,
            "object": self._object,
            "array": self._array,
            "integer": lambda node: math.ceil(_number(node, step=1)),
            "number": lambda node: _number(node, step=None),
        }
        return makers.get(kind, _string)(schema)

    def _object(self, schema: dict[str, Any]) -> dict[str, Any]:
        properties = schema.get("properties", {})
        required = set(schema.get("required", ()))
        names = [name for name in properties if name in required]
        names += sorted(required - set(properties))
        return {name: self.value(properties.get(name, {})) for name in names}

    def _array(self, schema: dict[str, Any]) -> list[Any]:
        return [
            self.value(schema.get("items") or {}) for _ in range(int(schema.get("minItems", 0)))
        ]


def _is_null(schema: dict[str, Any]) -> bool:
    return kinds_of(schema) == ["null"] or ("const" in schema and schema["const"] is None)


def _number(schema: dict[str, Any], step: int | None) -> float:
    """The number nearest to 0 within the bounds."""
    step = schema.get("multipleOf", step)
    least = schema.get("minimum", -math.inf)
    most = schema.get("maximum", math.inf)
    gap = step if step is not None else 0.001
    if "exclusiveMinimum" in schema:
        least = max(least, schema["exclusiveMinimum"] + gap)
    if "exclusiveMaximum" in schema:
        most = min(most, schema["exclusiveMaximum"] - gap)
    nearest = max(least, 0) if least > 0 else min(most, 0)
    if step is not None:
        nearest = step * (math.ceil(nearest / step) if nearest > 0 else math.floor(nearest / step))
    return nearest


def _string(schema: dict[str, Any]) -> str:
    if "format" in schema:
        return legal_default(str(schema["format"]))
    if "pattern" in schema:
        return from_pattern(str(schema["pattern"]))
    return "-" * int(schema.get("minLength", 0))
