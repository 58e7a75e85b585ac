"""The nodes of one JSON Schema, with references followed and ``allOf`` merged in. Pure."""

from __future__ import annotations

from typing import Any

from batch_etl.emulator.schemas import kinds_of, resolve


class Nodes:
    """Reads nodes of the schema ``root``."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root

    def flat(self, schema: Any) -> dict[str, Any]:
        """The node with ``$ref`` followed and ``allOf`` merged in. Raises RecursionError for a
        node that refers to itself and nothing else.
        """
        if not isinstance(schema, dict):
            return {}
        if "$ref" in schema:
            target = resolve(str(schema["$ref"]), self._root)
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            return self.joined([self.flat(target or {}), rest])
        if "allOf" in schema:
            rest = {key: value for key, value in schema.items() if key != "allOf"}
            return self.joined([rest, *schema["allOf"]])
        return schema

    def joined(self, parts: list[Any]) -> dict[str, Any]:
        joined: dict[str, Any] = {}
        for part in parts:
            flat = self.flat(part)
            both = {key: joined[key] for key in ("properties", "required") if key in joined}
            joined = {**joined, **flat}
            if "properties" in both:
                joined["properties"] = {**both["properties"], **flat.get("properties", {})}
            if "required" in both:
                joined["required"] = [*both["required"], *flat.get("required", [])]
        return joined

    def branches(self, schema: dict[str, Any], word: str = "anyOf") -> list[dict[str, Any]]:
        """The node's alternatives, each with what stands beside them."""
        beside = {key: value for key, value in schema.items() if key != word}
        return [self.joined([beside, branch]) for branch in schema[word]]


def implied_kind(schema: dict[str, Any]) -> str:
    """The type of a node that names none."""
    if "properties" in schema:
        return "object"
    return "array" if "items" in schema else "string"


def has_kind(value: Any, kinds: list[Any]) -> bool:
    if isinstance(value, bool):
        return "boolean" in kinds
    if isinstance(value, (int, float)):
        return "number" in kinds or ("integer" in kinds and value == int(value))
    return ("null" if value is None else "string") in kinds


def enum_values(schema: dict[str, Any]) -> list[Any]:
    """The values of an enum that its type allows."""
    kinds = kinds_of(schema)
    allowed = [value for value in schema["enum"] if not kinds or has_kind(value, kinds)]
    return allowed or schema["enum"]
