"""Walk a JSON document of any size and yield the records in it, one at a time.

The values themselves are decoded by ``json``'s C scanner on a window of the text; what is walked
here is only the brackets and keys on the way to the records, and the commas between them. A value
that does not end in the window is tried again with a window twice as large.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

from batch_etl.errors import SourceError
from batch_etl.sources.streams import BLOCK_BYTES

_SPACE = re.compile(r"[ \t\r\n]*")


class Scan:
    """One document, read from a stream of UTF-8 bytes."""

    def __init__(self, stream: Any, name: str) -> None:
        self._stream = stream
        self._name = name
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._json = json.JSONDecoder(parse_constant=_no_constant)
        self._window = ""
        self._at = 0
        self._ended = False
        self._lines = 1

    def records(self, way: list[str]) -> Iterator[dict[str, Any]]:
        """The objects of the array at ``way``; with no way, of the array or the sequence on top."""
        if way:
            yield from self._below(way, way)
        elif self._peek() == "[":
            yield from self._array()
        else:
            while self._peek():
                yield self._record()
        if self._peek():
            raise self._broken("something follows the end of the document")

    def _below(self, way: list[str], whole: list[str]) -> Iterator[dict[str, Any]]:
        if not way:
            if self._peek() != "[":
                raise self._broken(f"what `records_at: {'.'.join(whole)}` names is no list")
            yield from self._array()
            return
        self._take("{")
        keys: list[str] = []
        while self._more("}", first=not keys):
            keys.append(self._key())
            if keys[-1] == way[0]:
                yield from self._below(way[1:], whole)
            else:
                self._value()
        if way[0] not in keys:
            raise SourceError(
                f"{self._name} has nothing at `records_at: {'.'.join(whole)}`: no key {way[0]!r}; "
                f"there are {', '.join(keys[:10]) or 'none'}"
            )

    def _array(self) -> Iterator[dict[str, Any]]:
        self._take("[")
        first = True
        while self._more("]", first=first):
            first = False
            yield self._record()

    def _record(self) -> dict[str, Any]:
        start = self._peek()
        if start != "{":
            raise self._broken(
                "a record must be an object; set `records_at` if the list of records is deeper"
            )
        return self._value()

    def _key(self) -> str:
        if self._peek() != '"':
            raise self._broken("a key was expected")
        key = self._value()
        self._take(":")
        return key

    def _more(self, end: str, first: bool) -> bool:
        """Step over the comma or the end; whether another item follows."""
        if self._peek() == end:
            self._at += 1
            return False
        if not first:
            self._take(",")
        return True

    def _take(self, mark: str) -> None:
        if self._peek() != mark:
            raise self._broken(f"{mark!r} was expected")
        self._at += 1

    def _peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            self._at = _SPACE.match(self._window, self._at).end()  # pyright: ignore[reportOptionalMemberAccess]
            if self._at < len(self._window):
                return self._window[self._at]
            if self._ended:
                return ""
            self._fill(BLOCK_BYTES)

    def _value(self) -> Any:
        size = BLOCK_BYTES
        self._peek()
        while True:
            try:
                value, end = self._json.raw_decode(self._window, self._at)
            except json.JSONDecodeError as error:
                if self._ended or self._is_final(error):
                    self._at = min(error.pos, len(self._window))
                    raise self._broken(error.msg) from error
            else:
                if end < len(self._window) or self._ended:
                    self._at = end
                    return value
            self._fill(size)
            size *= 2

    def _is_final(self, error: json.JSONDecodeError) -> bool:
        """Whether more text cannot mend it: it is well inside the window, and no open string."""
        is_open = error.msg.startswith("Unterminated string")
        return not is_open and error.pos < len(self._window) - 16

    def _fill(self, size: int) -> None:
        block = self._stream.read(size)
        self._ended = not block
        self._lines += self._window.count("\n", 0, self._at)
        self._window = self._window[self._at :] + self._decoder.decode(block, final=not block)
        self._at = 0

    def _broken(self, problem: str) -> SourceError:
        line = self._lines + self._window.count("\n", 0, self._at)
        near = self._window[self._at : self._at + 40]
        where = f"near {near!r}" if near else "where the file ends"
        return SourceError(
            f"{self._name} line {line}: invalid JSON, {problem} ({where}). Correct the file, or "
            "set `format` if it is not JSON"
        )


def _no_constant(name: str) -> None:
    raise json.JSONDecodeError(f"{name} is no JSON value", "", 0)
