"""Answers files: outcomes as columns, exact money, and what answers a key for good."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from upath import UPath

from batch_etl.batches.answers import (
    ANSWERS,
    Source,
    Tokens,
    Totals,
    answer_rows,
    answered_keys,
    answers_path,
    read_answers,
    reusable_rows,
    usd,
)
from batch_etl.batches.errors import LedgerError
from batch_etl.batches.keys import halves
from batch_etl.batches.outcome import BILLED, KINDS, MISSING, Outcome
from batch_etl.files import ParquetSink

KEYS = np.array([bytes([i]) * 15 + b"\0" for i in range(1, 11)], dtype="S16")
SOURCE = Source(KEYS, pa.array(["a"] * 5 + [None] * 5), pa.array([f"r{i}" for i in range(10)]))


def price(model: str, tokens: Tokens) -> tuple[np.ndarray, np.ndarray] | None:
    """One pico-dollar an input token, three an output token; the standard price is double."""
    if model == "unknown":
        return None
    cost = tokens[:, 0] + 3 * tokens[:, 1]
    return cost, 2 * cost


def made(*outcomes: Outcome, rows: list[int] | None = None) -> tuple[list[dict], Totals]:
    totals = Totals()
    batch = answer_rows(rows or list(range(len(outcomes))), outcomes, SOURCE, price, totals)
    assert batch.schema == ANSWERS
    return batch.to_pylist(), totals


def good(tokens=(10, 5, 1, 2, 3), model: str = "m") -> Outcome:
    return Outcome("Succeeded", output="{}", model=model, tokens=tokens)


def test_each_row_says_whose_it_is_what_it_is_and_what_it_cost():
    (first, second), totals = made(good(), Outcome("Expired", "late"), rows=[7, 2])
    assert first["request_key"] == bytes(KEYS[7]).ljust(16, b"\0")
    assert (first["row"], first["partition"], first["record_id"]) == (7, None, "r7")
    assert (second["row"], second["partition"], second["record_id"]) == (2, "a", "r2")
    assert first["cost_usd"] == Decimal(25).scaleb(-12)
    assert (first["input_tokens"], first["output_tokens"]) == (10, 5)
    assert (first["cache_read_tokens"], first["cache_write_tokens"]) == (1, 5)
    assert (second["outcome"], second["reason"], second["cost_usd"]) == ("Expired", "late", 0)
    assert second["input_tokens"] is None
    assert totals == Totals({"Succeeded": 1, "Expired": 1}, 10, 5, 1, 5, 25, 50)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in BILLED])
def test_what_is_not_billed_costs_nothing(kind):
    ((row,), totals) = made(Outcome(kind, "why"))
    assert row["cost_usd"] == 0
    assert totals.cost_pico_usd == 0


@pytest.mark.parametrize(
    "outcome",
    [
        good(model="unknown"),
        good(tokens=(None, None, None, None, None)),
        good(tokens=(5, None, None, None, None)),
        Outcome("Invalid", "a message of an unknown shape"),
    ],
)
def test_what_was_billed_at_an_unknown_price_or_size_costs_unknown_never_zero(outcome):
    (known, row), totals = made(good(), outcome)
    assert row["cost_usd"] is None
    assert known["cost_usd"] is not None
    assert totals.cost_pico_usd is totals.standard_pico_usd is None


def test_an_unknown_cost_stays_unknown_whatever_comes_after():
    totals = Totals()
    for outcome in (good(model="unknown"), good()):
        answer_rows([0], [outcome], SOURCE, price, totals)
    assert totals.cost_pico_usd is None
    assert totals.outcomes == {"Succeeded": 2}


@given(st.lists(st.integers(0, 2**62), max_size=20))
def test_pico_dollars_become_exact_decimals(pico):
    known = np.array([number % 3 > 0 for number in pico], dtype=bool)
    small = [number % 10**17 for number in pico]
    column = usd(np.array(small, dtype=np.int64), known)
    expected = [
        Decimal(n).scaleb(-12) if k else None for n, k in zip(small, known.tolist(), strict=True)
    ]
    assert column.to_pylist() == expected


def file_of(folder: UPath, token: str, *outcomes: Outcome) -> None:
    with ParquetSink(answers_path(folder, token), ANSWERS) as sink:
        rows = list(range(len(outcomes)))
        sink.write(answer_rows(rows, outcomes, SOURCE, price, Totals()))


def test_only_what_was_paid_for_answers_a_key_for_good(tmp_path: Path):
    folder = UPath(tmp_path)
    file_of(folder, "t1", good(), Outcome("Expired"), Outcome("Refused"), Outcome("Errored"))
    file_of(folder, "t2", MISSING, Outcome("Invalid"), Outcome("Canceled"))
    keys = answered_keys(folder, ["t1", "t2"])
    prefixes, _ = halves(KEYS)
    assert keys.contains(prefixes[:4]).tolist() == [True, True, True, False]
    assert answered_keys(folder, []).contains(prefixes).tolist() == [False] * 10


def test_reusable_rows_are_chosen_row_by_row():
    outcomes = [good(), Outcome("Missing"), Outcome("Truncated"), Outcome("Errored")]
    batch = answer_rows(range(4), outcomes, SOURCE, price, Totals())
    assert reusable_rows(batch).column("row").to_pylist() == [0, 2]
    assert reusable_rows(batch.slice(0, 1)).num_rows == 1
    assert reusable_rows(batch.slice(0, 0)).num_rows == 0


def test_an_answers_file_that_is_gone_says_what_it_means(tmp_path: Path):
    with pytest.raises(LedgerError, match="would have to be bought again"):
        list(read_answers(UPath(tmp_path), "t9"))
