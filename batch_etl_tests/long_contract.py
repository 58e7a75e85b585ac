"""The contract of 300 kB among the samples of ``contract_analysis``: written by clause templates.

    python -m batch_etl_tests.long_contract     writes batch_etl/defs/contract_analysis/records/

A framework agreement with a schedule for each of many depots, most of them alike, as such papers
are. What matters stands once, far inside: depot 151 has a liability without limit, and depot 187
renews for five years by itself. Nothing here is drawn at random, so the file is always the same.
"""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path

import batch_etl

FILE = (
    Path(batch_etl.__file__).parent
    / "defs"
    / "contract_analysis"
    / "records"
    / "long-contract.jsonl"
)
SIZE_CHARS = 300_000
"""The text ends with the first schedule after so many characters."""

PLACES = (
    "Ashwick", "Börnsen", "Calder", "Dunmore", "Évran", "Fossgate", "Gallow Hill", "Hesling",
    "Inverlay", "Jarnac", "Kelmscot", "Luarca", "Marnham", "Nørre Vang", "Ostrel", "Penruddy",
)  # fmt: skip
GOODS = ("crates", "pallets", "cartons", "drums", "rolls", "racks", "trolleys")

HEAD = """\
FRAMEWORK AGREEMENT ON STORAGE AND HANDLING

between Lindenholt Trading Ltd (the "Principal") and Northmoor Depots plc (the "Operator").

1. Services. The Operator stores and handles the Principal's goods at the depots of the schedules.
2. Payment. Invoices are payable within 30 days of receipt. Interest on late payment is 4 percent.
3. Confidentiality. Each party keeps the other's confidential information secret for five years.
4. Governing law. This agreement is governed by the laws of Scotland; the courts of Edinburgh decide.
5. Schedules. Where a schedule differs from this agreement, the schedule prevails for its depot.

"""  # noqa: E501  a contract's lines are as long as its clauses

SCHEDULE = """\
SCHEDULE {number}: DEPOT {place} {number}

{number}.1 The Operator keeps {area} square metres free for {goods}, dry and between {low} and {high} degrees.
{number}.2 The fee for storage is EUR {fee}.{cents:02} for each of the {goods} and week, counted every Friday.
{number}.3 Goods are received from {opens} to {closes} hours; the Principal announces them {notice} hours ahead.
{number}.4 Stock is counted {counts} times a year; a difference of up to {loss} in a thousand is nobody's fault.
{number}.5 Either party may end this schedule with {months} months' notice to the end of a quarter.
{number}.6 The Operator answers for damage to the {goods} up to EUR {limit},000 for each event.
{own}
"""  # noqa: E501

OWN = {
    151: "151.7 Unlimited liability: for depot 151 the Principal is liable without limit for all "
    "damage, indirect and consequential loss and loss of profits of the Operator.\n",
    187: "187.7 Automatic renewal: this schedule automatically renews for successive terms of five "
    "years unless notice of non-renewal is given 180 days before the end of the term.\n",
}


def text() -> str:
    parts = [HEAD]
    size = len(HEAD)
    for number in count(1):
        if size >= SIZE_CHARS:
            break
        parts.append(schedule(number))
        size += len(parts[-1])
    return "".join(parts)


def schedule(number: int) -> str:
    """Its figures follow from its number, by steps that do not soon come round together."""
    return SCHEDULE.format(
        number=number,
        place=PLACES[number % len(PLACES)],
        goods=GOODS[number % len(GOODS)],
        area=200 + number * 37 % 900,
        low=2 + number % 9,
        high=14 + number % 11,
        fee=1 + number % 4,
        cents=number * 19 % 100,
        opens=5 + number % 4,
        closes=15 + number % 7,
        notice=12 * (1 + number % 5),
        counts=1 + number % 4,
        loss=1 + number % 6,
        months=3 * (1 + number % 3),
        limit=25 * (1 + number % 8),
        own=OWN.get(number, ""),
    )


def line() -> str:
    """The file's one line."""
    record = {
        "contract_id": "c-012",
        "kind": "framework",
        "counterparty": "Northmoor Depots plc",
        "language": "en",
        "signed_on": "2023-12-01",
        "text": text(),
    }
    return json.dumps(record, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(line(), encoding="utf-8")
