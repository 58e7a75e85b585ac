"""What must hold of an evaluation, and whether it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import pydantic

from batch_etl.evaluation.comparison import Comparison
from batch_etl.evaluation.metrics import ALL_FIELDS, Metric
from batch_etl.strict import Strict

MetricName = Literal[
    "accuracy", "score", "f1_macro", "precision_macro", "recall_macro", "kappa", "answered"
]


class Gate(Strict):
    """One line that a variant must not fall below."""

    variant: str | None = pydantic.Field(
        default=None, description="Which variant is judged; by default the one in `use`."
    )
    field: str = pydantic.Field(
        default=ALL_FIELDS,
        description="Which field; by default all of them together: a record is correct if each "
        "of its fields is. `accuracy` and `answered` are what there is then.",
    )
    metric: MetricName = pydantic.Field(default="accuracy", description="What is measured.")
    at_least: float | None = pydantic.Field(default=None, description="The least value.")
    not_below: str | None = pydantic.Field(
        default=None, description="A variant whose value must be reached."
    )
    margin: Annotated[float, pydantic.Field(ge=0)] = pydantic.Field(
        default=0.0, description="Of `not_below`: how far below is still good."
    )
    significance: Annotated[float, pydantic.Field(gt=0, lt=1)] | None = pydantic.Field(
        default=None,
        description="Of `not_below`: fail only where McNemar's p is below this, that is where "
        "the loss is hardly chance. Needs a `field`.",
    )
    severity: Literal["warn", "error"] = pydantic.Field(
        default="error", description="Of a failed gate; an error fails `batch-etl evaluate`."
    )

    @pydantic.model_validator(mode="after")
    def _asks_for_something(self) -> Gate:
        if (self.at_least is None) == (self.not_below is None):
            raise ValueError("give either at_least or not_below")
        if self.at_least is not None and (self.margin or self.significance):
            raise ValueError("margin and significance belong to not_below")
        if self.significance is not None and self.field == ALL_FIELDS:
            raise ValueError("significance needs a `field`")
        if self.field == ALL_FIELDS and self.metric not in ("accuracy", "answered"):
            raise ValueError(f"{self.metric} is measured by field: name one in `field`")
        if self.field != ALL_FIELDS and self.metric == "answered":
            raise ValueError("answered is measured once a record: leave `field` out")
        return self

    def check_name(self, variant: str) -> str:
        """Unique among the gates that ask different things; a name as Dagster takes it."""
        place = "" if self.field == ALL_FIELDS else f"_{self.field.replace('.', '_')}"
        asked = f"_not_below_{self.not_below}" if self.not_below else ""
        return f"{self.metric}{place}_of_{variant}{asked}"


@dataclass(frozen=True)
class Ruling:
    """Whether a gate holds, in one sentence."""

    gate: Gate
    variant: str
    passed: bool
    sentence: str
    value: float | None


def rule(
    gate: Gate, variant: str, metrics: Sequence[Metric], comparisons: Sequence[Comparison]
) -> Ruling:
    """Judge one gate. What was not measured (no cases) does not pass."""
    value = _value(metrics, variant, gate)
    what = gate.metric if gate.field == ALL_FIELDS else f"{gate.metric} of {gate.field}"
    if value is None:
        said = f"{variant}: {what} could not be measured."
        return Ruling(gate, variant, passed=False, sentence=said, value=None)
    if gate.at_least is not None:
        said = f"{variant}: {what} is {value:.4g}; at least {gate.at_least:.4g} is wanted."
        return Ruling(gate, variant, value >= gate.at_least, said, value)
    other = gate.not_below or ""
    bound = _value(metrics, other, gate)
    if bound is None:
        said = f"{other}: {what} could not be measured."
        return Ruling(gate, variant, passed=False, sentence=said, value=value)
    passed = value >= bound - gate.margin
    said = f"{variant}: {what} is {value:.4g}; {other} has {bound:.4g}"
    if gate.significance is not None:
        p_value = _p_value(comparisons, gate.field, other, variant)
        said += f", p = {p_value:.3g}"
        passed = passed or p_value >= gate.significance
    margin = f", {gate.margin:.4g} below is allowed" if gate.margin else ""
    return Ruling(gate, variant, passed, f"{said}{margin}.", value)


def _value(metrics: Sequence[Metric], variant: str, gate: Gate) -> float | None:
    for metric in metrics:
        if (metric.variant, metric.field, metric.metric) == (variant, gate.field, gate.metric):
            return metric.value
    return None


def _p_value(comparisons: Sequence[Comparison], field: str, one: str, other: str) -> float:
    """The test is the same from both sides."""
    for found in comparisons:
        if found.field == field and {found.baseline, found.variant} == {one, other}:
            return found.p_value
    return 0.0
