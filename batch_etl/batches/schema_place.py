"""A place in a schema or in an answer, and one sentence about what is wrong there. Pure.

Places are JSON pointers (RFC 6901): ``/properties/a~1b/type``; the whole document is ``""``. All
modules of the output schema raise :class:`PlaceError` for what they refuse at load, so that only
:meth:`OutputSchema.load <batch_etl.batches.schema.OutputSchema.load>` has to know the name of the
setting in the user's file. The problems of answers are the same kind of sentence, kept short:
they land in a column of the warehouse, and an answer may quote anything at any length.
"""

from __future__ import annotations

import difflib
from typing import Any

_MAX_PROBLEM_CHARS = 300


class PlaceError(Exception):
    """A refused place of the schema; ``load`` puts the setting's name before it."""

    def __init__(self, pointer: str, message: str) -> None:
        super().__init__(f"at {pointer}: {message}" if pointer else message)


def escape(name: object) -> str:
    """One step of a pointer, as RFC 6901 writes it."""
    return str(name).replace("~", "~0").replace("/", "~1")


def pointer_of(path: list[str | int]) -> str:
    return "".join(f"/{escape(step)}" for step in path)


def below(pointer: str, keyword: str) -> str:
    return f"{pointer}/{escape(keyword)}"


def sentence(pointer: str, message: str) -> str:
    """One problem of an answer, led by its place; what is too long loses its middle."""
    whole = f"{pointer}: {message}" if pointer else message
    if len(whole) <= _MAX_PROBLEM_CHARS:
        return whole
    half = (_MAX_PROBLEM_CHARS - 5) // 2
    return f"{whole[:half]} ... {whole[-half:]}"


def first_line(message: str) -> str:
    return message.partition("\n")[0]


def nearest(name: str, known: Any) -> str:
    """``"; did you mean 'x'?"``, or nothing: the known names are too many to list."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""
