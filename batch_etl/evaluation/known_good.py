"""Answers that a person has approved, kept in the repository beside the YAML.

JSON Lines, one record a line: its id and the approved value of each scored field::

    {"record_id": "p-17", "verdict": "safe"}

Written by ``batch-etl evaluate NAME --approve`` and reviewed like code. A later answer that is
correct and equal is ``pass``, correct and other ``changed``, and wrong is ``fail``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from upath import UPath

from batch_etl.errors import ConfigError
from batch_etl.evaluation.cases import Case
from batch_etl.files import replacing

Status = Literal["pass", "changed", "fail"]

_ID = "record_id"


@dataclass(frozen=True)
class KnownGood:
    """Approved values by record and field; a record that is not in it has none."""

    answers: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])

    @classmethod
    def read(cls, path: Path) -> KnownGood:
        """Raises ``ConfigError`` with the line for what is no such file."""
        answers: dict[str, dict[str, Any]] = {}
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    record_id, values = _line(path, number, line)
                    answers[record_id] = values
        return cls(answers)

    @classmethod
    def of(cls, cases: Iterable[Case]) -> KnownGood:
        """What is correct now. Wrong answers are not approved."""
        answers: dict[str, dict[str, Any]] = {}
        for case in cases:
            if case.correct:
                answers.setdefault(case.record_id, {})[case.field] = case.actual
        return cls(answers)

    def write(self, path: Path) -> None:
        """Replace the file, whole or not at all; sorted, so that a change reads well as a diff."""
        with (
            replacing(UPath(path)) as temporary,
            temporary.open("w", encoding="utf-8") as file,
        ):
            for record_id in sorted(self.answers):
                line = {_ID: record_id, **self.answers[record_id]}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def status(self, case: Case) -> Status:
        if not case.correct:
            return "fail"
        approved = self.answers.get(case.record_id, {})
        known = case.field in approved
        return "changed" if known and approved[case.field] != case.actual else "pass"


def _line(path: Path, number: int, line: str) -> tuple[str, dict[str, Any]]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{path}, line {number}: no JSON ({error})") from None
    members = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    if _ID not in members:
        raise ConfigError(f"{path}, line {number}: an object with {_ID!r} is expected")
    return str(members.pop(_ID)), members
