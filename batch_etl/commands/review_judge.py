"""Whether the filled lines of a sheet can be applied: each against how its row stands now. Pure.

A line holds if the record stands as it did when it was exported (still in review, or decided as
the sheet shows it) and the answer fits the task's schema. An empty line decides nothing. A line
that was exported as decided and comes back empty withdraws that decision.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batch_etl.batches.schema import OutputSchema
from batch_etl.commands.review_sheet import Line, answer_of
from batch_etl.warehouse import Decision, LoadedTable, Standing
from batch_etl.warehouse.columns import is_object


@dataclass(frozen=True)
class Judged:
    """A sheet's lines, told apart."""

    decisions: list[Decision]
    unchanged: int
    left_open: int
    problems: list[str]


class Sheet:
    """Judges the lines of one table's sheet against how its rows stand."""

    def __init__(self, table: LoadedTable, now: Mapping[tuple[str, str | None], Standing]) -> None:
        self._table = table
        self._now = now
        schema = table.spec.output_schema
        whole = schema is None or not is_object(table.spec)
        self._schema = None if whole else OutputSchema.load(dict(schema or {}), table.name)
        self._required = () if whole else tuple((schema or {}).get("required", ()))

    def judge(self, lines: Sequence[Line]) -> Judged:
        decisions: list[Decision] = []
        problems: list[str] = []
        unchanged = left_open = 0
        seen: dict[tuple[str, str | None], int] = {}
        for line in lines:
            try:
                decision = self._line(line, seen)
            except _Wrong as wrong:
                problems.append(f"line {line.number}{self._named(line)}: {wrong}")
                continue
            if decision is None:
                left_open += 1
            elif decision.answer == decision.on.answer:
                unchanged += 1
            else:
                decisions.append(decision)
        return Judged(decisions, unchanged, left_open, problems)

    def _named(self, line: Line) -> str:
        name = line.cells.get(self._table.id_column.name)
        return f" ({name})" if name else ""

    def _line(self, line: Line, seen: dict[tuple[str, str | None], int]) -> Decision | None:
        answer, problems = answer_of(line, self._table.answer_columns)
        withdraws = not answer and not problems and "_decided_at" in line.cells
        if not answer and not problems and not withdraws:
            return None
        standing = self._standing(line, seen)
        self._check_question(line, standing)
        if withdraws:
            self._check_stamp(line, standing)
            return Decision(standing, None)
        if problems:
            raise _Wrong("; ".join(problems))
        text = self._checked(answer)
        if _same(text, standing, whole=self._schema is None):
            return Decision(standing, standing.answer)
        self._check_stamp(line, standing)
        return Decision(standing, text)

    def _standing(self, line: Line, seen: dict[tuple[str, str | None], int]) -> Standing:
        record = line.cells.get(self._table.id_column.name)
        if record is None:
            raise _Wrong(f"the column {self._table.id_column.name!r} is empty")
        standing = self._now.get((record, line.cells.get("_partition")))
        standing = standing or self._by_question(record, line)
        key = (standing.record_id, standing.partition)
        if key in seen:
            raise _Wrong(f"the record was decided in line {seen[key]} already")
        seen[key] = line.number
        return standing

    def _by_question(self, record: str, line: Line) -> Standing:
        """The record's only row that was asked this; spreadsheets rewrite what looks like a date,
        partition keys too.
        """
        rows = [standing for (name, _), standing in self._now.items() if name == record]
        asked = line.cells.get("_request_key")
        same = [row for row in rows if asked is not None and row.request_key == asked]
        if len(same) == 1:
            return same[0]
        partition = line.cells.get("_partition")
        there = ", ".join(str(row.partition) for row in rows)
        elsewhere = f"; the record is in partition {there}" if rows else ""
        raise _Wrong(f"there is no such record in partition {partition}{elsewhere}")

    def _check_question(self, line: Line, standing: Standing) -> None:
        asked = line.cells.get("_request_key")
        if asked is not None and asked != standing.request_key:
            raise _Wrong("the record or the task has changed since the export; export it again")

    def _check_stamp(self, line: Line, standing: Standing) -> None:
        """Refuse to replace what the sheet's reader did not see."""
        if standing.state == "answered" and standing.decided_by is None:
            raise _Wrong("the model has answered it since the export; delete this line")
        if line.cells.get("_decided_at") == _stamp(standing):
            return
        if standing.decided_by is None:
            raise _Wrong("its decision was withdrawn since the export; export it again")
        raise _Wrong(
            f"{standing.decided_by} decided on it since the export ({_stamp(standing)}); to change "
            "that, export it again with --decided"
        )

    def _checked(self, answer: dict[str, Any]) -> str:
        """The answer as a result would have it; raises ``_Wrong`` if the schema does not allow
        it.
        """
        if self._schema is None:
            return json.dumps(answer["answer"], ensure_ascii=False)
        missing = [name for name in self._required if name not in answer]
        text = json.dumps({**answer, **dict.fromkeys(missing)}, ensure_ascii=False)
        checked = self._schema.check_text(text)
        if checked.output_json is not None:
            return checked.output_json
        raise _Wrong("; ".join(_explained(checked.problems, missing)))


class _Wrong(Exception):
    """Why a line cannot be applied."""


def _stamp(standing: Standing) -> str | None:
    at = standing.decided_at
    return None if at is None else f"{at:%Y%m%dT%H%M%S%fZ}"


def _same(text: str, standing: Standing, *, whole: bool) -> bool:
    """Whether a person has given this very answer already."""
    if standing.decided_by is None:
        return False
    given, shown = json.loads(text), json.loads(standing.answer)
    if whole:
        return given == shown["answer"]
    return _filled(given) == _filled(shown)


def _filled(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if value is not None}


def _explained(problems: Sequence[str], missing: Sequence[str]) -> Iterator[str]:
    """The schema's problems; of a part left empty only that it is."""
    empty = {f"/{name.replace('~', '~0').replace('/', '~1')}": name for name in missing}
    told: set[str] = set()
    for problem in problems:
        name = empty.get(problem.partition(": ")[0])
        if name is None:
            yield problem.removeprefix("/")
        elif name not in told:
            told.add(name)
            yield f"{name} is empty, and an answer needs it"
