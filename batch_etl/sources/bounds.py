"""The named bounds of a query: ``:start`` and ``:end`` of a time window, or ``:partition``.

They are values of the statement, never pasted into its text. A colon within a string, a quoted
name or a comment is text; ``::`` is a cast; one that follows a letter or digit is a slice or a key.
Any other name after a colon is refused: a bound that is misspelt must not become a syntax error of
a database.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime

from batch_etl.sources.source import PartitionSlice
from batch_etl.strict import did_you_mean

NAMES = ("start", "end", "partition")

Bounds = Mapping[str, datetime | str]

_PIECES = re.compile(
    r"""
    (?P<text> '(?:[^']|'')*'
            | "(?:[^"]|"")*"
            | --[^\n]*
            | /\*.*?\*/
            | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$ )
    | (?P<cast> ::+ )
    | (?<![\w:]) : (?P<name>[A-Za-z_]\w*)
    """,
    re.VERBOSE | re.DOTALL,
)


def names_in(query: str) -> frozenset[str]:
    """The bounds that the query names. Raises ValueError for a name that is none."""
    found = {piece["name"] for piece in _PIECES.finditer(query) if piece["name"]}
    for name in sorted(found.difference(NAMES)):
        near = did_you_mean(f":{name}", [f":{one}" for one in NAMES])
        raise ValueError(
            f":{name} is no bound{near} (If it is not meant as one, put a space after the colon)"
        )
    return frozenset(found)


def rewritten(query: str, bound: Callable[[str], str], text: Callable[[str], str] = str) -> str:
    """The query in a driver's own words: ``bound`` of each name, ``text`` of all in quotes."""

    def word(piece: re.Match[str]) -> str:
        return bound(piece["name"]) if piece["name"] else text(piece[0])

    return _PIECES.sub(word, query)


def bounds_of(piece: PartitionSlice) -> Bounds:
    """A partition's values, by name."""
    values = {"partition": piece.key, "start": piece.start, "end": piece.end}
    return {name: value for name, value in values.items() if value is not None}
