"""Which JSON Schemas ``output_config.format`` takes, and the first reason why one is not taken.
Pure.

From Anthropic's structured-outputs page: every object says ``additionalProperties: false``; no
recursion; no external ``$ref``; no numeric bounds, no string lengths; ``minItems`` 0 or 1 only;
enums and consts of plain values. Where in the schema the fault lies is said in our own words.
"""

from __future__ import annotations

from typing import Any

TYPES = {"object", "array", "string", "integer", "number", "boolean", "null"}
FORMATS = {
    "date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid",
}  # fmt: skip
PLAIN = (
    "type", "title", "description", "default", "examples", "enum", "const", "format", "pattern",
    "properties", "required", "additionalProperties", "items", "minItems", "anyOf", "allOf",
    "$ref", "$defs", "definitions", "$schema", "$id", "$comment", "deprecated",
)  # fmt: skip
KNOWN = frozenset(PLAIN)


def why_refused(schema: Any) -> str | None:
    """None when the API takes ``schema``; otherwise the message of the line's error."""
    if not isinstance(schema, dict):
        return "schema: Input should be a valid dictionary"
    if not schema:
        return "schema: Schema must not be empty"
    return _check(schema, "schema", schema, ())


def why_not_compiled(schema: Any) -> str | None:
    """Like :func:`why_refused`; a schema too deep to look through is too complex."""
    try:
        return why_refused(schema)
    except RecursionError:
        return "schema: Schema is too complex for compilation"


def cost_of(schema: dict[str, Any]) -> tuple[int, int]:
    """How many properties a schema that is taken leaves optional, and how many are unions (anyOf,
    or a list of types); a definition counts once.
    """
    optional = len(schema.get("properties", {})) - len(set(schema.get("required", ())))
    unions = 0
    for child in schema.get("properties", {}).values():
        unions += isinstance(child, dict) and ("anyOf" in child or len(kinds_of(child)) > 1)
    for child in _subschemas(schema):
        inner = cost_of(child)
        optional, unions = optional + inner[0], unions + inner[1]
    return optional, unions


def _subschemas(schema: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[Any] = [schema.get("items")]
    for name in ("properties", "$defs", "definitions"):
        found += schema.get(name, {}).values()
    for name in ("anyOf", "allOf"):
        found += schema.get(name, [])
    return [child for child in found if isinstance(child, dict)]


def _check(node: Any, where: str, root: dict[str, Any], open_refs: tuple[str, ...]) -> str | None:
    if isinstance(node, bool):
        return None if node else f"{where}: a schema of false matches nothing"
    if not isinstance(node, dict):
        return f"{where}: Input should be a valid dictionary"
    return (
        _check_keywords(node, where)
        or _check_values(node, where)
        or _check_reference(node, where, root, open_refs)
        or _check_children(node, where, root, open_refs)
    )


def _check_keywords(node: dict[str, Any], where: str) -> str | None:
    extra = next((name for name in node if name not in KNOWN), None)
    if extra is not None:
        kind = node.get("type", "any")
        return f"{where}: For '{kind}' type, property '{extra}' is not supported"
    kinds = kinds_of(node)
    if not all(isinstance(kind, str) and kind in TYPES for kind in kinds):
        return f"{where}: type must be one of {', '.join(sorted(TYPES))}"
    is_object = "object" in kinds or "properties" in node
    if is_object and node.get("additionalProperties") is not False:
        return f"{where}: For 'object' type, 'additionalProperties' must be explicitly set to false"
    return None


def _check_values(node: dict[str, Any], where: str) -> str | None:
    if node.get("minItems", 0) not in (0, 1):
        return f"{where}: For 'array' type, 'minItems' values other than 0 or 1 are not supported"
    if "format" in node and node["format"] not in FORMATS:
        return f"{where}: String format '{node['format']}' is not supported"
    enum = node.get("enum", [None])
    if not isinstance(enum, list) or not enum:
        return f"{where}.enum: must be a non-empty list"
    if any(isinstance(value, (dict, list)) for value in (*enum, node.get("const"))):
        return f"{where}: enum and const values must be strings, numbers, booleans or null"
    return _check_required(node, where)


def _check_required(node: dict[str, Any], where: str) -> str | None:
    properties = node.get("properties", {})
    if not isinstance(properties, dict):
        return f"{where}.properties: Input should be a valid dictionary"
    required = node.get("required", [])
    if not isinstance(required, list):
        return f"{where}.required: Input should be a valid list"
    unknown = next((name for name in required if name not in properties), None)
    if unknown is not None:
        return f"{where}.required: property '{unknown}' is not in properties"
    return None


def _check_reference(
    node: dict[str, Any], where: str, root: dict[str, Any], open_refs: tuple[str, ...]
) -> str | None:
    reference = node.get("$ref")
    if reference is None:
        return None
    if not isinstance(reference, str) or not reference.startswith("#"):
        return f"{where}: External $ref '{reference}' is not supported"
    if reference in open_refs:
        return f"{where}: Recursive schemas are not supported ('{reference}')"
    target = resolve(reference, root)
    if target is None:
        return f"{where}: $ref '{reference}' points to nothing"
    return _check(target, reference, root, (*open_refs, reference))


def _check_children(
    node: dict[str, Any], where: str, root: dict[str, Any], open_refs: tuple[str, ...]
) -> str | None:
    children: list[tuple[str, Any]] = []
    for name in ("properties", "$defs", "definitions"):
        members = node.get(name, {})
        if not isinstance(members, dict):
            return f"{where}.{name}: Input should be a valid dictionary"
        children += [(f"{where}.{name}.{key}", child) for key, child in members.items()]
    for name in ("anyOf", "allOf"):
        branches = node.get(name, [])
        if not isinstance(branches, list) or (name in node and not branches):
            return f"{where}.{name}: must be a non-empty list"
        children += [(f"{where}.{name}.{n}", child) for n, child in enumerate(branches)]
    if "items" in node:
        children.append((f"{where}.items", node["items"]))
    found = (_check(child, place, root, open_refs) for place, child in children)
    return next((message for message in found if message), None)


def kinds_of(node: dict[str, Any]) -> list[Any]:
    kind = node.get("type", [])
    return kind if isinstance(kind, list) else [kind]


def resolve(reference: str, root: dict[str, Any]) -> Any:
    """What a local JSON pointer points to; None when nothing is there."""
    target: Any = root
    for escaped in reference.lstrip("#").split("/")[1:]:
        step = escaped.replace("~1", "/").replace("~0", "~")
        if not isinstance(target, dict) or step not in target:
            return None
        target = target[step]
    return target
