"""Packing: nothing lost, order kept, both limits held, by the bytes that are really sent."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_etl.batches.manifest import MANIFEST, Filling
from batch_etl.batches.packing import Payload, Room, fits_alone
from batch_etl.batches.payload import PIECE_BYTES
from batch_etl.batches.request import Params, custom_id, new_token, parse_custom_id
from batch_etl.batches.task import Packing

TOKEN = "0123456789abcdef"


def packed(params: Iterable[bytes], limits: Packing) -> list[Payload]:
    """Payloads filled as planning fills them; what fits alone nowhere is left out."""
    payloads = [Payload(new_token(), Room(limits))]
    for one in params:
        if not fits_alone(len(one), limits):
            continue
        if not payloads[-1].room.fits(len(one)):
            payloads.append(Payload(new_token(), Room(limits)))
        payloads[-1].add(one)
    return payloads


def body(payload: Payload) -> bytes:
    return b"".join(payload.blocks())


PARAMS = st.text(max_size=400).map(
    lambda text: json.dumps({"t": text}, separators=(",", ":")).encode()
)


@given(
    st.lists(PARAMS, max_size=60),
    st.integers(1, 20),
    st.integers(1_000, 4_000),
)
def test_every_request_is_in_one_payload_in_order_and_within_both_limits(params, count, size):
    limits = Packing(max_requests=count, max_bytes=size)
    payloads = packed(params, limits)
    sent = []
    for payload in payloads:
        whole = body(payload)
        assert len(whole) == payload.size_bytes <= size
        requests = json.loads(whole)["requests"]
        assert len(requests) == payload.count <= count
        ids = [request["custom_id"] for request in requests]
        assert [parse_custom_id(one) for one in ids] == [
            (payload.token, row) for row in range(len(ids))
        ]
        sent += [request["params"] for request in requests]
    assert sent == [json.loads(one) for one in params if fits_alone(len(one), limits)]


@given(st.lists(PARAMS, min_size=2, max_size=40), st.integers(2, 10), st.integers(1_000, 3_000))
def test_a_payload_is_closed_only_when_the_next_request_does_not_fit(params, count, size):
    limits = Packing(max_requests=count, max_bytes=size)
    payloads = packed(params, limits)
    for full, following in pairwise(payloads):
        first = json.loads(body(following))["requests"][0]
        entry_bytes = len(json.dumps(first, separators=(",", ":")).encode())
        assert full.count == count or full.size_bytes + entry_bytes + len(",") > size


@given(
    st.lists(st.lists(PARAMS, max_size=20), max_size=5),
    st.integers(1, 40),
    st.integers(1_000, 4_000),
)
def test_requests_that_are_packed_together_lie_as_if_packed_one_by_one(slices, count, size):
    limits = Packing(max_requests=count, max_bytes=size)
    own = [[one for one in some if fits_alone(len(one), limits)] for some in slices]
    filling, filled = Filling(limits), []
    row = 0
    for some in own:
        rows = list(range(row, row + len(some)))
        ids = [f"r{each}" for each in rows]
        keys = np.array([b"k%d" % each for each in rows], dtype="S16")
        params, places = Params(b"", some), np.array(rows, dtype=np.int64)
        filled += list(filling.fill(params, keys, 3, places, pa.array(ids, pa.string())))
        row += len(some)
    filled.append(filling.batch())
    alone = packed([one for some in own for one in some], limits)
    assert [batch.payload.count for batch in filled] == [one.count for one in alone]
    for batch, one in zip(filled, alone, strict=True):
        body_of_one = body(one).replace(one.token.encode(), batch.token.encode())
        assert body(batch.payload) == body_of_one
        assert batch.payload.size_bytes == one.size_bytes == len(body_of_one)
    manifest = pa.concat_tables([batch.manifest for batch in filled])
    assert manifest.schema == MANIFEST
    assert manifest.column("record_row").to_pylist() == list(range(row))
    assert manifest.column("record_id").to_pylist() == [f"r{each}" for each in range(row)]
    assert {*manifest.column("partition").to_pylist()} <= {3}
    keys = [b"k%d" % each for each in range(row)]
    assert [key.rstrip(b"\0") for key in manifest.column("request_key").to_pylist()] == keys


def test_large_requests_that_are_packed_together_lie_in_the_same_blocks():
    params = [b'{"text":"' + b"x" * (170_000 * (i % 9)) + b'"}' for i in range(30)]
    one, together = Payload(TOKEN, Room(Packing())), Payload(TOKEN, Room(Packing()))
    for each in params:
        one.add(each)
    for start in (0, 7):
        some = params[start : 7 if start == 0 else None]
        beginning, ends = b'{"text":"', [each.removeprefix(b'{"text":"') for each in some]
        together.extend(Params(beginning, ends), np.array([len(each) for each in some]))
    assert list(together.blocks()) == list(one.blocks())
    assert max(map(len, together.blocks())) > PIECE_BYTES  # one of them is longer than a piece
    assert any(len(block) <= PIECE_BYTES for block in together.blocks())
    assert together.room == one.room


@pytest.mark.parametrize(("spare", "fits"), [(0, True), (-1, False)])
def test_a_request_fits_up_to_the_very_last_byte(spare, fits):
    payload = Payload.of(TOKEN, [b"{" + b" " * 2_000 + b"}"], Packing())
    limits = Packing(max_bytes=payload.size_bytes + spare)
    assert fits_alone(2_002, limits) is fits


@pytest.mark.parametrize(("spare", "fits"), [(0, True), (-1, False)])
def test_the_comma_before_a_second_request_counts(spare, fits):
    one = b'{"a":"' + b"x" * 600 + b'"}'
    both = Payload.of(TOKEN, [one, one], Packing())
    room = Room(Packing(max_bytes=both.size_bytes + spare))
    room.add(len(one))
    assert room.fits(len(one)) is fits


def test_a_payload_of_several_blocks_is_the_same_bytes_each_time_it_is_read():
    params = [b'{"text":"' + bytes([97 + i % 26]) * 300_000 + b'"}' for i in range(12)]
    payload = Payload.of(TOKEN, params, Packing())
    first = list(payload.blocks())
    assert len(first) > 2
    assert b"".join(first) == body(payload)
    assert len(body(payload)) == payload.size_bytes
    ids = [request["custom_id"] for request in json.loads(body(payload))["requests"]]
    assert ids == [custom_id(TOKEN, row) for row in range(12)]


def test_a_payload_without_requests_is_still_whole_json():
    payload = Payload(TOKEN, Room(Packing()))
    assert json.loads(body(payload)) == {"requests": []}
    assert len(body(payload)) == payload.size_bytes
