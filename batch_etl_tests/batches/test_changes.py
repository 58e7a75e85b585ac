"""What is different from last time, in the task and in the records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from upath import UPath

from batch_etl.batches.changes import (
    Compared,
    Earlier,
    changed_in_place,
    id_hashes,
    task_changes,
)
from batch_etl_tests.batches.engine import SENTIMENT, task

OTHER: dict[str, Any] = {
    **SENTIMENT,
    "properties": {**SENTIMENT["properties"], "why": {"type": "string"}},
}
BLOCKS = [{"type": "text", "text": "You classify."}]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({}, {}, []),
        (
            {},
            {"claude_model": "claude-sonnet-4-6"},
            ["claude_model: claude-haiku-4-5 -> claude-sonnet-4-6"],
        ),
        ({}, {"max_tokens": 200}, ["max_tokens: 100 -> 200"]),
        ({}, {"system": "Be kind."}, ["system: none -> Be kind."]),
        (
            {},
            {"prompt": "Classify this:\n{{ text }}"},
            ["prompt:\n  -Classify:\n  +Classify this:"],
        ),
        (
            {},
            {"output_schema": OTHER},
            ['output_schema.properties.why: none -> {"type":"string"}'],
        ),
        ({}, {"params": {"temperature": 0}}, ["params.temperature: none -> 0"]),
        (
            {"params": {"temperature": 0}},
            {"params": {"temperature": 0.5}},
            ["params.temperature: 0 -> 0.5"],
        ),
        (
            {"system": BLOCKS},
            {"system": [{**BLOCKS[0], "text": "You judge."}]},
            ["system[0].text: You classify. -> You judge."],
        ),
        ({}, {"packing": {"max_requests": 5}}, []),
    ],
)
def test_a_change_of_the_task_is_told_by_the_name_that_the_user_wrote(before, after, told) -> None:
    assert task_changes(task(**before).definition, task(**after).definition) == told


def test_a_long_change_of_the_prompt_is_told_in_short() -> None:
    long = "\n".join(f"line {i} " + "x" * 200 for i in range(50))
    (change,) = task_changes(task().definition, task(prompt=long + "{{ text }}").definition)
    assert "... and 46 more lines" in change
    assert max(len(line) for line in change.splitlines()) < 110


@given(st.lists(st.text(max_size=12), max_size=60))
def test_texts_have_one_hash_exactly_where_they_are_equal(texts: list[str]) -> None:
    hashes = id_hashes(pa.array(["before", *texts], pa.string()).slice(1)).tolist()
    assert len(set(hashes)) == len(set(texts))
    assert dict(zip(texts, hashes, strict=True)) == {
        text: id_hashes(pa.array([text]))[0] for text in texts
    }


def test_as_many_hashes_as_ids() -> None:
    numbers = pa.array(np.arange(300_000)).cast(pa.string())
    assert len(np.unique(id_hashes(numbers))) == 300_000


def results(path: Path, rows: dict[str, str | None]) -> UPath:
    keys = pa.array(list(rows.values()), pa.string())
    pq.write_table(pa.table({"record_id": list(rows), "request_key": keys}), path)
    return UPath(path)


def test_records_are_new_changed_or_as_before(tmp_path: Path) -> None:
    key, other = "0123456789abcdef" * 2, "f" * 32
    before = results(tmp_path / "all.parquet", {"same": key, "changed": other, "unsent": None})
    compared = Compared()
    prefix = int(key[:16], 16)
    ids = id_hashes(pa.array(["new", "same", "changed", "unsent"]))
    keys = np.array([prefix, prefix, prefix, 0], np.uint64)
    Earlier(before).compare(ids, keys, compared)
    assert compared.counts == {"new": 1, "changed": 1}


def test_without_results_from_before_all_records_are_new(tmp_path: Path) -> None:
    compared = Compared()
    ids = id_hashes(pa.array(["a", "b"]))
    Earlier(UPath(tmp_path / "none.parquet")).compare(ids, ids, compared)
    assert compared.counts == {"new": 2, "changed": 0}


def written_plan(path: Path, ids: list[str], keys: str) -> UPath:
    columns = {
        "record_id": pa.array(ids, pa.string()),
        "request_key": pa.array([key.encode() * 16 for key in keys], pa.binary(16)),
    }
    pq.write_table(pa.table(columns), path, row_group_size=3)
    return UPath(path)


@pytest.mark.parametrize(
    ("ids", "keys", "changed"),
    [
        (["a", "b", "c", "d"], "1234", 0),
        (["a", "b", "c", "d"], "1x3x", 2),
        (["a", "c", "b", "d"], "1234", None),
        (["a", "b", "c"], "123", None),
        (["a", "b", "c", "d", "e"], "12345", None),
    ],
)
def test_requests_of_the_same_records_are_compared_in_their_places(
    tmp_path: Path, ids: list[str], keys: str, changed: int | None
) -> None:
    before = written_plan(tmp_path / "before.parquet", ["a", "b", "c", "d"], "1234")
    plan = written_plan(tmp_path / "plan.parquet", ids, keys)
    assert changed_in_place(plan, before) == changed
    assert changed_in_place(plan, UPath(tmp_path / "none.parquet")) is None
