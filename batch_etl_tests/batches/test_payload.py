"""A payload's bytes go out whole, in pieces, or not at all."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_etl.batches.errors import PayloadBroken
from batch_etl.batches.payload import FilePayload, MemoryPayload, Upload, regrouped

blocks = st.lists(st.binary(max_size=20), max_size=20)


@given(blocks, st.integers(1, 12))
def test_regrouping_keeps_every_byte_in_order_and_no_piece_too_large(
    given_blocks: list[bytes], piece_bytes: int
) -> None:
    pieces = list(regrouped(given_blocks, piece_bytes))
    assert b"".join(pieces) == b"".join(given_blocks)
    assert all(0 < len(piece) <= piece_bytes for piece in pieces)


@given(st.lists(st.binary(min_size=1, max_size=5), min_size=1, max_size=50))
def test_small_blocks_are_joined(small: list[bytes]) -> None:
    pieces = list(regrouped(small, 10))
    assert all(len(a) + len(b) > 10 for a, b in itertools.pairwise(pieces))
    assert b"".join(pieces) == b"".join(small)


@given(blocks)
def test_a_whole_payload_is_handed_over_and_counted(given_blocks: list[bytes]) -> None:
    upload = Upload(MemoryPayload(given_blocks))
    assert b"".join(upload) == b"".join(given_blocks)
    assert upload.handed_bytes == upload.size_bytes == sum(map(len, given_blocks))


@pytest.mark.parametrize("found_bytes", [0, 1, 99, 101, 5_000_000])
def test_a_file_of_another_size_is_never_handed_over_whole(
    tmp_path: Path, found_bytes: int
) -> None:
    path = tmp_path / "payload"
    path.write_bytes(bytes(100))
    upload = Upload(FilePayload(path))
    path.write_bytes(bytes(found_bytes))
    handed: list[bytes] = []
    with pytest.raises(PayloadBroken) as caught:
        handed.extend(upload)
    assert sum(map(len, handed)) == upload.handed_bytes < 100
    assert caught.value.promised_bytes == 100
