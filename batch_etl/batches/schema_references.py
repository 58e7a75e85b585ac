"""References, replaced by what they name: a source becomes its resolved form. Pure.

The API takes ``$ref``, but a schema without any is what the derived forms, the casing of enums and
the columns of the warehouse can each walk without looking anything up. Recursion has no such form
(and the API does not take it); references that double at every step have one, but too large:
both are refused. What stands beside a ``$ref`` (a description, mostly) replaces the target's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from batch_etl.batches.schema_keywords import ANNOTATIONS, DEFINITIONS, IN_LIST, Json
from batch_etl.batches.schema_place import PlaceError, escape
from batch_etl.strict import did_you_mean

_MAX_NODES = 20_000
_BY_NAME = ("properties", "dependentSchemas")
_SINGLE = ("items", "not", "if", "then", "else", "contains", "propertyNames")


def resolve(source: Json) -> Json:
    """The source without ``$ref`` and definitions; raises :class:`PlaceError`."""
    return cast("Json", _Resolver(source).resolved)


class _Resolver:
    """Replace every ``$ref`` by its target, refusing recursion and exponential growth."""

    def __init__(self, source: Json) -> None:
        self._source = source
        self._nodes = 0
        root = {key: value for key, value in source.items() if key not in DEFINITIONS}
        self.resolved = self._resolve(root, "", ())

    def _resolve(self, node: Any, at: str, trail: tuple[str, ...]) -> Any:
        if not isinstance(node, dict):
            return node
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            raise PlaceError(
                at, f"more than {_MAX_NODES} parts once its references are written out"
            )
        schema = cast("Json", node)
        if "$ref" in schema:
            return self._follow(schema, at, trail)
        return _unwrap(_mapped(schema, lambda child, step: self._resolve(child, at + step, trail)))

    def _follow(self, schema: Json, at: str, trail: tuple[str, ...]) -> Any:
        reference: str = schema["$ref"]
        if reference in trail:
            circle = " -> ".join((*trail[trail.index(reference) :], reference))
            raise PlaceError(f"{at}/$ref", f"is recursive ({circle}), which the API does not take")
        keyword, name = reference[2:].split("/")
        definitions = self._source.get(keyword, {})
        name = name.replace("~1", "/").replace("~0", "~")
        if name not in definitions:
            raise PlaceError(
                f"{at}/$ref", f"{reference!r} names nothing{did_you_mean(name, list(definitions))}"
            )
        target = self._resolve(definitions[name], reference[1:], (*trail, reference))
        return target | {k: v for k, v in schema.items() if k not in ("$ref", *DEFINITIONS)}


def _mapped(node: Json, change: Callable[[Any, str], Any]) -> Json:
    """A copy of the node with each of its subschemas changed; ``change`` also gets the step."""
    copy: Json = {}
    for key, value in node.items():
        if key in _BY_NAME:
            copy[key] = {k: change(v, f"/{key}/{escape(k)}") for k, v in value.items()}
        elif key in IN_LIST:
            copy[key] = [change(v, f"/{key}/{i}") for i, v in enumerate(value)]
        elif key in _SINGLE:
            copy[key] = change(value, f"/{key}")
        else:
            copy[key] = value
    return copy


def _unwrap(node: Json) -> Json:
    """``allOf`` of one member (an old way to describe a reference) is that member."""
    if "allOf" not in node or not (node.keys() - {"allOf"} <= ANNOTATIONS):
        return node
    return node["allOf"][0] | {key: value for key, value in node.items() if key != "allOf"}
