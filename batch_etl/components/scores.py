"""What the ``scores`` asset of an evaluation does, and what it tells Dagster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from batch_etl.components import plots
from batch_etl.components.steps import explained, say
from batch_etl.evaluation import (
    Case,
    Comparison,
    Gate,
    KnownGood,
    Metric,
    Ruling,
    Score,
    compare,
    confusion,
    measure,
    read_cases,
    rule,
    tables,
)
from batch_etl.evaluation.metrics import Pairs, sheet
from batch_etl.resources import EndpointResource, StorageResource, WarehouseResource
from batch_etl.warehouse import schema_of
from batch_etl.warehouse.contents import table_info

KNOWN_GOOD = "batch_etl/known_good"
"""Metadata of the ``scores`` asset: the file of approved answers, where there is one."""

IN_USE = "batch_etl/variant_in_use"
"""Metadata of the ``scores`` asset: the variant that gates judge."""

CHANGED = "changed_answers"
"""The check of ``max_changed``."""


@dataclass(frozen=True)
class Plan:
    """One evaluation as its step needs it."""

    name: str
    id_column: str
    tables: Mapping[str, str]
    """Each variant's table."""
    in_use: str
    scores: tuple[Score, ...]
    gates: tuple[Gate, ...]
    labelled: frozenset[str]
    """Fields whose values are labels."""
    max_changed: int | None = None

    def variant_of(self, gate: Gate) -> str:
        return gate.variant or self.in_use


@dataclass
class Evaluated:
    """All that an evaluation came to."""

    cases: dict[str, list[Case]] = field(default_factory=dict[str, list[Case]])
    """By variant."""
    metrics: list[Metric] = field(default_factory=list[Metric])
    comparisons: list[Comparison] = field(default_factory=list[Comparison])
    confusions: dict[tuple[str, str], Pairs] = field(default_factory=dict[tuple[str, str], Pairs])


def specs(key: dg.AssetKey, plan: Plan) -> list[dg.AssetCheckSpec]:
    """One check for each gate, and one for changed answers."""
    found = [
        dg.AssetCheckSpec(
            gate.check_name(plan.variant_of(gate)),
            asset=key,
            blocking=gate.severity == "error",
            description=f"{gate.metric} of {plan.variant_of(gate)}: {_wanted(gate)}.",
        )
        for gate in plan.gates
    ]
    if plan.max_changed is not None:
        said = f"At most {plan.max_changed} correct answers are other than those approved."
        found.append(dg.AssetCheckSpec(CHANGED, asset=key, blocking=True, description=said))
    return found


def _wanted(gate: Gate) -> str:
    if gate.at_least is not None:
        return f"at least {gate.at_least:g}"
    return f"not below that of {gate.not_below}"


def score(
    context: dg.AssetExecutionContext,
    plan: Plan,
    storage: StorageResource,
    endpoint: EndpointResource,
    *,
    warehouse: WarehouseResource,
    approved: KnownGood,
) -> Iterator[Any]:
    """Score what the variants' tables say, write it beside them, publish, and judge the gates."""
    with explained():
        name = endpoint.name()
        house, prices = warehouse.open(storage.at()), endpoint.price_list()
        evaluated = Evaluated()
        with house.read_only() as connection:
            for variant, table in plan.tables.items():
                info = table_info(connection, schema_of(name), table)
                found = read_cases(
                    connection, info, plan.id_column, variant, plan.scores, prices=prices
                )
                evaluated.cases[variant] = list(found)
        evaluate(plan, evaluated)
        house.replace_tables(name, made(plan, evaluated, approved))
        house.publish()
    rulings = [
        rule(gate, plan.variant_of(gate), evaluated.metrics, evaluated.comparisons)
        for gate in plan.gates
    ]
    for ruling in rulings:
        say(context, ("passed: " if ruling.passed else "FAILED: ") + ruling.sentence)
    yield dg.MaterializeResult(
        metadata=_metadata(plan, evaluated, name),
        check_results=[*map(_check, rulings), *_changed(plan, evaluated, approved)],
    )


def evaluate(plan: Plan, evaluated: Evaluated) -> None:
    """Fill in the numbers from the cases."""
    for variant, cases in evaluated.cases.items():
        evaluated.metrics += measure(variant, cases, plan.labelled)
        for label in sorted(plan.labelled):
            mine = [case for case in cases if case.field == label]
            evaluated.confusions[variant, label] = confusion(mine)
    baseline = evaluated.cases[plan.in_use]
    for variant, cases in evaluated.cases.items():
        if variant != plan.in_use:
            evaluated.comparisons += compare(baseline, cases)


def made(plan: Plan, evaluated: Evaluated, approved: KnownGood) -> dict[str, tables.MadeTable]:
    """The evaluation's tables by their names."""
    cases = [case for mine in evaluated.cases.values() for case in mine]
    return {
        f"{plan.name}_cases": tables.cases_table(cases, approved),
        f"{plan.name}_metrics": tables.metrics_table(evaluated.metrics),
        f"{plan.name}_confusion": tables.confusion_table(evaluated.confusions),
        f"{plan.name}_comparison": tables.comparison_table(evaluated.comparisons),
    }


def changed(cases: Sequence[Case], approved: KnownGood) -> list[Case]:
    """Correct answers that are other than the approved ones."""
    return [case for case in cases if approved.status(case) == "changed"]


def _changed(plan: Plan, evaluated: Evaluated, approved: KnownGood) -> Iterator[Any]:
    if plan.max_changed is None:
        return
    found = changed(evaluated.cases[plan.in_use], approved)
    named = ", ".join(case.record_id for case in found[:3])
    passed = len(found) <= plan.max_changed
    said = f"{len(found)} correct answer(s) are other than those approved; at most "
    said += f"{plan.max_changed} may be." + (f" First: {named}." if found else "")
    yield dg.AssetCheckResult(
        check_name=CHANGED,
        passed=passed,
        severity=dg.AssetCheckSeverity.ERROR,
        description=said,
        metadata={"changed": len(found)},
    )


def _check(ruling: Ruling) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=ruling.gate.check_name(ruling.variant),
        passed=ruling.passed,
        severity=dg.AssetCheckSeverity[ruling.gate.severity.upper()],
        description=ruling.sentence,
        metadata={} if ruling.value is None else {"value": ruling.value},
    )


def _metadata(plan: Plan, evaluated: Evaluated, endpoint: str) -> dict[str, Any]:
    charts = {
        variant: {
            "correct": sum(case.correct for case in cases),
            "wrong": sum(not case.correct for case in cases),
        }
        for variant, cases in evaluated.cases.items()
    }
    return {
        "endpoint": endpoint,
        "cases": len(evaluated.cases[plan.in_use]) // len(plan.scores),
        "variants": list(plan.tables),
        "in_use": plan.in_use,
        "metrics": dg.MetadataValue.md(as_markdown(evaluated.metrics)),
        "correct": dg.MetadataValue.md(plots.as_markdown(charts, "correct and wrong answers")),
    }


def as_markdown(metrics: Sequence[Metric]) -> str:
    """The metrics as a table: one row a variant and field."""
    head, *rows = sheet(metrics)
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *lines])
