"""What earlier answers come to: answered for good, to be resumed, or as if never asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from batch_etl.batches.answers import ANSWERS, Source, Totals, answer_rows, answers_path
from batch_etl.batches.errors import LedgerError
from batch_etl.batches.history import History, for_good, kinds_in, next_steps
from batch_etl.batches.keys import KeySet, halves
from batch_etl.batches.outcome import KINDS, Kind, Outcome
from batch_etl.batches.retry import FAILED, Policy, Tried, next_step
from batch_etl.files import ParquetSink

POLICY = Policy("haiku", 100, max_attempts=3)
STOPS = {"Invalid": "end_turn", "Truncated": "max_tokens", "Refused": "refusal"}
KEYS = np.array([bytes([i]) * 16 for i in range(1, 9)], dtype="S16")
PREFIXES = halves(KEYS)[0]

Rows = list[tuple[int, Kind, int]]
"""(key number, outcome, how many answers had failed before)"""


def batch_of(rows: Rows) -> pa.RecordBatch:
    asked = pa.RecordBatch.from_pydict(
        {
            "claude_model": pa.nulls(len(rows), pa.string()),
            "max_tokens": pa.nulls(len(rows), pa.int32()),
            "faulty": pa.nulls(len(rows), pa.string()),
            "failed": pa.array([failed or None for _, _, failed in rows], pa.int16()),
        }
    )
    keys = np.array([KEYS[number] for number, _, _ in rows], dtype="S16")
    ids = pa.array([f"r{number}" for number, _, _ in rows], pa.string())
    outcomes = [
        Outcome(kind, "why", text="x", stop_reason=STOPS.get(kind, "end_turn"))
        for _, kind, _ in rows
    ]
    source = Source(keys, ids, ids, asked)
    return answer_rows(range(len(rows)), outcomes, source, lambda *_: None, Totals())


def written(folder: Path, token: str, rows: Rows) -> None:
    with ParquetSink(answers_path(UPath(folder), token), ANSWERS) as sink:
        sink.write(batch_of(rows))


def numbers(keys: KeySet) -> set[int]:
    return set(np.flatnonzero(keys.contains(PREFIXES)).tolist())


def test_what_is_answered_for_good_is_what_no_step_follows(tmp_path):
    written(tmp_path, "t1", [(n, kind, 0) for n, kind in enumerate(KINDS)])
    history = History(UPath(tmp_path), POLICY)
    failed = history.add("t1", 1)
    of = {kind: n for n, kind in enumerate(KINDS)}
    assert numbers(history.answered) == {of["Succeeded"], of["Refused"]}
    assert numbers(history.resumable) == {of["Invalid"], of["Truncated"]}
    assert numbers(KeySet([failed])) == {of[kind] for kind in FAILED}


@pytest.mark.parametrize(
    ("policy", "resumable"),
    [
        (POLICY, {0, 1}),
        (replace(POLICY, max_attempts=2), set()),
        (replace(POLICY, max_attempts=9), {0, 1}),
        (replace(POLICY, invalid="review"), {1}),
        (replace(POLICY, truncated="review"), {0}),
        (replace(POLICY, refused="stronger_model", stronger_models=("opus",)), {0, 1, 2}),
    ],
)
def test_another_policy_opens_and_closes_just_what_it_speaks_of(tmp_path, policy, resumable):
    written(tmp_path, "t1", [(0, "Invalid", 1), (1, "Truncated", 1), (2, "Refused", 1)])
    history = History(UPath(tmp_path), policy)
    history.add("t1", 2)
    assert numbers(history.resumable) == resumable
    assert numbers(history.answered) == {0, 1, 2} - resumable


def test_an_answer_ends_a_question_whatever_failed_before_or_after_it(tmp_path):
    written(tmp_path, "t1", [(0, "Invalid", 0), (1, "Succeeded", 0)])
    written(tmp_path, "t2", [(0, "Succeeded", 1), (1, "Invalid", 0)])
    for order in ([("t1", 1), ("t2", 2)], [("t2", 2), ("t1", 1)]):
        history = History(UPath(tmp_path), POLICY)
        for token, attempt in order:
            history.add(token, attempt)
            assert not numbers(history.answered) & numbers(history.resumable)
        assert numbers(history.answered) == {0, 1}
        assert numbers(history.resumable) == set()


def test_of_several_failed_answers_the_last_one_counts(tmp_path):
    written(tmp_path, "t1", [(0, "Invalid", 0), (1, "Refused", 0)])
    written(tmp_path, "t2", [(0, "Refused", 1), (1, "Invalid", 1)])
    for order in ([("t1", 1), ("t2", 2)], [("t2", 2), ("t1", 1)]):
        history = History(UPath(tmp_path), POLICY)
        for token, attempt in order:
            history.add(token, attempt)
        assert (numbers(history.answered), numbers(history.resumable)) == ({0}, {1})


def test_failures_are_those_of_the_questions_asked_about(tmp_path):
    written(tmp_path, "t1", [(0, "Invalid", 0), (1, "Invalid", 0), (2, "Expired", 0)])
    written(tmp_path, "t2", [(3, "Succeeded", 0)])
    history = History(UPath(tmp_path), POLICY)
    history.add("t1", 1)
    history.add("t2", 1)
    wanted = KeySet([PREFIXES[[1, 2, 3]]])
    ((token, attempt, rows),) = history.failures(wanted, ["request_key", "row", "outcome"])
    assert (token, attempt, rows.column("row").to_pylist()) == ("t1", 1, [1])


def test_without_any_answers_nothing_is_known(tmp_path):
    history = History(UPath(tmp_path), POLICY)
    assert (len(history.answered), len(history.resumable)) == (0, 0)
    with pytest.raises(LedgerError, match="t9"):
        history.add("t9", 1)


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 7), st.sampled_from(KINDS), st.integers(0, 4)), max_size=12),
    st.lists(st.integers(1, 4), min_size=12, max_size=12),
)
def test_columns_decide_as_row_by_row(rows, attempts):
    table = batch_of(rows)
    at = np.array(attempts[: len(rows)], dtype=np.int64)
    expected = [
        next_step(POLICY, Tried(n, kind, None, STOPS.get(kind, "end_turn"), failed=failed))
        for n, (_, kind, failed) in zip(at.tolist(), rows, strict=True)
    ]
    steps, which = next_steps(POLICY, table, at)
    assert [steps[one] for one in which] == expected
    assert len(steps) == len(set(zip(which.tolist(), strict=True)))
    good = for_good(POLICY, table, 1)
    assert good.tolist() == [
        kind == "Succeeded"
        or (kind in FAILED and next_step(POLICY, Tried(1, kind, None, STOPS[kind])) is None)
        for _, kind, _ in rows
    ]
    assert kinds_in(table, FAILED).tolist() == [kind in FAILED for _, kind, _ in rows]


def test_situations_are_told_apart_however_many_words_there_are():
    count = 3000
    words = [f"w{n}" for n in range(count)]
    stops = ["max_tokens" if n % 2 else word for n, word in enumerate(words)]
    rows = pa.RecordBatch.from_pydict(
        {
            "outcome": pa.array(["Truncated"] * count).dictionary_encode(),
            "error_type": pa.array(words).dictionary_encode(),
            "stop_reason": pa.array(stops).dictionary_encode(),
            "asked_model": pa.array(words).dictionary_encode(),
            "asked_max_tokens": pa.array(range(1, count + 1), pa.int32()),
            "failed": pa.array(range(count), pa.int16()),
        }
    )
    steps, which = next_steps(POLICY, rows, np.ones(count, dtype=np.int64))
    tried = [
        Tried(1, "Truncated", word, stop, word, n + 1, n)
        for n, (word, stop) in enumerate(zip(words, stops, strict=True))
    ]
    assert [steps[at] for at in which] == [next_step(POLICY, one) for one in tried]
