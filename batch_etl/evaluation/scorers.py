"""How right one value is: from 0 (wrong) to 1 (right).

Expected values come from a file, so they may be text where the answer is not: ``"3"``, ``"true"``
and ``'["a", "b"]'`` are read as JSON then. A list may also be written ``a; b``, as in a CSV cell.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal, cast

import pydantic

from batch_etl.strict import Strict

Scorer = Literal["exact", "set", "numeric", "contains", "regex", "json_subset"]


class Score(Strict):
    """One field of the answer, and the column of the record that says what is right."""

    field: str = pydantic.Field(
        description="Of the answer; with dots for a field of a field, as in vendor.name."
    )
    expected: str = pydantic.Field(description="Column of the record with the right value.")
    scorer: Scorer = pydantic.Field(
        default="exact",
        description="`exact`: equal; `set`: what two lists share of all they hold; `numeric`: "
        "within a tolerance; `contains`: the expected text occurs; `regex`: the expected pattern "
        "is found; `json_subset`: all that is expected is there, more may be.",
    )
    ignore_case: bool = pydantic.Field(
        default=False, description="Whether upper and lower case are equal."
    )
    tolerance: Annotated[float, pydantic.Field(ge=0)] = pydantic.Field(
        default=0.0, description="Of `numeric`: how far off is still right."
    )
    relative_tolerance: Annotated[float, pydantic.Field(ge=0)] = pydantic.Field(
        default=0.0, description="Of `numeric`: the same as a share of the expected number."
    )
    correct_from: Annotated[float, pydantic.Field(gt=0, le=1)] = pydantic.Field(
        default=1.0, description="The least score that counts as correct."
    )

    @pydantic.model_validator(mode="after")
    def _tolerances_are_for_numbers(self) -> Score:
        if self.scorer != "numeric" and (self.tolerance or self.relative_tolerance):
            raise ValueError(
                f"tolerance and relative_tolerance belong to `scorer: numeric`, not {self.scorer}"
            )
        return self

    def of(self, expected: Any, actual: Any) -> float:
        """The score of one value; 0 where there is none but one is expected."""
        if self.ignore_case:
            expected, actual = _folded(expected), _folded(actual)
        if actual is None or expected is None:
            return float(actual is None and expected is None)
        return _SCORERS[self.scorer](self, expected, actual)

    def value(self, answer: Any) -> Any:
        """The field in a whole answer; None where the answer has no such field."""
        for name in self.field.split("."):
            answer = cast("dict[str, Any]", answer).get(name) if isinstance(answer, dict) else None
        return answer


def _exact(_: Score, expected: Any, actual: Any) -> float:
    return float(_like(expected, actual) == actual)


def _set(_: Score, expected: Any, actual: Any) -> float:
    wanted, given = _items(expected), _items(actual)
    either = wanted | given
    return len(wanted & given) / len(either) if either else 1.0


def _numeric(score: Score, expected: Any, actual: Any) -> float:
    wanted, given = _number(expected), _number(actual)
    if wanted is None or given is None:
        return 0.0
    relative = abs(wanted) * _exactly(score.relative_tolerance)
    return float(abs(wanted - given) <= max(_exactly(score.tolerance), relative))


def _contains(_: Score, expected: Any, actual: Any) -> float:
    return float(_spaced(expected) in _spaced(actual))


def _regex(_: Score, expected: Any, actual: Any) -> float:
    return float(re.search(str(expected), str(actual)) is not None)


def _json_subset(_: Score, expected: Any, actual: Any) -> float:
    return float(_within(_like(expected, actual), actual))


_SCORERS: dict[Scorer, Callable[[Score, Any, Any], float]] = {
    "exact": _exact,
    "set": _set,
    "numeric": _numeric,
    "contains": _contains,
    "regex": _regex,
    "json_subset": _json_subset,
}


def _like(expected: Any, actual: Any) -> Any:
    """``expected`` as JSON, where it is text and the answer is none."""
    if not isinstance(expected, str) or isinstance(actual, str):
        return expected
    try:
        return json.loads(expected)
    except ValueError:
        return expected


def _items(value: Any) -> set[str]:
    """The members of a list, each as canonical JSON."""
    if isinstance(value, str):
        read = _like(value, [])
        value = read if isinstance(read, list) else [part.strip() for part in value.split(";")]
        value = [part for part in cast("list[Any]", value) if part != ""]
    members = cast("Sequence[Any]", value) if isinstance(value, list) else [value]
    return {json.dumps(member, sort_keys=True) for member in members}


def _number(value: Any) -> Decimal | None:
    if isinstance(value, bool):
        return None
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _exactly(number: float) -> Decimal:
    return Decimal(str(number))


def _spaced(value: Any) -> str:
    """Text with single spaces; what is no text as JSON."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return " ".join(text.split())


def _within(expected: Any, actual: Any) -> bool:
    if isinstance(expected, dict):
        given = cast("dict[str, Any]", actual) if isinstance(actual, dict) else {}
        wanted = cast("dict[str, Any]", expected)
        return isinstance(actual, dict) and all(
            name in given and _within(inner, given[name]) for name, inner in wanted.items()
        )
    if isinstance(expected, list):
        members = cast("list[Any]", actual) if isinstance(actual, list) else []
        wanted = cast("list[Any]", expected)
        return isinstance(actual, list) and all(
            any(_within(inner, member) for member in members) for inner in wanted
        )
    return expected == actual


def _folded(value: Any) -> Any:
    if isinstance(value, str):
        return value.casefold()
    if isinstance(value, list):
        return [_folded(member) for member in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {name: _folded(inner) for name, inner in cast("dict[str, Any]", value).items()}
    return value
