"""Distances between shares of labels, and labels as they are counted."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from upath import UPath

from batch_etl.components.drift import by_chance, distance, shift
from batch_etl.components.labels import in_results, in_table, label_columns, together
from batch_etl.warehouse import TableInfo
from batch_etl.warehouse.contents import ColumnInfo
from batch_etl_tests.components.make import DAILY, Project, edited, results
from batch_etl_tests.components.test_checks import numbers, verdicts, why, with_block
from batch_etl_tests.emulator.driver import Driver

COUNTS = st.dictionaries(st.sampled_from("abcdefg"), st.integers(0, 1000)).filter(
    lambda counts: sum(counts.values()) > 0
)


@given(COUNTS, COUNTS)
def test_the_distance_is_a_symmetric_number_from_0_to_1(
    one: dict[str, int], other: dict[str, int]
) -> None:
    there = distance(one, other)
    assert 0 <= there <= 1 + 1e-9
    assert there == pytest.approx(distance(other, one))
    assert distance(one, one) == pytest.approx(0, abs=1e-6)
    tenfold = {label: 10 * count for label, count in one.items()}
    assert distance(one, tenfold) == pytest.approx(0, abs=1e-6)


def test_the_distance_is_1_where_no_label_is_in_both() -> None:
    assert distance({"a": 3}, {"b": 5}) == 1


def test_the_distance_is_the_root_of_the_jensen_shannon_divergence() -> None:
    """Half to half against three quarters to one: worked out by hand."""
    middle = (0.5 + 0.75) / 2
    of_one = 0.5 * math.log2(0.5 / middle) + 0.5 * math.log2(0.5 / (1 - middle))
    of_other = 0.75 * math.log2(0.75 / middle) + 0.25 * math.log2(0.25 / (1 - middle))
    expected = math.sqrt((of_one + of_other) / 2)
    assert distance({"a": 50, "b": 50}, {"a": 75, "b": 25}) == pytest.approx(expected)


def test_equal_shares_seldom_pass_the_limit_of_chance() -> None:
    """2,000 pairs of samples: about 2 of them beyond what one in a thousand exceeds."""
    draw = random.Random(7)
    beyond = 0
    for _ in range(2_000):
        now, earlier = (Counter(draw.choices("abcde", k=size)) for size in (60, 400))
        found = shift("label", now, earlier)
        assert found is not None
        beyond += found.beyond(0)
    assert beyond <= 12


@pytest.mark.parametrize(
    ("now", "earlier", "moved"),
    [
        ({"a": 2, "b": 1}, {"a": 3, "b": 3}, False),  # far, and so few
        ({"a": 300, "b": 100}, {"a": 3000, "b": 1050}, False),  # many, and near
        ({"a": 100, "b": 300}, {"a": 3000, "b": 1000}, True),
        ({"new": 40}, {"a": 3000, "b": 1000}, True),
    ],
)
def test_a_shift_is_what_is_large_and_no_chance(
    now: dict[str, int], earlier: dict[str, int], moved: bool
) -> None:
    found = shift("label", now, earlier)
    assert found is not None
    assert found.beyond(0.2) is moved


def test_with_nothing_on_one_side_there_is_no_shift() -> None:
    assert shift("label", {}, {"a": 3}) is None
    assert shift("label", {"a": 3}, {"a": 0}) is None


def test_one_label_cannot_differ_by_chance() -> None:
    assert by_chance(1, 10, 10) == 0


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "verdict": {"type": "string", "enum": ["safe", "flagged"]},
        "grave": {"type": ["boolean", "null"]},
        "level": {"anyOf": [{"type": "integer", "enum": [0, 1]}, {"type": "null"}]},
        "one": {"const": "x"},
        'a "quoted" na\'me': {"type": "boolean"},
        "why": {"type": "string"},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}},
        "either": {"anyOf": [{"type": "boolean"}, {"type": "string"}]},
    },
}
LABELS = ("verdict", "grave", "level", "one", 'a "quoted" na\'me')


def test_labels_are_booleans_and_enums() -> None:
    assert label_columns(SCHEMA) == LABELS
    assert label_columns(None) == ()


def answered(state: str, answer: dict[str, Any] | None) -> dict[str, Any]:
    return {"state": state, "output": answer and json.dumps(answer)}


def test_labels_are_counted_in_results_files_by_partition(tmp_path: Path) -> None:
    quoted = LABELS[-1]
    first = results(
        tmp_path / "1.parquet",
        [
            answered("answered", {"verdict": "safe", "grave": None, "level": 1, quoted: True}),
            answered("answered", {"verdict": "safe", "grave": False, "level": 0, quoted: False}),
            answered("review", {"verdict": "flagged"}),
            answered("review", None),
        ],
    )
    second = results(tmp_path / "2.parquet", [answered("answered", {"verdict": "flagged"})])
    files: dict[str | None, UPath] = {
        "one": first,
        "two": second,
        "three": UPath(tmp_path / "3.parquet"),
    }
    found = in_results(files, LABELS)
    assert set(found) == {"one", "two"}
    assert found["one"]["verdict"] == {"safe": 2}
    assert found["one"]["grave"] == {"null": 1, "false": 1}
    assert found["one"]["level"] == {"0": 1, "1": 1}
    assert found["one"][quoted] == {"true": 1, "false": 1}
    assert found["two"]["verdict"] == {"flagged": 1}
    assert together(found.values())["verdict"] == {"safe": 2, "flagged": 1}


def test_labels_are_counted_in_a_table_by_the_same_words() -> None:
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE t AS FROM (VALUES ('a', 'answered', true, 1), ('a', 'answered', NULL, 2),"
            " ('a', 'review', false, 3), ('b', 'answered', true, 1), ('c', 'answered', true, 1)) "
            'v(_partition, _state, "is ""it""", n)'
        )
        columns = (ColumnInfo('is "it"', "BOOLEAN", None), ColumnInfo("n", "INTEGER", None))
        table = TableInfo("main", "t", 5, columns)
        found = in_table(connection, table, ["a", "b"], ['is "it"', "n", "gone"])
    assert found == {
        "a": {'is "it"': {"true": 1, "null": 1}, "n": {"1": 1, "2": 1}},
        "b": {'is "it"': {"true": 1}, "n": {"1": 1}},
    }


