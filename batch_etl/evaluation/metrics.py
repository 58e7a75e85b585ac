"""Scores and labels -> metrics.

Everything is counted first: distinct scores, distinct pairs of labels. The metric functions of
scikit-learn take such counts as weights and give what they would give for the long lists.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from batch_etl.errors import ConfigError
from batch_etl.evaluation.cases import Case

ALL_FIELDS = "*"
"""Stands for all fields together: a record is correct if each of its fields is."""

NO_ANSWER = "(none)"
"""The label of a record without an answer."""

_SHOWN = ("cases", "accuracy", "score", "f1_macro", "kappa", "cost_usd", "cost_usd_per_correct")

_RESAMPLES = 2_000
_SEED = 20_261_123
_INTERVAL = (2.5, 97.5)

Pairs = Mapping[tuple[str, str], int]
"""How many cases have this expected and this given label."""


@dataclass(frozen=True)
class Metric:
    """One number about one variant; an interval where there is one."""

    variant: str
    field: str
    metric: str
    value: float | None
    cases: int
    low: float | None = None
    high: float | None = None


def label(value: Any) -> str:
    """A value as a label: text as it is, anything else as JSON."""
    if value is None:
        return NO_ANSWER
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def confusion(cases: Iterable[Case]) -> Pairs:
    """How often each expected label was answered with each label."""
    return Counter((label(case.expected), label(case.actual)) for case in cases)


def measure(variant: str, cases: Sequence[Case], labelled: Iterable[str] = ()) -> list[Metric]:
    """The metrics of one variant's cases: by field, and of all fields together.

    ``labelled`` are the fields whose values are labels: they get F1, precision, recall and kappa.
    """
    found: list[Metric] = []
    labels = set(labelled)
    for field in dict.fromkeys(case.field for case in cases):
        mine = [case for case in cases if case.field == field]
        found.append(_mean(variant, field, "score", [case.score for case in mine]))
        found.append(_mean(variant, field, "accuracy", [case.correct for case in mine]))
        if field in labels:
            found += _of_labels(variant, field, confusion(mine), len(mine))
    return found + _of_records(variant, cases)


def sheet(metrics: Iterable[Metric]) -> list[list[str]]:
    """The metrics as people read them: a head, then a row for each variant and field."""
    shown: dict[tuple[str, str], dict[str, str]] = {}
    for metric in metrics:
        row = shown.setdefault((metric.variant, metric.field), {})
        row[metric.metric] = _number(metric)
        row["cases"] = str(metric.cases)
    rows = [
        [variant, field, *(row.get(name, "") for name in _SHOWN)]
        for (variant, field), row in shown.items()
    ]
    return [["variant", "field", *_SHOWN], *rows]


def _number(metric: Metric) -> str:
    if metric.value is None:
        return ""
    if metric.low is None or metric.high is None:
        return f"{metric.value:.4g}"
    return f"{metric.value:.3f} ({metric.low:.3f} to {metric.high:.3f})"


def interval(values: Sequence[float] | Sequence[bool]) -> tuple[float, float] | None:
    """95% bootstrap interval of the mean; None below two values.

    Resampling n values is a draw of n from the distinct ones with their frequencies.
    """
    if len(values) < 2:
        return None
    distinct, counts = np.unique(np.asarray(values, dtype=float), return_counts=True)
    random = np.random.default_rng(_SEED)
    drawn = random.multinomial(len(values), counts / len(values), size=_RESAMPLES)
    low, high = np.percentile(drawn @ distinct / len(values), _INTERVAL)
    return float(low), float(high)


def _mean(variant: str, field: str, name: str, values: Sequence[float] | Sequence[bool]) -> Metric:
    if not values:
        return Metric(variant, field, name, None, 0)
    low, high = interval(values) or (None, None)
    mean = float(np.mean(np.asarray(values, dtype=float)))
    return Metric(variant, field, name, mean, len(values), low, high)


def _of_labels(variant: str, field: str, pairs: Pairs, cases: int) -> list[Metric]:
    learn = learned()
    expected, given, weights = weighted(pairs)
    known = sorted({*expected})
    options: dict[str, Any] = {
        "labels": known,
        "average": "macro",
        "sample_weight": weights,
        "zero_division": 0,
    }
    precision, recall, f1, _ = learn.precision_recall_fscore_support(expected, given, **options)
    kappa = kappa_of(pairs)
    numbers = {"precision_macro": precision, "recall_macro": recall, "f1_macro": f1, "kappa": kappa}
    return [
        Metric(variant, field, name, None if value is None else float(value), cases)
        for name, value in numbers.items()
    ]


def kappa_of(pairs: Pairs) -> float | None:
    """Cohen's kappa; None where both sides only ever say the same one label: 0 / 0."""
    first, second, weights = weighted(pairs)
    if len({*first, *second}) < 2:
        return None
    return float(learned().cohen_kappa_score(first, second, sample_weight=weights))


def weighted(pairs: Pairs) -> tuple[list[str], list[str], list[int]]:
    """The distinct pairs as three columns, as scikit-learn wants them."""
    return [one for one, _ in pairs], [other for _, other in pairs], list(pairs.values())


def _of_records(variant: str, cases: Sequence[Case]) -> list[Metric]:
    """What is counted once a record: all fields correct, answered, and the cost."""
    correct: dict[str, bool] = {}
    answered: dict[str, bool] = {}
    costs: dict[str, Decimal | None] = {}
    for case in cases:
        correct[case.record_id] = correct.get(case.record_id, True) and case.correct
        answered[case.record_id] = case.state == "answered"
        costs[case.record_id] = case.cost_usd
    records = len(correct)
    cost = _total(costs.values())
    right = sum(correct.values())
    each = None if cost is None or not right else float(cost / right)
    return [
        _mean(variant, ALL_FIELDS, "accuracy", list(correct.values())),
        _mean(variant, ALL_FIELDS, "answered", list(answered.values())),
        Metric(variant, ALL_FIELDS, "cost_usd", None if cost is None else float(cost), records),
        Metric(variant, ALL_FIELDS, "cost_usd_per_correct", each, records),
    ]


def _total(costs: Iterable[Decimal | None]) -> Decimal | None:
    total = Decimal(0)
    for cost in costs:
        if cost is None:
            return None
        total += cost
    return total


def learned() -> Any:
    """``sklearn.metrics``. Raises ``ConfigError`` where the extra is not installed."""
    try:
        import sklearn.metrics
    except ImportError:
        raise ConfigError(
            "evaluations need scikit-learn, which is not installed: "
            "pip install 'batch-etl[evaluation]'"
        ) from None
    return sklearn.metrics
