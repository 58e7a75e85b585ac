"""What a case of the fault table came to, and whether it had to.

Two witnesses, neither of them the engine: the emulator's own count (requests received, billed,
billed twice; creates accepted; faults that struck), and the rows in DuckDB: one for each record,
answered, with the answer that belongs to *this* record, at the price of an undisturbed run.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cache
from pathlib import Path

from batch_etl_tests.acceptance.fault_site import RECORDS, Row, Site, site


@dataclass(frozen=True)
class Expected:
    """What must hold at the end; by default what an undisturbed run of 500 records comes to."""

    received: int = RECORDS
    billed: int = RECORDS
    creates: int = 1
    calls: int | None = None
    """Calls of create, where they are not the accepted ones."""
    runs: int = 1
    struck: dict[str, int] = field(default_factory=dict[str, int])
    """How often each fault must have struck (one of lines: at how many creates), so that no case
    passes for lack of its fault.
    """
    same_cost: bool = True
    """Whether the table must cost what an undisturbed run's does."""


@dataclass(frozen=True)
class Measured:
    """What a case came to. ``problems`` are sentences; there is none when all held."""

    records: int = 0
    answered: int = 0
    received: int = 0
    billed: int = 0
    billed_twice: int = 0
    creates: int = 0
    runs: int = 0
    problems: tuple[str, ...] = ()


def judged(place: Site, expected: Expected) -> Measured:
    """What the two witnesses say of a site on which a case has been played."""
    status, rows = place.emulator.status(), place.rows()
    measured = Measured(
        records=len(rows),
        answered=sum(row.state == "answered" for row in rows),
        received=status["requests_received"],
        billed=status["requests_billed"],
        billed_twice=status["requests_billed_twice"],
        creates=status["creates_accepted"],
        runs=place.runs,
    )
    calls = expected.creates if expected.calls is None else expected.calls
    facts = {
        "requests received": (measured.received, expected.received),
        "requests billed": (measured.billed, expected.billed),
        "requests billed twice": (measured.billed_twice, 0),
        "creates accepted": (measured.creates, expected.creates),
        "create calls": (status["http_calls"]["create"], calls),
        "runs": (measured.runs, expected.runs),
        "faults that struck": (status["faults_injected"], expected.struck),
        "batches open": (status["batches"]["in_progress"] + status["batches"]["canceling"], 0),
        "rows": ([row.id for row in rows], sorted(name for name, _ in place.records)),
        "states": ({row.state for row in rows}, {"answered"}),
        "outcomes": ({row.outcome for row in rows}, {"Succeeded"}),
        "answers": ({row.id: row.seal for row in rows}, dict(place.records)),
        "task versions": (len({row.task_version for row in rows}), 1),
    }
    if expected.same_cost:
        facts["dollars"] = (_cost(rows), undisturbed_usd())
    wrong = tuple(_wrong(what, *pair) for what, pair in facts.items() if pair[0] != pair[1])
    return replace(measured, problems=wrong)


def _wrong(what: str, is_: object, must_be: object) -> str:
    return f"{what}: {_short(is_)}, must be {_short(must_be)}"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) < 100 else f"{text[:100]}... ({len(text)} characters)"


def _cost(rows: list[Row]) -> Decimal:
    return sum((row.cost_usd for row in rows), Decimal(0))


@cache
def undisturbed_usd() -> Decimal:
    """What the table costs when nothing goes wrong."""
    with tempfile.TemporaryDirectory() as folder, site(Path(folder)) as place:
        place.run()
        return _cost(place.rows())
