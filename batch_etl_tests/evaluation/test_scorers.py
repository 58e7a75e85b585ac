"""How right one value is."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest

from batch_etl.evaluation import Score


def scored(scorer: str, expected: Any, actual: Any, **options: Any) -> float:
    score = Score.model_validate({"field": "f", "expected": "e", "scorer": scorer, **options})
    return score.of(expected, actual)


@pytest.mark.parametrize(
    ("scorer", "expected", "actual", "score"),
    [
        ("exact", "spam", "spam", 1),
        ("exact", "spam", "Spam", 0),
        ("exact", "3", 3, 1),
        ("exact", "true", True, 1),
        ("exact", "3", "3", 1),
        ("exact", '["a", "b"]', ["a", "b"], 1),
        ("exact", "no json", 3, 0),
        ("exact", None, None, 1),
        ("exact", "spam", None, 0),
        ("exact", None, "spam", 0),
        ("set", ["a", "b"], ["b", "a"], 1),
        ("set", "a; b", ["a", "c"], 1 / 3),
        ("set", '["a"]', ["a", "b"], 1 / 2),
        ("set", "", [], 1),
        ("set", [{"x": 1, "y": 2}], [{"y": 2, "x": 1}], 1),
        ("numeric", "12.50", 12.5, 1),
        ("numeric", 0.3, 0.1 + 0.2, 0),
        ("numeric", "twelve", 12, 0),
        ("numeric", 1, True, 0),
        ("numeric", "1e400", "NaN", 0),
        ("contains", "two  words", "has two\nwords in it", 1),
        ("contains", "two", "tw o", 0),
        ("contains", "b", ["a", "b"], 1),
        ("regex", r"^\d{4}-\d\d$", "2026-11", 1),
        ("regex", r"^\d+$", "x1", 0),
        ("json_subset", '{"a": {"b": 1}}', {"a": {"b": 1, "c": 2}, "d": 3}, 1),
        ("json_subset", {"a": [1]}, {"a": [2, 1]}, 1),
        ("json_subset", {"a": [3]}, {"a": [2, 1]}, 0),
        ("json_subset", {"a": 1}, [1], 0),
    ],
)
def test_each_scorer_by_example(scorer: str, expected: Any, actual: Any, score: float) -> None:
    assert scored(scorer, expected, actual) == pytest.approx(score)


@pytest.mark.parametrize(
    ("options", "actual", "score"),
    [
        ({"tolerance": 0.5}, 10.5, 1),
        ({"tolerance": 0.5}, 10.51, 0),
        ({"relative_tolerance": 0.1}, 11, 1),
        ({"relative_tolerance": 0.1}, 11.1, 0),
        ({"relative_tolerance": 0.1, "tolerance": 2}, 12, 1),
    ],
)
def test_numbers_are_right_within_their_tolerance(
    options: dict[str, float], actual: float, score: float
) -> None:
    assert scored("numeric", 10, actual, **options) == score


def test_case_can_be_ignored_also_inside_lists_and_objects() -> None:
    assert scored("set", "A; b", ["a", "B"], ignore_case=True) == 1
    assert scored("json_subset", {"k": "X"}, {"k": "x"}, ignore_case=True) == 1


def test_a_field_of_a_field_is_named_with_a_dot() -> None:
    score = Score(field="vendor.name", expected="vendor")
    assert score.value({"vendor": {"name": "Hazel"}}) == "Hazel"
    assert score.value({"vendor": None}) is None


def test_a_tolerance_of_what_is_no_number_is_refused() -> None:
    with pytest.raises(pydantic.ValidationError, match="belong to `scorer: numeric`, not exact"):
        Score(field="f", expected="e", tolerance=1)
