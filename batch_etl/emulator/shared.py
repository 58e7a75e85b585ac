"""What the lines of a batch share is decoded and judged once. Pure, but for its caches.

A batch repeats its system prompt, tools and output schema in every line. ``decode_params`` gives
equal parts as the same object, and functions under ``once`` remember what they made of an object
by its identity. Such objects are never changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, TypeVar

import msgspec

SHARED = frozenset(("system", "tools", "output_config", "thinking", "tool_choice", "metadata"))
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_value = msgspec.json.Decoder().decode
Function = TypeVar("Function", bound=Callable[..., Any])


def decode_params(raw: bytes) -> Any:
    """The decoded params. Raises msgspec.DecodeError."""
    try:
        members = _members(raw)
    except msgspec.ValidationError:
        return _value(raw)
    return {
        name: _decode_shared(bytes(part)) if name in SHARED else _value(part)
        for name, part in members.items()
    }


@lru_cache(maxsize=512)
def _decode_shared(part: bytes) -> Any:
    return _value(part)


def once(function: Function) -> Function:
    """Remember results by the identity of the first argument and the values of the others."""
    known: dict[tuple[Any, ...], tuple[Any, Any]] = {}

    @wraps(function)
    def remembered(first: Any, *others: Any) -> Any:
        key = (id(first), *others)
        found = known.get(key)
        if found is None or found[0] is not first:
            if len(known) > 2_000:
                known.clear()
            found = known[key] = (first, function(first, *others))
        return found[1]

    return remembered  # type: ignore[return-value]


def canonical(params: Any) -> bytes:
    """JSON that is equal for equal params, whatever the order of members and the spaces between
    them.

    Raises what msgspec raises for values that it cannot encode (integers beyond 64 bits).
    """
    if not isinstance(params, dict):
        return msgspec.json.encode(params, order="sorted")
    parts = [
        b'"%b":%b'
        % (name.encode(), _canonical_shared(part) if name in SHARED else _canonical(part))
        for name, part in sorted(params.items())
    ]
    return b"{%b}" % b",".join(parts)


def _canonical(part: Any) -> bytes:
    return msgspec.json.encode(part, order="sorted")


_canonical_shared = once(_canonical)


def digest16(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
