"""What must hold of an evaluation."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest

from batch_etl.evaluation import Comparison, Gate, Metric, rule

METRICS = [
    Metric("new", "*", "accuracy", 0.8, 10),
    Metric("old", "*", "accuracy", 0.9, 10),
    Metric("new", "label", "accuracy", 0.8, 10),
    Metric("old", "label", "accuracy", 0.9, 10),
]


def comparison(p_value: float) -> Comparison:
    return Comparison("label", "old", "new", 10, 8, 1, 0, 1, -0.1, None, None, p_value, 0.9, 0.8)


@pytest.mark.parametrize(
    ("gate", "passed", "said"),
    [
        ({"at_least": 0.8}, True, "new: accuracy is 0.8; at least 0.8 is wanted."),
        ({"at_least": 0.81}, False, "new: accuracy is 0.8; at least 0.81 is wanted."),
        ({"not_below": "old"}, False, "new: accuracy is 0.8; old has 0.9."),
        ({"not_below": "old", "margin": 0.11}, True, "0.11 below is allowed."),
        ({"not_below": "old", "field": "label", "significance": 0.05}, True, "p = 0.3"),
        ({"metric": "answered", "at_least": 0.1}, False, "could not be measured"),
    ],
)
def test_gates_by_example(gate: dict[str, Any], passed: bool, said: str) -> None:
    ruling = rule(Gate.model_validate(gate), "new", METRICS, [comparison(0.3)])
    assert ruling.passed is passed
    assert said in ruling.sentence


def test_a_loss_that_is_hardly_chance_fails() -> None:
    gate = Gate(not_below="old", field="label", significance=0.05)
    assert not rule(gate, "new", METRICS, [comparison(0.01)]).passed


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ({}, "either at_least or not_below"),
        ({"at_least": 1, "not_below": "old"}, "either at_least or not_below"),
        ({"at_least": 1, "margin": 0.1}, "belong to not_below"),
        ({"not_below": "old", "significance": 0.1}, "needs a `field`"),
        ({"metric": "kappa", "at_least": 0.5}, "name one in `field`"),
        ({"metric": "answered", "field": "label", "at_least": 0.5}, "leave `field` out"),
        ({"metric": "acuracy", "at_least": 0.5}, "accuracy"),
    ],
)
def test_a_gate_that_asks_nothing_is_refused(gate: dict[str, Any], said: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=said):
        Gate.model_validate(gate)
