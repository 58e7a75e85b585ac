"""A quick judge of answers' texts, for schemas that say no more than types, enums and ranges.

It says yes or it does not know, never no. Where it says yes, the schema allows the text, and the
text is just as its value is written anew (``answer_text.written_so``): compact, numbers and letters
the same, no key twice. It looks thrice, the quickest first:

* at the text alone, with a regular expression of all the texts that have every key in the schema's
  order, and no value of which more must be known than how it is written (:func:`_written`): all
  texts of a call at once, by Arrow's engine (RE2), in half the time that Python's would take;
* at the value, read by msgspec's types, which check while they parse: structs, which write their
  keys in the schema's order;
* at the same as dictionaries in their own order, whose numbers keep their digits.

All other texts, and all answers to a schema that says more (patterns, formats, alternatives that
cannot be told apart), are judged by ``schema``, at several times the cost.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal, NotRequired, Required, TypedDict, cast

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
from msgspec import UNSET, UnsetType

from batch_etl import arrow
from batch_etl.batches.answer_text import NOT_JSON, encode, encode_exactly
from batch_etl.batches.schema_keywords import ANNOTATIONS, Json, types_of

pc: Any = pyarrow.compute  # its functions are made at import; a type checker sees none

_LARGEST = 2**63 - 1
"""Readers differ on what a larger integer is; it is left to ``schema``."""

_OF_KIND: dict[str, frozenset[str]] = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength"}),
    "integer": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}),
    "boolean": frozenset(),
    "null": frozenset(),
}
"""The keywords that are checked, by the type that they say something of."""

_AS_WRITTEN = {
    "string": r'"[^"\\\x00-\x1f]*"',
    "integer": r"-?(?:0|[1-9][0-9]{0,17})",
    "number": r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,15})?",
    "boolean": r"true|false",
    "null": r"null",
}
"""What is one of a type and is written in one way: no escapes, no exponents, few digits."""

_FEW = 16
"""Words that are looked for one after the other sooner than a text is parsed."""

_LONGEST_PATTERN = 4_000
"""Letters of an expression, which is compiled for each call: this one in a millisecond."""


class _SaysMoreError(Exception):
    """The schema says what a quick judge cannot check."""


Texts = Sequence[str | None]
Judge = Callable[[Texts], list[str | None]]
"""From texts to the same texts, None in the place of each that is not surely as it should be."""


def quick_judge(resolved: Json) -> Judge | None:
    """A judge of the answers to a schema without references.

    None where the schema says more than can be judged quickly.
    """
    try:
        decode = msgspec.json.Decoder(_type_of(resolved)).decode
        decode_exactly = msgspec.json.Decoder(_type_of(resolved, exactly=True)).decode
    except (_SaysMoreError, TypeError, ValueError):  # a union of which msgspec cannot tell the
        return None  # members, or a key that no field can have
    written = _pattern(resolved)

    def surely_met(texts: Texts) -> list[str | None]:
        met = list(texts)
        for place in np.flatnonzero(~written(texts)).tolist():
            text, same = met[place], False
            if text is not None:
                try:  # here and not in a function: a call a text would cost as much as the rest
                    value, wanted = decode(text), text.encode()
                    same = encode(value) == wanted or encode_exactly(decode_exactly(text)) == wanted
                except NOT_JSON:
                    pass
            if not same:
                met[place] = None
        return met

    return surely_met


def _pattern(resolved: Json) -> Callable[[Texts], npt.NDArray[np.bool_]]:
    """Whether each text is surely as it should be, from how it is written."""
    try:
        pattern = rf"\A(?:{_written(resolved)})\z"
    except _SaysMoreError:
        pattern = ""
    if not 0 < len(pattern) <= _LONGEST_PATTERN:
        return lambda texts: np.zeros(len(texts), dtype=bool)

    def matched(texts: Texts) -> npt.NDArray[np.bool_]:
        found = pc.match_substring_regex(pa.array(texts, pa.string()), pattern)
        return arrow.flags(found.fill_null(pa.scalar(False, pa.bool_())))  # noqa: FBT003

    return matched


def _written(node: Json) -> str:
    """A regular expression of texts that the schema allows, each as it is written anew."""
    kinds, says = types_of(node), _says(node)
    if "enum" in says:
        words = [word for word in says["enum"] if word is not None or "null" in kinds]
        if len(words) > _FEW:
            raise _SaysMoreError
        return _any_of(re.escape(encode(word).decode()) for word in words)
    return _any_of(_written_as(kind, says) for kind in kinds)


def _written_as(kind: str, says: Json) -> str:
    if kind == "object":
        children = cast("dict[str, Json]", says["properties"])
        if set(says.get("required", ())) != children.keys():
            raise _SaysMoreError
        pairs = [
            f"{re.escape(encode(name).decode())}:{_written(child)}"
            for name, child in children.items()
        ]
        return rf"\{{{','.join(pairs)}\}}"
    if kind not in _AS_WRITTEN or says.keys() & _OF_KIND[kind]:
        raise _SaysMoreError
    return _AS_WRITTEN[kind]


def _any_of(patterns: Iterable[str]) -> str:
    return f"(?:{'|'.join(patterns)})"


def _says(node: Json) -> Json:
    """What the schema asks for beside the type."""
    return {
        key: said
        for key, said in node.items()
        if key not in ANNOTATIONS and not key.startswith("x-") and key != "type"
    }


def _type_of(node: Json, *, exactly: bool = False) -> Any:
    """``exactly``: order and digits stay as written, and ranges are not looked at again."""
    kinds, says = types_of(node), _says(node)
    if "enum" in says:
        return _enum(kinds, says)
    known = frozenset[str]().union(*(_OF_KIND.get(kind, ()) for kind in kinds))
    if not kinds or says.keys() - known:
        raise _SaysMoreError
    return reduce(or_, [_of_kind(kind, says, exactly=exactly) for kind in kinds])


def _enum(kinds: list[str], says: Json) -> Any:
    """One of some texts, or null."""
    values = cast("list[Any]", says["enum"])
    texts = tuple(value for value in values if isinstance(value, str))
    others = [value for value in values if not isinstance(value, str)]
    if len(says) > 1 or not texts or "string" not in kinds or any(v is not None for v in others):
        raise _SaysMoreError
    allowed: Any = Literal[texts]  # pyright: ignore[reportInvalidTypeForm]
    return allowed | None if others and "null" in kinds else allowed


def _of_kind(kind: str, says: Json, *, exactly: bool) -> Any:
    match kind:
        case "object":
            return _object(says, exactly=exactly)
        case "array":
            return _limited(list[_type_of(says["items"], exactly=exactly)], says, "Items")
        case "string":
            return _limited(str, says, "Length")
        case "integer":
            return _integer(says)
        case "number":
            return Decimal if exactly else _integer(says) | _float(says)
        case _:
            return bool if kind == "boolean" else None


def _object(says: Json, *, exactly: bool) -> Any:
    """Its keys stand in any order; one that has no name here is lost, so the texts differ."""
    required = set(says.get("required", ()))
    children = cast("dict[str, Json]", says["properties"])
    kinds = {name: _type_of(child, exactly=exactly) for name, child in children.items()}
    if exactly:
        fields = {n: Required[k] if n in required else NotRequired[k] for n, k in kinds.items()}
        return TypedDict("Answer", fields)  # pyright: ignore[reportGeneralTypeIssues, reportArgumentType]
    names = {f"at_{place}": name for place, name in enumerate(kinds)}
    struct: list[Any] = [
        (field, kinds[name]) if name in required else (field, kinds[name] | UnsetType, UNSET)
        for field, name in names.items()
    ]
    return msgspec.defstruct("Answer", struct, rename=names, kw_only=True, gc=False)


def _limited(kind: Any, says: Json, what: str) -> Any:
    limits = {"min_length": says.get(f"min{what}"), "max_length": says.get(f"max{what}")}
    return Annotated[kind, msgspec.Meta(**{k: v for k, v in limits.items() if v is not None})]


def _integer(says: Json) -> Any:
    least = [math.ceil(says.get("minimum", -_LARGEST))]
    most = [math.floor(says.get("maximum", _LARGEST))]
    if "exclusiveMinimum" in says:
        least.append(math.floor(says["exclusiveMinimum"]) + 1)
    if "exclusiveMaximum" in says:
        most.append(math.ceil(says["exclusiveMaximum"]) - 1)
    return Annotated[int, msgspec.Meta(ge=max(-_LARGEST, *least), le=min(_LARGEST, *most))]


def _float(says: Json) -> Any:
    names = {"minimum": "ge", "maximum": "le", "exclusiveMinimum": "gt", "exclusiveMaximum": "lt"}
    limits: dict[str, Any] = {
        names[key]: float(value) for key, value in says.items() if key in names
    }
    if {"ge", "gt"} <= limits.keys() or {"le", "lt"} <= limits.keys():
        raise _SaysMoreError
    return Annotated[float, msgspec.Meta(**limits)]
