"""Key sets and key maps answer as Python's own set and dict do."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_etl.batches.keys import KeyMap, KeySet, from_arrow, halves
from batch_etl.batches.request import KEY_BYTES, key_hex, keys_array

# Few different keys, so that they repeat; zero bytes at the end, which NumPy drops; shared halves.
HALF = st.sampled_from([b"\0" * 8, b"A" * 8, b"\xff" * 8, b"B" + b"\0" * 7, b"\0" * 7 + b"C"])
KEY = st.tuples(HALF, HALF).map(b"".join) | st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES)
KEYS = st.lists(KEY, max_size=40)
WORDS = st.lists(st.integers(0, 40) | st.integers(0, 2**64 - 1), max_size=12)


def array(keys: list[bytes]) -> np.ndarray:
    return np.array(keys, dtype=f"S{KEY_BYTES}")


def words(numbers: list[int]) -> np.ndarray:
    return np.array(numbers, dtype=np.uint64)


@given(st.lists(WORDS, max_size=4), st.lists(WORDS, max_size=24), WORDS)
def test_a_key_set_contains_what_was_put_in_and_nothing_else(first, later, asked):
    ours = KeySet(words(numbers) for numbers in first)
    for numbers in later:
        ours.add(words(numbers))
    plain = {number for numbers in [*first, *later] for number in numbers}
    everything = [*asked, *plain]
    assert ours.contains(words(everything)).tolist() == [one in plain for one in everything]


def test_a_key_set_that_grows_by_few_finds_the_old_and_the_new():
    prefixes = np.random.default_rng(1).integers(1, 2**64, 700_000, dtype=np.uint64)
    ours = KeySet()
    for start in range(0, len(prefixes), 2500):
        some = prefixes[start : start + 2500]
        assert not ours.contains(some).any()
        ours.add(some)
        ours.add(some[:3])
    assert ours.contains(prefixes).all()
    assert not ours.contains(prefixes + np.uint64(1)).any()
    assert ours.all().tolist() == sorted(prefixes.tolist())
    assert ours.contains(prefixes).all()


def test_a_key_set_of_many_runs_finds_all_of_them():
    prefixes = np.random.default_rng(2).integers(0, 2**64, 3_000_000, dtype=np.uint64)
    ours = KeySet()
    for part in np.split(prefixes, 30):
        ours.add(part)
    ours.add(prefixes[:10] + np.uint64(1))
    assert ours.contains(prefixes).all()
    assert ours.contains(prefixes[:20] + np.uint64(1)).tolist() == [True] * 10 + [False] * 10
    assert len(ours) == 3_000_010


@pytest.mark.parametrize("first", [0, 2**64 - 50_000], ids=["lowest", "highest"])
def test_prefixes_that_lie_side_by_side_are_found_too(first):
    prefixes = np.arange(50_000, dtype=np.uint64) + np.uint64(first)
    even = prefixes[::2]
    assert KeySet([even]).contains(prefixes).tolist() == [True, False] * 25_000
    young = KeySet()
    for part in np.split(even, 10):
        young.add(part)
    assert young.contains(prefixes).tolist() == [True, False] * 25_000


@given(KEYS, st.data())
def test_the_prefixes_of_chosen_positions_are_those_of_their_keys(keys, data):
    chosen = data.draw(st.lists(st.booleans(), min_size=len(keys), max_size=len(keys)))
    ours = KeyMap(array(keys)).prefixes(np.array(chosen, dtype=bool))
    high = halves(array(keys))[0]
    wanted = {int(one) for one, is_wanted in zip(high, chosen, strict=True) if is_wanted}
    assert ours.contains(high).tolist() == [int(one) in wanted for one in high]


@given(KEYS, KEYS)
def test_a_key_map_finds_every_position_of_a_key(stored, asked):
    places: dict[bytes, list[int]] = defaultdict(list)
    for position, key in enumerate(stored):
        places[key].append(position)
    index, position = KeyMap(array(stored)).positions(array(asked))
    found = sorted(zip(index.tolist(), position.tolist(), strict=True))
    assert found == [(i, p) for i, key in enumerate(asked) for p in places[key]]


@given(KEYS)
def test_halves_sort_as_the_keys_do_and_tell_all_of_them(keys):
    high, low = halves(array(keys))
    pairs = list(zip(high.tolist(), low.tolist(), strict=True))
    assert [h.to_bytes(8, "big") + w.to_bytes(8, "big") for h, w in pairs] == keys


@given(KEYS, st.integers(0, 10), st.integers(0, 10))
def test_keys_survive_arrow_whole_and_sliced(keys, start, length):
    column = keys_array(array(keys))
    assert column.to_pylist() == keys
    part = column.slice(min(start, len(keys)), length)
    padded = [bytes(key).ljust(KEY_BYTES, b"\0") for key in from_arrow(part)]
    assert padded == keys[min(start, len(keys)) :][:length]


@given(KEY)
def test_a_key_is_shown_with_all_its_zero_bytes(key):
    assert key_hex(array([key])[0]) == key.hex()


def test_nothing_is_found_in_nothing():
    assert KeySet().contains(words([1, 2])).tolist() == [False, False]
    assert len(KeySet()) == 0
    empty = from_arrow(pa.array([], pa.binary(KEY_BYTES)))
    index, position = KeyMap(empty).positions(array([b"x" * 16]))
    assert len(index) == len(position) == 0
    index, position = KeyMap(array([b"x" * 16])).positions(empty)
    assert len(index) == len(position) == 0
