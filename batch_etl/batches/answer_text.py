"""An answer's text becomes JSON, or a sentence that says why not. Pure; no schema is known here.

The rules, in order:

1. The whole text is one JSON value (white space and a byte order mark around it do not count).
2. Exactly one fenced block (three backticks, any language) holds one JSON value.
3. Exactly one outermost ``{...}`` in the prose is a JSON object.

``NaN``, ``Infinity``, comments, trailing commas, numbers beyond a double and half surrogates are
not JSON. An object that names a key twice is refused, because readers differ on which one counts:
no Python object shows it, so the compact text is compared with the value written anew (once more
with exact decimals: ``1.10``), and only where they differ (``1e5``, escapes) is the text read again
key by key.

The compact text handed on is the model's own without the white space between tokens: numbers and
escapes stay as written (``1.10`` stays ``1.10``). Time is linear in the text, whatever its braces.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec

from batch_etl.batches.schema_place import sentence

_MAX_UNCLOSED_BRACES = 4

decode = msgspec.json.Decoder().decode
encode = msgspec.json.Encoder().encode
decode_exactly = msgspec.json.Decoder(float_hook=Decimal).decode
encode_exactly = msgspec.json.Encoder(decimal_format="number").encode
NOT_JSON = (msgspec.MsgspecError, ValueError, RecursionError)

_FENCE = re.compile(r"```[^\n`]*\n(.*?)```", re.DOTALL)
_TOKEN_IN_OBJECT = re.compile(r'"(?:[^"\\]|\\.)*"|[{}]', re.DOTALL)


class Found(msgspec.Struct, frozen=True):
    """The one JSON value of a text; ``extracted`` says that other text was around it."""

    value: Any
    compact: str
    extracted: bool = False


def find_json(text: str) -> Found | str:
    """The one JSON value of the text, or a sentence that says why there is none."""
    whole = text.strip().strip("\ufeff").strip()
    if not whole:
        return "the answer is empty"
    try:
        return _parsed(whole, extracted=False)
    except _RepeatedKeyError as repeated:
        return str(repeated)
    except NOT_JSON as error:
        return _extract(whole) or sentence("", f"the answer is not JSON: {error}")


def _extract(text: str) -> Found | str | None:
    for candidates in (_FENCE.findall(text), list(_outermost_objects(text))):
        try:
            found = [value for value in map(_parsed_or_none, candidates) if value is not None]
        except _RepeatedKeyError as repeated:
            return str(repeated)
        if len(found) > 1:
            return f"the answer holds {len(found)} JSON values where one was asked for"
        if found:
            return found[0]
    return None


def _parsed_or_none(text: str) -> Found | None:
    try:
        return _parsed(text, extracted=True)
    except _RepeatedKeyError:
        raise
    except NOT_JSON:
        return None


def written_so(value: Any, text: str, compact: str) -> bool:
    """Whether writing the text's value anew gives its compact form: then no key stands twice.

    Where it does not, nothing is proved: numbers and letters may be written in several ways.
    """
    wanted = compact.encode()
    return encode(value) == wanted or encode_exactly(decode_exactly(text)) == wanted


def _parsed(text: str, *, extracted: bool) -> Found:
    value = decode(text)
    compact = msgspec.json.format(text, indent=-1)
    if not written_so(value, text, compact):
        json.loads(text, object_pairs_hook=_refuse_repeated, parse_int=str)
    return Found(value, compact, extracted)


class _RepeatedKeyError(ValueError):
    """An object names a key twice."""


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise _RepeatedKeyError(
                sentence("", f"an object names the key {json.dumps(key)} twice")
            )
        seen.add(key)


def _outermost_objects(text: str) -> Iterator[str]:
    """Each balanced ``{...}`` that is in no other; braces in strings do not count. Linear time."""
    start, unclosed = text.find("{"), 0
    while start >= 0 and unclosed < _MAX_UNCLOSED_BRACES:
        end = _closing_brace(text, start)
        if end < 0:
            unclosed += 1
            end = start + 1
        else:
            yield text[start:end]
        start = text.find("{", end)


def _closing_brace(text: str, start: int) -> int:
    depth = 0
    for token in _TOKEN_IN_OBJECT.finditer(text, start):
        if token[0] == "{":
            depth += 1
        elif token[0] == "}":
            depth -= 1
            if depth == 0:
                return token.end()
    return -1
