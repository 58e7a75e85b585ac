"""How far apart two distributions of labels are. Pure.

The Jensen-Shannon distance (base 2): 0 for equal shares, 1 for labels of which none is in both. It
is symmetric and finite when a label is new or gone, where a population stability index is not. It
is the square root of the divergence, so 0.1 is a shift that few would see in a bar chart, 0.2 one
that everybody does.

Small samples differ by chance: with equal shares the divergence of n and m draws of k labels is
about chi-square (k - 1 degrees of freedom) times (1/n + 1/m) / (8 ln 2). What one sample in a
thousand exceeds by chance alone is ``by_chance``; a distance below it says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

Counts = Mapping[str, int]
"""How many records have each label."""

_ONE_IN_A_THOUSAND = 3.0902
"""The standard normal's quantile."""


@dataclass(frozen=True)
class Shift:
    """One column's labels against earlier ones."""

    column: str
    distance: float
    """Jensen-Shannon, 0 to 1."""
    by_chance: float
    """The distance that so few records reach by chance once in a thousand times."""
    records: int
    earlier_records: int

    def beyond(self, limit: float) -> bool:
        """Whether the shift is larger than ``limit``, and than chance."""
        return self.distance > max(limit, self.by_chance)


def shift(column: str, now: Counts, earlier: Counts) -> Shift | None:
    """How far ``now`` is from ``earlier``; None where one of them is empty."""
    n, m = sum(now.values()), sum(earlier.values())
    if not n or not m:
        return None
    labels = {label for counts in (now, earlier) for label, count in counts.items() if count}
    return Shift(column, distance(now, earlier), by_chance(len(labels), n, m), n, m)


def distance(one: Counts, other: Counts) -> float:
    """The Jensen-Shannon distance of two counts, neither of them empty."""
    n, m = sum(one.values()), sum(other.values())
    divergence = 0.0
    for label in {*one, *other}:
        p, q = one.get(label, 0) / n, other.get(label, 0) / m
        middle = (p + q) / 2
        divergence += sum(share * math.log2(share / middle) / 2 for share in (p, q) if share)
    return math.sqrt(max(0.0, divergence))


def by_chance(labels: int, n: int, m: int) -> float:
    """The distance that one in a thousand pairs of samples of the same shares exceeds."""
    freedom = labels - 1
    if freedom < 1:
        return 0.0
    spread = 2 / (9 * freedom)  # Wilson and Hilferty's approximation of the chi-square quantile
    quantile = freedom * (1 - spread + _ONE_IN_A_THOUSAND * math.sqrt(spread)) ** 3
    return min(1.0, math.sqrt(quantile * (1 / n + 1 / m) / (8 * math.log(2))))
