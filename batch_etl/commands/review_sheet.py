"""The review queue as a CSV file for a spreadsheet: written empty, read filled in.

A sheet has the record's columns, why there is no answer, a column for each part of the answer, and
the keys (``_partition``, ``_request_key``, ``_decided_at``), by which a filled line finds its row
again and is refused if that has changed. A text that a spreadsheet would take for a formula is
written with an apostrophe before it, which reading takes away again: records come from strangers.

Reading puts up with what spreadsheets do: a byte order mark, semicolons or tabs for commas, TRUE
for true. A list may be JSON, or its items with semicolons between them.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upath import UPath

from batch_etl import files
from batch_etl.errors import BatchEtlError
from batch_etl.warehouse.columns import Column
from batch_etl.warehouse.types import (
    BIGINT,
    BOOLEAN,
    DOUBLE,
    HUGEINT,
    JSON,
    VARCHAR,
    DuckType,
    ListOf,
    Struct,
)

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Line:
    """One line of a sheet: its cells by column name; an empty cell is not there."""

    number: int
    cells: Mapping[str, str]


def write_sheet(path: Path, names: Sequence[str], rows: Iterable[Sequence[str | None]]) -> int:
    """Write a sheet, whole or not at all; returns its rows."""
    count = 0
    with (
        files.replacing(UPath(path.absolute())) as temporary,
        temporary.open("w", encoding="utf-8-sig", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(names)
        for row in rows:
            writer.writerow([None if cell is None else guarded(cell) for cell in row])
            count += 1
    return count


def guarded(text: str) -> str:
    """The text as a spreadsheet will not run it.

    >>> guarded("=1+1"), guarded("-5"), unguarded(guarded("'=x"))
    ("'=1+1", '-5', "'=x")
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def unguarded(cell: str) -> str:
    """The inverse of :func:`guarded`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def read_sheet(path: Path, names: Sequence[str]) -> Iterator[Line]:
    """The lines of a filled sheet, which must have the columns ``names``.

    Raises BatchEtlError for a file that is no such sheet.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _lines(path, file.read(), names)
    except UnicodeDecodeError as error:
        raise BatchEtlError(
            f"{path} is not UTF-8 ({error.reason} at byte {error.start}): save it as CSV UTF-8."
        ) from None
    except OSError as error:
        raise BatchEtlError(f"{path} cannot be read: {error.strerror or error}.") from None
    except csv.Error as error:
        raise BatchEtlError(f"{path} is not a CSV file: {error}.") from None


def _lines(path: Path, text: str, names: Sequence[str]) -> Iterator[Line]:
    csv.field_size_limit(sys.maxsize)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    header = next(rows, [])
    for name in names:
        if name not in header:
            raise BatchEtlError(
                f"{path} has no column {name!r}; it has {', '.join(header) or 'none'}. Export the "
                "queue again and fill in that file."
            )
    while True:
        number = rows.line_num + 1
        row = next(rows, None)
        if row is None:
            return
        if len(row) > len(header):
            raise BatchEtlError(
                f"{path}, line {number}: {len(row)} cells under {len(header)} columns."
            )
        cells = {name: unguarded(cell) for name, cell in zip(header, row, strict=False)}
        yield Line(number, {name: cell for name, cell in cells.items() if cell.strip()})


def _delimiter(text: str) -> str:
    header = text.partition("\n")[0]
    return max(",;\t", key=header.count)


class Unfit(Exception):
    """A cell that cannot be a value of its column; says why."""


def value_of(cell: str, kind: DuckType) -> Any:
    """A cell as the JSON value that a column of type ``kind`` is filled from; raises ``Unfit``."""
    if kind == VARCHAR:
        return cell
    if isinstance(kind, ListOf | Struct) or kind == JSON:
        return _nested(cell.strip(), kind)
    if kind in (BIGINT, HUGEINT):
        return _whole_number(cell.strip(), kind)
    if kind == DOUBLE:
        return _number(cell.strip())
    return _truth(cell.strip()) if kind == BOOLEAN else cell.strip()


def _nested(text: str, kind: DuckType) -> Any:
    if isinstance(kind, ListOf) and not text.startswith("["):
        return [value_of(item.strip(), kind.item) for item in text.split(";") if item.strip()]
    if kind == JSON and text[0] not in '{["-0123456789' and text not in ("true", "false", "null"):
        return text
    return _json(text)


def _truth(text: str) -> bool:
    if text.casefold() not in _TRUTH:
        raise Unfit(f"{text!r} is neither true nor false")
    return _TRUTH[text.casefold()]


def _whole_number(text: str, kind: DuckType) -> int:
    if not re.fullmatch(r"[+-]?\d+", text):
        raise Unfit(f"{text!r} is not a whole number")
    bits = 63 if kind == BIGINT else 127
    if not -(2**bits) <= int(text) < 2**bits:
        raise Unfit(f"{text} is too large for the column")
    return int(text)


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise Unfit(f"{text!r} is not a number (write 1234.5)")
    return float(text)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Unfit(f"{text[:60]!r} is not JSON: {error}") from None


def answer_of(line: Line, columns: Sequence[Column]) -> tuple[dict[str, Any], list[str]]:
    """The filled parts of an answer by property name, and what is wrong with the others."""
    answer: dict[str, Any] = {}
    problems: list[str] = []
    for column in columns:
        if column.name in line.cells:
            try:
                answer[column.source] = value_of(line.cells[column.name], column.type)
            except Unfit as unfit:
                problems.append(f"{column.name}: {unfit}")
    return answer, problems
