"""Metrics and comparisons on constructed cases, against scikit-learn on the long lists."""

from __future__ import annotations

import random
from decimal import Decimal

import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from batch_etl.evaluation import Case, compare, confusion, measure
from batch_etl.evaluation.comparison import mcnemar
from batch_etl.evaluation.metrics import NO_ANSWER, interval

LABELS = ["safe", "spam", "scam", "hate"]


def case(
    number: int, expected: str, actual: str | None, variant: str = "a", field: str = "label"
) -> Case:
    return Case(
        variant=variant,
        record_id=f"r{number}",
        field=field,
        expected=expected,
        actual=actual,
        score=float(expected == actual),
        correct=expected == actual,
        state="answered" if actual is not None else "review",
        outcome="Succeeded" if actual is not None else "Invalid",
        cost_usd=Decimal("0.001"),
    )


def drawn(seed: int, variant: str = "a", right: float = 0.7, n: int = 400) -> list[Case]:
    """Cases of which about so many are right; the expected labels are those of every seed."""
    expected = random.Random(1)
    given = random.Random(seed)
    made: list[Case] = []
    for number in range(n):
        label = expected.choice(LABELS)
        answer = label if given.random() < right else given.choice([*LABELS, None])
        made.append(case(number, label, answer, variant))
    return made


def value(metrics: list, name: str, field: str = "label") -> float:
    (found,) = [m for m in metrics if (m.metric, m.field) == (name, field)]
    return found.value


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_metrics_of_labels_are_scikit_learns(seed: int) -> None:
    cases = drawn(seed)
    expected = [c.expected for c in cases]
    given = [c.actual or NO_ANSWER for c in cases]
    metrics = measure("a", cases, ["label"])
    averaged = {"average": "macro", "zero_division": 0, "labels": sorted(set(expected))}
    learned = sklearn.metrics
    assert value(metrics, "accuracy") == pytest.approx(learned.accuracy_score(expected, given))
    assert value(metrics, "f1_macro") == pytest.approx(
        learned.f1_score(expected, given, **averaged)
    )
    assert value(metrics, "precision_macro") == pytest.approx(
        learned.precision_score(expected, given, **averaged)
    )
    assert value(metrics, "recall_macro") == pytest.approx(
        learned.recall_score(expected, given, **averaged)
    )
    assert value(metrics, "kappa") == pytest.approx(learned.cohen_kappa_score(expected, given))
    labels = sorted({*expected, *given})
    matrix = learned.confusion_matrix(expected, given, labels=labels)
    pairs = confusion(cases)
    assert [[pairs.get((e, g), 0) for g in labels] for e in labels] == matrix.tolist()


def test_a_record_is_correct_if_each_of_its_fields_is() -> None:
    cases = [case(1, "x", "x"), case(1, "x", "y", field="other"), case(2, "x", "x")]
    metrics = measure("a", cases)
    assert value(metrics, "accuracy", "*") == 0.5
    assert value(metrics, "cost_usd", "*") == pytest.approx(0.002)
    assert value(metrics, "cost_usd_per_correct", "*") == pytest.approx(0.002)


def test_a_case_in_review_is_wrong_and_not_answered() -> None:
    metrics = measure("a", [case(1, "x", "x"), case(2, "x", None)], ["label"])
    assert value(metrics, "accuracy") == 0.5
    assert value(metrics, "answered", "*") == 0.5


def test_no_cases_have_no_metrics_but_do_not_fail() -> None:
    assert {m.value for m in measure("a", [])} == {None, 0.0}


@settings(max_examples=30)
@given(st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=2, max_size=200))
def test_an_interval_holds_the_mean_and_stays_within_the_values(values: list[float]) -> None:
    low, high = interval(values) or (0, 0)
    mean = sum(values) / len(values)
    assert min(values) - 1e-9 <= low <= mean + 1e-9
    assert mean - 1e-9 <= high <= max(values) + 1e-9


def test_an_interval_is_the_same_each_time_and_about_the_normal_one() -> None:
    values = [1.0] * 700 + [0.0] * 300
    low, high = interval(values) or (0, 0)
    assert interval(values) == (low, high)
    wide = 1.96 * (0.7 * 0.3 / 1000) ** 0.5
    assert (0.7 - low, high - 0.7) == pytest.approx((wide, wide), rel=0.1)


def test_two_variants_are_compared_case_by_case() -> None:
    one, other = drawn(5, "a", 0.9), drawn(6, "b", 0.6)
    (found,) = compare(one, other)
    only_one = sum(a.correct and not b.correct for a, b in zip(one, other, strict=True))
    only_other = sum(b.correct and not a.correct for a, b in zip(one, other, strict=True))
    assert (found.only_baseline_correct, found.only_variant_correct) == (only_one, only_other)
    assert found.cases == found.both_correct + found.neither_correct + only_one + only_other
    assert found.p_value == pytest.approx(binomtest(only_one, only_one + only_other).pvalue)
    assert found.difference == pytest.approx((only_other - only_one) / found.cases)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.difference < found.high < 0
    labels = [[c.actual or NO_ANSWER for c in cases] for cases in (one, other)]
    assert found.kappa == pytest.approx(sklearn.metrics.cohen_kappa_score(*labels))


@pytest.mark.parametrize(
    ("apart", "p_value"), [((0, 0), 1), ((5, 5), 1), ((0, 5), 0.0625), ((0, 10), 0.001953125)]
)
def test_mcnemars_exact_test_by_hand(apart: tuple[int, int], p_value: float) -> None:
    assert mcnemar(*apart) == pytest.approx(p_value)


def test_variants_that_never_differ_agree() -> None:
    same = drawn(5)
    (found,) = compare(same, [case(int(c.record_id[1:]), c.expected, c.actual, "b") for c in same])
    assert (found.difference, found.p_value, found.agreement) == (0, 1, 1)
    assert found.kappa == pytest.approx(1)
