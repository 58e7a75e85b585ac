"""Two variants over the same cases: where they differ, and whether that can be chance.

For right and wrong the test is McNemar's, in its exact form: of the cases in which just one of the
two is right, how surprising is this split if neither were better. The interval of the difference of
the mean scores is a paired bootstrap: cases are drawn, each with both of its scores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from batch_etl.evaluation.cases import Case
from batch_etl.evaluation.metrics import interval, kappa_of, label


@dataclass(frozen=True)
class Comparison:
    """A variant beside the baseline, in one field."""

    field: str
    baseline: str
    variant: str
    cases: int
    """Records that both have."""
    both_correct: int
    only_baseline_correct: int
    only_variant_correct: int
    neither_correct: int
    difference: float
    """Mean score of the variant minus that of the baseline."""
    low: float | None
    high: float | None
    p_value: float
    """Of McNemar's exact test, two-sided; 1 where they are never right apart."""
    agreement: float
    """Share of the records that both answer alike, right or wrong."""
    kappa: float | None
    """Agreement beyond chance; None where both only ever say the same one thing."""


def compare(baseline: Sequence[Case], variant: Sequence[Case]) -> list[Comparison]:
    """One comparison for each field that both variants have; records are matched by id."""
    others = {(case.field, case.record_id): case for case in variant}
    found: list[Comparison] = []
    for field in dict.fromkeys(case.field for case in baseline):
        pairs = [
            (case, others[field, case.record_id])
            for case in baseline
            if case.field == field and (field, case.record_id) in others
        ]
        if pairs:
            found.append(_of(field, pairs))
    return found


def _of(field: str, pairs: Sequence[tuple[Case, Case]]) -> Comparison:
    right = Counter((one.correct, other.correct) for one, other in pairs)
    differences = [other.score - one.score for one, other in pairs]
    low, high = interval(differences) or (None, None)
    labels = Counter((label(one.actual), label(other.actual)) for one, other in pairs)
    return Comparison(
        field=field,
        baseline=pairs[0][0].variant,
        variant=pairs[0][1].variant,
        cases=len(pairs),
        both_correct=right[True, True],
        only_baseline_correct=right[True, False],
        only_variant_correct=right[False, True],
        neither_correct=right[False, False],
        difference=sum(differences) / len(pairs),
        low=low,
        high=high,
        p_value=mcnemar(right[True, False], right[False, True]),
        agreement=_alike(labels.items()) / len(pairs),
        kappa=kappa_of(labels),
    )


def _alike(labels: Iterable[tuple[tuple[str, str], int]]) -> int:
    return sum(count for (one, other), count in labels if one == other)


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p-value of a split of the cases in which one alone is right."""
    apart = only_first + only_second
    if not apart:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(only_first, apart, 0.5).pvalue)
