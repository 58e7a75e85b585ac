"""Chains: of all answers to a question the one that stands last, and what is asked next."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from batch_etl.batches.answers import ANSWERS
from batch_etl.batches.chain import ANSWER, PLACE, READ, last_answers, next_batches, unusable
from batch_etl.batches.manifest import MANIFEST
from batch_etl.batches.retry import Policy

POLICY = Policy("haiku", 100, max_attempts=5)


def key(number: int) -> bytes:
    return bytes([number]) * 16


def places(*numbers: int) -> pa.Table:
    """Question n is asked for record r<n>, in row 10 - n of partition n % 2."""
    rows = [
        {"request_key": key(n), "partition": n % 2, "record_row": 10 - n, "record_id": f"r{n}"}
        for n in numbers
    ]
    return pa.Table.from_pylist(rows, schema=PLACE)


def answer(number: int, kind: str = "Invalid", attempt: int = 1, **more: Any) -> pa.Table:
    given = {"request_key": key(number), "row": number, "outcome": kind, "text": "x", **more}
    if kind == "Invalid":
        given.setdefault("stop_reason", "end_turn")
    schema = pa.schema([ANSWERS.field(name) for name in READ])
    rows = pa.Table.from_pylist([given], schema=schema).to_batches()[0]
    return unusable(rows, f"batch{attempt}", attempt)


def last(table: pa.Table) -> list[tuple[Any, ...]]:
    """(record, attempts so far, outcome that counts, answers that had failed before it)."""
    names = ("record_id", "attempt", "outcome", "failed")
    return [tuple(row[name] or 0 for name in names) for row in table.to_pylist()]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        pytest.param([], [], id="nothing is known"),
        pytest.param([answer(1)], [("r1", 1, "Invalid", 0)], id="the only one"),
        pytest.param(
            [answer(1, "Expired", 2, failed=1), answer(1)], [("r1", 2, "Expired", 1)],
            id="an expired repair stands after what it repairs",
        ),
        pytest.param(
            [answer(1, "Expired", 2), answer(1, failed=0)], [("r1", 2, "Invalid", 0)],
            id="what failed stands after what never ran; the attempts were two",
        ),
        pytest.param(
            [answer(1, "Expired", 3, failed=2), answer(1, attempt=2, failed=1), answer(1)],
            [("r1", 3, "Expired", 2)],
            id="of a long chain the end",
        ),
        pytest.param(
            [answer(1, "Truncated", 1), answer(1, "Invalid", 1)], [("r1", 1, "Truncated", 0)],
            id="of equals the first",
        ),
        pytest.param([answer(7)], [], id="a question of no place"),
    ],
)  # fmt: skip
def test_the_answer_that_stands_last_counts(answers, expected):
    table = pa.concat_tables([ANSWER.empty_table(), *answers])
    assert last(last_answers(places(1), table)) == expected


def test_each_place_gets_its_own_questions_answer():
    answers = pa.concat_tables([answer(3, "Missing"), answer(1), answer(2, "Expired", 2)])
    assert sorted(last(last_answers(places(2, 1, 3, 4), answers))) == [
        ("r1", 1, "Invalid", 0),
        ("r2", 2, "Expired", 0),
        ("r3", 1, "Missing", 0),
    ]


def asked(policy: Policy, *answers: pa.Table) -> list[tuple[tuple[int, str | None], list[Any]]]:
    """(attempt and model, [record, max_tokens, faulty, failed]) of each next batch."""
    table = pa.concat_tables([ANSWER.empty_table(), *answers])
    chain = last_answers(places(1, 2, 3, 4, 5), table)
    batches = []
    for batch, manifest in next_batches(policy, chain):
        assert manifest.schema.equals(MANIFEST)
        assert set(manifest.column("claude_model").to_pylist()) == {batch.claude_model}
        names = ("record_id", "max_tokens", "faulty", "failed")
        rows = [[row[name] for name in names] for row in manifest.to_pylist()]
        batches.append((tuple(batch), rows))
    return batches


def test_all_that_is_asked_in_one_attempt_is_in_one_manifest_in_the_records_order():
    assert asked(
        POLICY,
        answer(1),
        answer(2, "Missing"),
        answer(3, "Truncated", stop_reason="max_tokens"),
        answer(4, text=""),
        answer(5, "Refused", stop_reason="refusal"),
    ) == [
        (
            (2, None),
            [
                ["r4", None, None, 1],
                ["r2", None, None, None],
                ["r3", 200, None, 1],
                ["r1", None, "batch1-000001", 1],
            ],
        )
    ]


def test_attempts_and_models_are_apart():
    ladder = replace(POLICY, stronger_models=("sonnet", "opus"))
    assert asked(
        ladder,
        answer(1),
        answer(2, "Expired"),
        answer(3, attempt=2, failed=1, asked_model="sonnet"),
        answer(4, "Expired", 2, failed=1, asked_model="sonnet", faulty="earlier-000004"),
    ) == [
        ((2, None), [["r2", None, None, None]]),
        ((2, "sonnet"), [["r1", None, "batch1-000001", 1]]),
        ((3, "opus"), [["r3", None, "batch2-000003", 2]]),
        ((3, "sonnet"), [["r4", None, "earlier-000004", 1]]),
    ]


def test_what_no_step_follows_is_in_no_manifest():
    refused = answer(1, "Refused", stop_reason="refusal")
    exhausted = answer(2, attempt=5, failed=4)
    assert asked(POLICY, refused, exhausted) == []
    assert asked(POLICY) == []


def test_a_text_of_white_space_is_none():
    ((_, rows),) = asked(POLICY, answer(1, text=" \n\t"))
    assert rows == [["r1", None, None, 1]]
