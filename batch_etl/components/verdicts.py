"""What each check says of a partition: passed or not, one sentence, and the numbers. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from batch_etl.batches.budget import Standing, dollars
from batch_etl.batches.pricing import usd
from batch_etl.batches.tables import BatchRow
from batch_etl.components.drift import Shift

Numbers = Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """One check's verdict on one partition (None: the pipeline has none)."""

    check: str
    partition: str | None
    passed: bool
    sentence: str
    numbers: Numbers = field(default_factory=dict[str, Any])


def row_count(partition: str | None, rows: Mapping[str, int]) -> Verdict:
    """``rows`` by what they are counted in, the records first; all counts must be equal."""
    passed = len(set(rows.values())) <= 1
    counts = ", ".join(f"{count:,} in {place}" for place, count in rows.items())
    sentence = f"{'One row a record' if passed else 'Not one row a record'}: {counts}."
    numbers = {f"{place}_rows": count for place, count in rows.items()}
    return Verdict("row_count", partition, passed, sentence, numbers)


def success_rate(partition: str | None, answered: int, records: int, min_share: float) -> Verdict:
    share = answered / records if records else 1.0
    sentence = (
        f"{answered:,} of {records:,} records answered ({share:.1%}); at least "
        f"{min_share:.1%} is wanted."
        if records
        else "No records."
    )
    numbers = {"answered": answered, "records": records, "share": share, "min_share": min_share}
    return Verdict("success_rate", partition, share >= min_share, sentence, numbers)


def schema_validity(partition: str | None, invalid: int, records: int, max_share: float) -> Verdict:
    share = invalid / records if records else 0.0
    sentence = (
        f"{invalid:,} of {records:,} records have an answer that the schema, or a condition, does "
        f"not allow ({share:.1%}); at most {max_share:.1%} may."
    )
    numbers = {"invalid": invalid, "records": records, "share": share, "max_share": max_share}
    return Verdict("schema_validity", partition, share <= max_share, sentence, numbers)


def review_queue(partition: str | None, review: int, records: int, max_share: float) -> Verdict:
    share = review / records if records else 0.0
    sentence = (
        f"{review:,} of {records:,} records wait in review ({share:.1%}); at most "
        f"{max_share:.1%} may."
    )
    numbers = {"review": review, "records": records, "share": share, "max_share": max_share}
    return Verdict("review_queue", partition, share <= max_share, sentence, numbers)


def cost(partition: str | None, standings: Sequence[Standing], max_share: float) -> Verdict:
    """How much of each budget is committed: spent, or reserved for what is under way."""
    shares = {one.limit.name: _committed(one) / one.limit.pico_usd for one in standings}
    told = [
        f"{dollars(_committed(one))} of {one.limit.name} {dollars(one.limit.pico_usd)} "
        f"({shares[one.limit.name]:.0%})"
        for one in standings
    ]
    unpriced = sum(one.unpriced for one in standings)
    unknown = f" The price of {unpriced} batch(es) is not known." if unpriced else ""
    sentence = f"{', '.join(told)}; at most {max_share:.0%} may be committed.{unknown}"
    numbers: dict[str, Any] = {"max_share": max_share}
    for one in standings:
        numbers[f"{one.limit.name}/limit"] = float(usd(one.limit.pico_usd))
        numbers[f"{one.limit.name}/committed"] = float(usd(_committed(one)))
    passed = not unpriced and all(share <= max_share for share in shares.values())
    return Verdict("cost", partition, passed, sentence, numbers)


def _committed(standing: Standing) -> int:
    return standing.spent_pico_usd + standing.reserved_pico_usd


def completion_time(
    partition: str | None, batches: Sequence[BatchRow], max_hours: float
) -> Verdict:
    """Of the run's whole transform: its batches hold requests of all partitions."""
    hours = latency_hours(batches)
    if hours is None:
        sentence = "No batch was sent: every record was answered before."
        numbers = {"max_hours": max_hours}
        return Verdict(
            "completion_time", partition, passed=True, sentence=sentence, numbers=numbers
        )
    sentence = (
        f"{hours:.2f} hours from the first batch sent to the last one ended "
        f"({len(batches)} batch(es)); at most {max_hours:g} are wanted."
    )
    numbers = {"hours": hours, "max_hours": max_hours, "batches": len(batches)}
    return Verdict("completion_time", partition, hours <= max_hours, sentence, numbers)


def latency_hours(batches: Iterable[BatchRow]) -> float | None:
    """From the first batch's submission to the last one's end; None without a batch."""
    spans = [(b.submitted_at, b.ended_at) for b in batches if b.submitted_at and b.ended_at]
    if not spans:
        return None
    took = max(end for _, end in spans) - min(start for start, _ in spans)
    return max(took, dt.timedelta(0)) / dt.timedelta(hours=1)


def _nearness(worst: Shift, max_distance: float) -> str:
    largest = f"the largest distance is {worst.distance:.3f} ({worst.column})"
    if worst.distance <= max_distance:
        return f"{largest}; at most {max_distance:g} may be."
    return f"{largest}, and so few records reach {worst.by_chance:.3f} by chance."


def label_drift(
    partition: str | None, shifts: Sequence[Shift], earlier: Sequence[str], max_distance: float
) -> Verdict:
    """``earlier`` are the partitions that were compared with."""
    if not shifts:
        sentence = "Nothing to compare: no answered records in this partition or before it."
        limit = {"max_distance": max_distance}
        return Verdict("label_drift", partition, passed=True, sentence=sentence, numbers=limit)
    gone = [one for one in shifts if one.beyond(max_distance)]
    worst = max(shifts, key=lambda one: one.distance)
    against = f"{len(earlier)} partition(s) from {earlier[0]} to {earlier[-1]}"
    if gone:
        names = ", ".join(f"{one.column} {one.distance:.3f}" for one in gone)
        sentence = f"Shares of labels moved away from {against}: {names}; at most {max_distance:g}."
    else:
        sentence = f"Shares of labels are near those of {against}: {_nearness(worst, max_distance)}"
    numbers: dict[str, Any] = {"max_distance": max_distance, "distance": worst.distance}
    for one in shifts:
        numbers[f"{one.column}/distance"] = one.distance
        numbers[f"{one.column}/by_chance"] = one.by_chance
    numbers |= {"records": worst.records, "earlier_records": worst.earlier_records}
    return Verdict("label_drift", partition, not gone, sentence, numbers)
