"""Collecting: each request exactly one row, whatever the stream holds and wherever it is cut."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from batch_etl.batches.answers import Source, Tokens, answers_path, raw_path
from batch_etl.batches.collect import Collected, collect, lines
from batch_etl.batches.errors import Interrupted
from batch_etl.batches.request import custom_id
from batch_etl.batches.schema import OutputSchema
from batch_etl_tests.batches.engine import SENTIMENT

TOKEN = "0123456789abcdef"
OTHER = "fedcba9876543210"
SCHEMA = OutputSchema.load(SENTIMENT, "schema")


def line(name: str, answer: str = '{"sentiment":"positive"}') -> bytes:
    content = [{"type": "text", "text": answer}]
    usage = {"input_tokens": 2, "output_tokens": 1}
    message = {"model": "m", "id": "msg", "content": content, "stop_reason": "end_turn",
               "usage": usage}  # fmt: skip
    result = {"type": "succeeded", "message": message}
    return json.dumps({"custom_id": name, "result": result}).encode()


def price(model: str, tokens: Tokens) -> tuple[np.ndarray, np.ndarray]:
    return tokens[:, 0], tokens[:, 1]


def source(count: int) -> Source:
    keys = np.array([f"key {row:012}".encode() for row in range(count)], dtype="S16")
    return Source(keys, pa.nulls(count, pa.string()), pa.array([f"r{i}" for i in range(count)]))


def collected(folder: Path, chunks: Iterable[bytes], count: int) -> Collected:
    return collect(
        chunks,
        token=TOKEN,
        source=source(count),
        schema=SCHEMA,
        price=price,
        folder=UPath(folder),
    )


def answers(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(str(answers_path(UPath(folder), TOKEN))).to_pylist()


def raw(folder: Path) -> bytes:
    with pa.input_stream(str(raw_path(UPath(folder), TOKEN)), compression="zstd") as stream:
        return stream.read()


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(places)]


@given(
    st.lists(st.binary(max_size=6).filter(lambda one: b"\n" not in one), max_size=8),
    st.lists(st.integers(0, 200), max_size=8),
    st.booleans(),
)
def test_lines_are_whole_wherever_the_chunks_end(parts, cuts, ended):
    data = b"\n".join(parts) + (b"\n" if ended else b"")
    expected = [part for part in parts if part and not part.isspace()]
    assert list(lines(pieces(data, cuts))) == expected


@pytest.mark.parametrize("cut", range(0, 400, 23))
def test_a_chunk_may_end_anywhere(tmp_path, cut):
    data = b"".join(line(custom_id(TOKEN, row)) + b"\n" for row in (2, 0, 1))
    result = collected(tmp_path, pieces(data, [cut, cut + 1, 2 * cut]), 3)
    assert result.counts == {"Succeeded": 3}
    assert [row["row"] for row in answers(tmp_path)] == [2, 0, 1]
    assert raw(tmp_path) == data


EVENTS = st.lists(
    st.one_of(
        st.integers(0, 9).map(lambda row: ("row", row)),
        st.sampled_from([("foreign", 0), ("foreign", 3), ("beyond", 10), ("beyond", 999_999)]),
        st.sampled_from([("junk", b"{"), ("junk", b"[]"), ("junk", b"\xff"), ("junk", b"{}")]),
        st.just(("theirs", 0)),
        st.just(("blank", 0)),
    ),
    max_size=25,
)


@settings(max_examples=30)
@given(EVENTS, st.lists(st.integers(0, 5_000), max_size=6))
def test_each_request_has_exactly_one_row_and_every_odd_line_is_counted(
    tmp_path_factory, events, cuts
):
    folder = tmp_path_factory.mktemp("answers")
    made = {
        "row": lambda row: line(custom_id(TOKEN, row)),
        "foreign": lambda row: line(custom_id(OTHER, row)),
        "beyond": lambda row: line(custom_id(TOKEN, row)),
        "theirs": lambda _: line("somebody-elses-name"),
        "junk": lambda text: text,
        "blank": lambda _: b" ",
    }
    data = b"\n".join(made[kind](what) for kind, what in events)
    result = collected(folder, pieces(data, cuts), 10)
    kinds = Counter(kind for kind, _ in events)
    rows = [what for kind, what in events if kind == "row"]
    table = answers(folder)
    assert sorted(row["row"] for row in table) == list(range(10))
    assert {row["row"] for row in table if row["outcome"] == "Succeeded"} == set(rows)
    assert result.missing == 10 - len(set(rows))
    assert result.duplicates == len(rows) - len(set(rows))
    assert result.foreign == kinds["foreign"] + kinds["beyond"] + kinds["theirs"]
    assert result.unreadable == kinds["junk"]
    assert sum(n for kind, n in result.counts.items() if kind[0].isupper()) == 10
    assert result.totals.cost_pico_usd == 2 * len(set(rows))


def test_of_two_lines_for_one_request_the_first_counts(tmp_path):
    name = custom_id(TOKEN, 0)
    other = '{"sentiment":"negative"}'
    result = collected(tmp_path, [line(name) + b"\n" + line(name, other)], 1)
    (row,) = answers(tmp_path)
    assert row["output"] == '{"sentiment":"positive"}'
    assert result.counts == {"Succeeded": 1, "duplicate_lines": 1}
    assert result.totals.input_tokens == 2


def test_more_lines_than_one_group_holds_are_all_there(tmp_path):
    count = 9_000
    data = (line(custom_id(TOKEN, row)) + b"\n" for row in reversed(range(count)))
    result = collected(tmp_path, data, count)
    assert result.counts == {"Succeeded": count}
    table = answers(tmp_path)
    assert [row["row"] for row in table] == list(reversed(range(count)))
    assert all(row["record_id"] == f"r{row['row']}" for row in table)


@pytest.mark.parametrize("data", [b"", b"\n\n", b"   \r\n"])
def test_results_without_lines_are_all_missing(tmp_path, data):
    result = collected(tmp_path, [data], 3)
    assert result.counts == {"Missing": 3}
    assert [row["outcome"] for row in answers(tmp_path)] == ["Missing"] * 3


@pytest.mark.parametrize("error", [Interrupted("GET x", reason="cut"), KeyboardInterrupt()])
def test_nothing_appears_when_the_stream_breaks_and_what_was_there_stays(tmp_path, error):
    def broken() -> Iterator[bytes]:
        yield line(custom_id(TOKEN, 0)) + b"\n"
        raise error

    with pytest.raises(type(error)):
        collected(tmp_path, broken(), 2)
    assert list(tmp_path.iterdir()) == []

    data = line(custom_id(TOKEN, 1)) + b"\n"
    collected(tmp_path, [data], 2)
    with pytest.raises(type(error)):
        collected(tmp_path, broken(), 2)
    assert raw(tmp_path) == data
    assert [row["row"] for row in answers(tmp_path)] == [1, 0]
    assert len(list(tmp_path.iterdir())) == 2
