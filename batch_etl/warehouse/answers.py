"""From the JSON text of an answer to typed values, and what of it the types cannot hold.

Types come from the task's schema, against which answers were validated, so they fit. Yet an
integer may exceed 64 bits, a date-time may be legal in RFC 3339 and not in DuckDB
(``23:59:60Z``), and results of an older schema may be loaded under a newer one. One such value
must not keep a million paid answers out of their table, and must not vanish: its column is NULL,
its path is in ``_misfits``, the whole answer is in ``_text``, and the load's report counts it.

Fast path: a strict cast, which fails on a type, an unknown key or a missing key; where the schema
has optional properties, of each property apart, so that a missing one is no failure. Only answers
that fail it are doubtful: they are looked at one by one in Python (``misfits``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import duckdb

from batch_etl.warehouse.columns import Column, TableSpec, is_complete, is_object
from batch_etl.warehouse.sql import comma, literal
from batch_etl.warehouse.types import VARCHAR, Struct

_ROWS_PER_BATCH = 10_000
_VALUE_SHOWN = 200

_SAYS_SOMETHING = "output IS NOT NULL AND output <> 'null'"


@dataclass(frozen=True)
class Misfit:
    """One part of one answer that its column cannot hold."""

    record_id: str
    path: str
    value: str

    def __str__(self) -> str:
        return f"record {self.record_id!r}: {self.path} = {self.value}"


@dataclass(frozen=True)
class Answers:
    """How to read a results file's ``output`` into the table's answer columns."""

    whole: bool
    free_text: bool
    complete: bool
    columns: tuple[Column, ...]

    @classmethod
    def of(cls, spec: TableSpec, columns: Sequence[Column]) -> Answers:
        """``columns`` have the table's own types, which may be wider than the schema's."""
        answer = tuple(column for column in columns if column.role == "answer")
        return cls(not is_object(spec), spec.output_schema is None, is_complete(spec), answer)

    def _apart(self) -> tuple[Column, ...]:
        """Columns whose property's name equals an earlier one's but for case: not STRUCT fields."""
        seen: set[str] = set()
        later: list[Column] = []
        for column in self.columns:
            (later.append(column) if column.source.casefold() in seen else None)
            seen.add(column.source.casefold())
        return tuple(later)

    @property
    def _type(self) -> str:
        if self.whole:
            return self.columns[0].type.sql
        apart = self._apart()
        return Struct(
            tuple((column.source, column.type) for column in self.columns if column not in apart)
        ).sql

    @property
    def parsed(self) -> str:
        """SQL: ``output`` as one typed value; a part that does not fit is NULL."""
        if self.free_text:
            return "output"
        return f"TRY_CAST(TRY_CAST(output AS JSON) AS {self._type})"

    def value(self, column: Column) -> str:
        """SQL: one column out of ``p.answer`` (``parsed``) or, where it must, out of
        ``p.output``.
        """
        if self.free_text:
            return "TRY_CAST(p.answer AS JSON) ->> '$'"
        if self.whole:
            return "p.answer"
        if column in self._apart():
            text = f"TRY_CAST(p.output AS JSON), {_pointer(column)}"
            if column.type == VARCHAR:
                return f"json_extract_string({text})"
            return f"TRY_CAST(json_extract({text}) AS {column.type.sql})"
        return f"struct_extract(p.answer, {literal(column.source)})"

    def read(self, results: str) -> str:
        """SQL: the rows of ``results`` with their ``answer`` (``parsed``), and whether it is
        ``doubtful``: may hold more than its columns, which all others surely do not.
        """
        if self.free_text:
            return f"(SELECT *, {self.parsed} AS answer, false AS doubtful FROM {results})"
        if self.whole or (self.complete and not self._apart()):
            return (
                f"(SELECT *, coalesce(strict, {self.parsed}) AS answer, "
                f"{_SAYS_SOMETHING} AND strict IS NULL AS doubtful FROM "
                f"(SELECT *, TRY(CAST(output AS JSON)::{self._type}) AS strict FROM {results}))"
            )
        pointers = comma([_pointer(column) for column in self.columns])
        casts = [f"CAST(parts[{n}] AS {c.type.sql})" for n, c in enumerate(self.columns, 1)]
        return (
            f"(SELECT *, {self.parsed} AS answer, {_SAYS_SOMETHING} AND "
            f"(TRY(row({comma(casts)})) IS NULL OR len(json_keys(TRY_CAST(output AS JSON))) > "
            "len(list_filter(parts, lambda part: part IS NOT NULL)) OR parts IS NULL) AS doubtful "
            f"FROM (SELECT *, json_extract(TRY_CAST(output AS JSON), [{pointers}]) AS parts "
            f"FROM {results}))"
        )

    def looked_at(
        self, connection: duckdb.DuckDBPyConnection, results: str
    ) -> Iterator[tuple[int, str, list[Misfit]]]:
        """(record_row, output, what its columns do not hold of it) for each row of ``results``."""
        held = comma([f"to_json({self.value(column)})" for column in self.columns])
        found = connection.sql(
            f"SELECT p.record_row, p.record_id, p.output, [{held}]::VARCHAR[] "
            f"FROM (SELECT record_row, record_id, output, {self.parsed} AS answer "
            f"FROM {results}) p"
        )
        for batch in found.to_arrow_reader(_ROWS_PER_BATCH):
            for row, record_id, output, parts in zip(
                *(c.to_pylist() for c in batch.columns), strict=True
            ):
                misfits = [
                    Misfit(record_id, path, _shown(value))
                    for path, value in self._unheld(output, parts)
                ]
                yield row, output, misfits

    def _unheld(self, output: str, parts: list[str | None]) -> Iterator[tuple[str, Any]]:
        try:
            answer = json.loads(output)
        except ValueError:
            yield "$", output
            return
        held = [None if part is None else json.loads(part) for part in parts]
        if self.whole:
            yield from unheld(answer, held[0])
        else:
            pairs = zip(self.columns, held, strict=True)
            yield from unheld(answer, {column.source: part for column, part in pairs})


def _pointer(column: Column) -> str:
    return literal("/" + column.source.replace("~", "~0").replace("/", "~1"))


def unheld(answer: Any, held: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of what is in ``answer`` and not in ``held``; NULL holds null.

    >>> list(unheld({"a": 1, "b": [{"c": "soon"}]}, {"a": 1, "b": [{"c": None}]}))
    [('b[0].c', 'soon')]
    """
    if answer is None:
        return
    if held is None or (isinstance(held, dict | list) and type(answer) is not type(held)):
        yield path or "$", answer
    elif isinstance(answer, dict) and isinstance(held, dict):
        theirs = cast("dict[str, Any]", held)
        for key, value in cast("dict[str, Any]", answer).items():
            yield from unheld(value, theirs.get(key), f"{path}.{key}" if path else key)
    elif isinstance(answer, list) and isinstance(held, list):
        pairs = zip(cast("list[Any]", answer), cast("list[Any]", held), strict=False)
        for number, (value, kept) in enumerate(pairs):
            yield from unheld(value, kept, f"{path}[{number}]")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _VALUE_SHOWN else f"{text[:_VALUE_SHOWN]}..."