KIND = """kind: {type: string, enum: [praise, blame], description: "What the note is.
            praise: thank you, lovely, wonderful, great;
            blame: broken, awful, refund, angry"}"""
PRAISE = "Thank you, this is lovely, wonderful and great number {n}"
BLAME = "It is broken and awful, a refund, angry number {n}"


def notes(days: dict[str, list[str]]) -> str:
    lines = ["note_id,written_on,text"]
    for day, texts in days.items():
        lines += [f'{day}-{n},{day},"{text.format(n=n)}"' for n, text in enumerate(texts)]
    return "\n".join(lines) + "\n"


def test_a_day_whose_labels_are_not_those_of_the_days_before_is_found(
    mine: Project, emulator: Driver
) -> None:
    """And only that day, within one run of a range; where it blocks, no day of it is loaded."""
    days = [f"2026-11-0{n}" for n in (1, 2, 3)]
    text = edited(DAILY, ("kind: {type: boolean}", KIND))
    mine.write(
        with_block(text, "checks: {label_drift: {severity: error}}"),
        {
            "notes.csv": notes(
                dict(zip(days, ([PRAISE] * 30, [PRAISE] * 30, [BLAME] * 30), strict=True))
            )
        },
    )
    run = mine.run(first=days[0], last=days[-1])
    assert run.success, why(run)
    drift = [verdicts(run)["results", "label_drift", day] for day in days]
    assert [one.passed for one in drift] == [True, True, False]
    assert drift[2].severity is dg.AssetCheckSeverity.ERROR
    assert f"2 partition(s) from {days[0]} to {days[1]}: kind 1.000" in (drift[2].description or "")
    told = numbers(drift[2])
    assert (told["kind/distance"], told["records"], told["earlier_records"]) == (1, 30, 60)
    assert "no answered records" in (drift[0].description or "")
