"""An evaluation as Arrow tables: what analysts find in the warehouse as ``<name>_...``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import pyarrow as pa

from batch_etl.evaluation.cases import Case
from batch_etl.evaluation.comparison import Comparison
from batch_etl.evaluation.known_good import KnownGood
from batch_etl.evaluation.metrics import Metric, Pairs


@dataclass(frozen=True)
class MadeTable:
    """A table of the warehouse that is made anew each time, with the words that describe it."""

    rows: pa.Table
    description: str
    columns: Mapping[str, str]


_CASES = {
    "variant": "Variant of the task.",
    "record_id": "The case's record.",
    "field": "Field of the answer.",
    "expected": "The right value, as JSON.",
    "actual": "The value answered, as JSON; NULL where the record is in review.",
    "score": "0 (wrong) to 1 (right).",
    "correct": "Whether the score is high enough.",
    "status": "pass, changed (correct, and not as approved) or fail.",
    "state": "answered or review.",
    "outcome": "What became of the record's last request.",
    "cost_usd": "Price of the answer's tokens in dollars; the same for each of its fields.",
}
_METRICS = {
    "variant": "Variant of the task.",
    "field": "Field of the answer; * for all together.",
    "metric": "What is measured.",
    "value": "The number; NULL where it cannot be measured.",
    "low": "Lower end of the 95% bootstrap interval of a mean.",
    "high": "Upper end of the 95% bootstrap interval of a mean.",
    "cases": "Cases counted.",
}
_CONFUSION = {
    "variant": "Variant of the task.",
    "field": "Field of the answer.",
    "expected": "Right label.",
    "actual": "Label answered; (none) where the record is in review.",
    "cases": "How many.",
}
_COMPARISON = {
    "field": "Field of the answer.",
    "baseline": "The variant that others are compared with.",
    "variant": "The other one.",
    "cases": "Records that both have.",
    "both_correct": "Cases in which both are right.",
    "only_baseline_correct": "Cases in which the baseline alone is right.",
    "only_variant_correct": "Cases in which the other alone is right.",
    "neither_correct": "Cases in which both are wrong.",
    "difference": "Mean score of the variant minus that of the baseline.",
    "low": "Lower end of the difference's 95% interval (paired bootstrap).",
    "high": "Upper end of the difference's 95% interval (paired bootstrap).",
    "p_value": "McNemar's exact test, two-sided.",
    "agreement": "Share of the cases that both answer alike.",
    "kappa": "Agreement beyond chance (Cohen); NULL where there is one label only.",
}


def cases_table(cases: Iterable[Case], approved: KnownGood) -> MadeTable:
    rows = [
        {
            **{name: getattr(case, name) for name in _CASES if name != "status"},
            "expected": _json(case.expected),
            "actual": _json(case.actual),
            "status": approved.status(case),
        }
        for case in cases
    ]
    types = {"score": pa.float64(), "correct": pa.bool_(), "cost_usd": pa.decimal128(18, 12)}
    return _made(rows, _CASES, types, "Each case: what was expected, and what each variant said.")


def metrics_table(metrics: Sequence[Metric]) -> MadeTable:
    types = dict.fromkeys(("value", "low", "high"), pa.float64()) | {"cases": pa.int64()}
    return _made([asdict(one) for one in metrics], _METRICS, types, "How good each variant is.")


def confusion_table(pairs: Mapping[tuple[str, str], Pairs]) -> MadeTable:
    """``pairs`` by variant and field."""
    rows = [
        {"variant": variant, "field": field, "expected": one, "actual": other, "cases": count}
        for (variant, field), counted in pairs.items()
        for (one, other), count in sorted(counted.items())
    ]
    said = "How often each label was answered with each label."
    return _made(rows, _CONFUSION, {"cases": pa.int64()}, said)


def comparison_table(comparisons: Sequence[Comparison]) -> MadeTable:
    types = {field.name: _type_of(str(field.type)) for field in fields(Comparison)}
    said = "Each variant beside the baseline, over the same cases."
    return _made([asdict(one) for one in comparisons], _COMPARISON, types, said)


def _type_of(annotation: str) -> pa.DataType:
    if annotation == "int":
        return pa.int64()
    return pa.string() if annotation == "str" else pa.float64()


def _made(
    rows: Iterable[Mapping[str, Any]],
    columns: Mapping[str, str],
    types: Mapping[str, pa.DataType],
    description: str,
) -> MadeTable:
    schema = pa.schema([(name, types.get(name, pa.string())) for name in columns])
    return MadeTable(pa.Table.from_pylist(list(rows), schema), description, columns)


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)
