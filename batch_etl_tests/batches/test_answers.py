"""Answers files: outcomes as columns, exact money, and how each request was asked."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from upath import UPath

from batch_etl.batches.answers import (
    ANSWERS,
    USD,
    Source,
    Tokens,
    Totals,
    answer_rows,
    answers_path,
    faulty_answers,
    pico_usd,
    read_answers,
    usd,
)
from batch_etl.batches.errors import LedgerError
from batch_etl.batches.manifest import MANIFEST
from batch_etl.batches.outcome import BILLED, KINDS, Outcome
from batch_etl.batches.repair import Faulty
from batch_etl.batches.request import custom_id, new_token
from batch_etl.files import ParquetSink

KEYS = np.array([bytes([i]) * 15 + b"\0" for i in range(1, 11)], dtype="S16")
SOURCE = Source(KEYS, pa.array(["a"] * 5 + [None] * 5), pa.array([f"r{i}" for i in range(10)]))


HOW = {"claude_model": "opus", "max_tokens": 7, "faulty": "t-000001", "failed": 2}
ASKED = ("asked_model", "asked_max_tokens", "faulty", "failed")


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


def test_a_row_says_how_its_request_differed_from_the_question(tmp_path: Path):
    manifest = pa.Table.from_pylist(
        [
            {"request_key": b"k" * 16, "partition": 1, "record_row": row, "record_id": f"r{row}"}
            | how
            for row, how in enumerate([{}, HOW, {}])
        ],
        schema=MANIFEST,
    )
    source = Source.of(manifest, ["a", "b"])
    batch = answer_rows([2, 1], [good(), good()], source, price, Totals())
    plain, asked = batch.to_pylist()
    assert (asked["asked_model"], asked["asked_max_tokens"]) == ("opus", 7)
    assert (asked["faulty"], asked["failed"]) == ("t-000001", 2)
    assert [plain[name] for name in ASKED] == [None] * 4
    assert (plain["partition"], plain["record_id"]) == ("b", "r2")


def test_an_empty_manifest_is_a_source_of_nothing():
    assert len(Source.of(MANIFEST.empty_table(), []).keys) == 0


def test_a_file_from_before_there_were_later_ways_to_ask_is_read_as_plain(tmp_path: Path):
    folder = UPath(tmp_path)
    file_of(folder, "t1", good(), Outcome("Invalid", "why", text="x"))
    path = str(answers_path(folder, "t1"))
    table = pq.read_table(path)
    pq.write_table(table.select(ANSWERS.names[:-4]), path)
    (rows,) = read_answers(folder, "t1")
    assert rows.schema == ANSWERS
    assert pa.Table.from_batches([rows]).equals(table)
    (part,) = read_answers(folder, "t1", ["failed", "text"])
    assert part.to_pylist() == [{"failed": None, "text": None}, {"failed": None, "text": "x"}]


def test_faulty_answers_are_found_by_custom_id_wherever_they_stand(tmp_path: Path):
    folder = UPath(tmp_path)
    one, two = new_token(), new_token()
    rows = [3, 1, 2, 0]
    outcomes = [Outcome("Invalid", f"why {row}", text=f"text {row}") for row in rows]
    for token in (one, two):
        with ParquetSink(answers_path(folder, token), ANSWERS) as sink:
            sink.write(answer_rows(rows, outcomes, SOURCE, price, Totals()))
    wanted = [custom_id(one, 1), custom_id(two, 0), custom_id(one, 3)]
    assert faulty_answers(folder, wanted) == {
        wanted[0]: Faulty("text 1", "why 1"),
        wanted[1]: Faulty("text 0", "why 0"),
        wanted[2]: Faulty("text 3", "why 3"),
    }
    assert faulty_answers(folder, []) == {}
    with pytest.raises(LedgerError, match=f"{one}-000009, which a later attempt repairs, is not"):
        faulty_answers(folder, [custom_id(one, 9)])


@given(st.lists(st.none() | st.integers(0, 10**17), max_size=20), st.integers(0, 20))
def test_decimals_become_pico_dollars_again_also_of_a_part(pico, start):
    column = pa.array([None if n is None else Decimal(n).scaleb(-12) for n in pico], USD)
    assert pico_usd(column.slice(start)).tolist() == [n or 0 for n in pico[start:]]


def test_an_answers_file_that_is_gone_says_what_it_means(tmp_path: Path):
    with pytest.raises(LedgerError, match="would have to be bought again"):
        list(read_answers(UPath(tmp_path), "t9"))
