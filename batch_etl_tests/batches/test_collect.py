"""Collecting: each request exactly one row, whatever the stream holds and wherever it is cut."""

from __future__ import annotations

import gc
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

from batch_etl.batches.answers import Source, Tokens, answer_rows, answers_path, raw_path
from batch_etl.batches.collect import Collected, collect, lines
from batch_etl.batches.errors import Interrupted
from batch_etl.batches.outcome import MISSING, Outcome, decode
from batch_etl.batches.request import custom_id, parse_custom_id
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
    st.lists(st.binary(max_size=6).filter(lambda one: not {*one} & {*b"\n{"}), max_size=8),
    st.lists(st.integers(0, 200), max_size=8),
    st.booleans(),
)
def test_lines_are_whole_wherever_the_chunks_end(parts, cuts, ended):
    data = b"\n".join(parts) + (b"\n" if ended else b"")
    expected = [part for part in parts if part and not part.isspace()]
    assert list(lines(pieces(data, cuts))) == expected


@pytest.mark.parametrize("left", [1, 7, 100])
def test_a_stream_that_ends_in_the_middle_of_a_line_was_cut_off(left):
    data = line(custom_id(TOKEN, 0)) + b"\n" + line(custom_id(TOKEN, 1))
    assert len(list(lines([data]))) == 2
    with pytest.raises(Interrupted, match="the last line is not whole"):
        list(lines([data[:-left]]))


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
        st.sampled_from([("junk", b"{]"), ("junk", b"[]"), ("junk", b"\xff"), ("junk", b"{}")]),
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


def test_odd_lines_among_many_stand_where_they_came_and_what_came_before_counts(tmp_path):
    count = 9_000
    data = [line(custom_id(TOKEN, row)) + b"\n" for row in range(count)]
    data[5_000] = line(custom_id(TOKEN, 4_999), '{"sentiment":"negative"}') + b"\n"
    data[5_001] = b'{"custom_id":"%s","result":[]}\n' % custom_id(TOKEN, 5_001).encode()
    data[8_000] = line(custom_id(TOKEN, 7), '{"sentiment":"negative"}') + b"\n"
    result = collected(tmp_path, data, count)
    assert result.counts == {
        "Succeeded": count - 3, "Errored": 1, "Missing": 2, "duplicate_lines": 2,
    }  # fmt: skip
    table = answers(tmp_path)
    gone = [5_000, 8_000]
    assert [row["row"] for row in table] == [*(set(range(count)) - {*gone}), *gone]
    assert {row["output"] for row in table} == {'{"sentiment":"positive"}', None}


@pytest.mark.parametrize("enabled", [True, False])
def test_the_search_for_cycles_is_on_again_afterwards_if_it_was(tmp_path, enabled):
    def seen() -> Iterator[bytes]:
        during.append(gc.isenabled())
        yield line(custom_id(TOKEN, 0))
        raise KeyboardInterrupt

    during: list[bool] = []
    was = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with pytest.raises(KeyboardInterrupt):
            collected(tmp_path, seen(), 1)
        assert (during, gc.isenabled()) == ([False], enabled)
    finally:
        (gc.enable if was else gc.disable)()


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


def test_a_result_that_is_written_over_two_lines_is_two_unreadable_ones(tmp_path):
    good, other = line(custom_id(TOKEN, 0)), line(custom_id(TOKEN, 1))
    split = other.replace(b'"result"', b'\n"result"')
    result = collected(tmp_path, [good + b"\n" + split + b"\n"], 2)
    assert result.counts == {"Succeeded": 1, "Missing": 1, "unreadable_lines": 2}


ANSWERED = {
    "model": "m",
    "id": "msg",
    "content": [{"type": "text", "text": '{"sentiment":"positive"}'}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 2, "output_tokens": 1},
}
RESULTS: list[Any] = [
    {"type": "succeeded", "message": ANSWERED},
    {"type": "succeeded", "message": {**ANSWERED, "model": None, "id": "m\u00fc"}},
    {"type": "succeeded", "message": {**ANSWERED, "usage": {"input_tokens": 3}}},
    {"type": "succeeded", "message": {**ANSWERED, "usage": {"input_tokens": -3}}},
    {"type": "succeeded", "message": {**ANSWERED, "content": [{"type": "text", "text": "no"}]}},
    {"type": "succeeded", "message": {**ANSWERED, "stop_reason": "refusal"}},
    {"type": "succeeded", "message": {**ANSWERED, "stop_reason": "max_tokens", "content": []}},
    {"type": "succeeded"},
    {"type": "succeeded", "message": "of an unknown shape"},
    {"type": "errored", "error": {"error": {"type": "invalid_request", "message": "long"}}},
    {"type": "errored", "error": [1]},
    {"type": "expired"},
    {"type": "canceled"},
    {"type": "postponed"},
    None,
]
NAMES = [
    *[custom_id(TOKEN, row) for row in range(8)],
    custom_id(TOKEN, 8),
    custom_id(OTHER, 1),
    f"{TOKEN}-00000",
    f"{TOKEN}-0000 1",
    f"{TOKEN}-+00001",
    f"{TOKEN}-00000\u0661",
    f"{TOKEN}_000001",
]
WRITTEN = st.builds(
    lambda name, result, indent: json.dumps(
        {"custom_id": name, "result": result}, indent=indent
    ).encode(),
    st.sampled_from(NAMES),
    st.sampled_from(RESULTS),
    st.sampled_from([None, None, None, 1]),
)
ODD = st.sampled_from([b"", b" \r", b"\x0c", b"[]", b"null", b"\xff", b'{"custom_id":1}', b'"{"'])


def line_by_line(data: bytes, count: int) -> tuple[list[dict[str, Any]], Collected]:
    """What the results tell, found out in the plainest way."""
    told: dict[int, Outcome] = {}
    plain = Collected()
    for each in lines([data]):
        decoded = decode(each, SCHEMA)
        name = parse_custom_id(decoded.custom_id) if decoded is not None else None
        if decoded is None:
            plain.unreadable += 1
        elif name is None or name[0] != TOKEN or name[1] >= count:
            plain.foreign += 1
        elif name[1] in told:
            plain.duplicates += 1
        else:
            told[name[1]] = decoded.outcome
    for row in range(count):
        plain.missing += row not in told
        told.setdefault(row, MISSING)
    rows = answer_rows([*told], [*told.values()], source(count), price, plain.totals)
    return rows.to_pylist(), plain


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.one_of(WRITTEN, WRITTEN, WRITTEN, ODD), max_size=12),
    st.sampled_from([b"\n", b"\r\n", b"\n\n", b" \n", b"\n "]),
    st.lists(st.integers(0, 3_000), max_size=3),
    st.lists(st.tuples(st.integers(0, 3_000), st.sampled_from(b'{}"\n ,:\\x\xc3')), max_size=2),
    st.booleans(),
)
def test_lines_that_are_decoded_together_tell_what_each_tells_alone(
    tmp_path_factory, written, between, cuts, damages, ended
):
    folder = tmp_path_factory.mktemp("answers")
    data = bytearray(between.join(written) + b"\n" * ended)
    for place, letter in damages:
        if data:
            data[place % len(data)] = letter
    try:
        expected, plain = line_by_line(bytes(data), 8)
    except Interrupted:
        with pytest.raises(Interrupted):
            collected(folder, pieces(bytes(data), cuts), 8)
        return
    assert collected(folder, pieces(bytes(data), cuts), 8) == plain
    assert answers(folder) == expected
