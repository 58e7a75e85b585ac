"""Sets and maps of request_keys as sorted NumPy arrays: 8 to 20 bytes a key, no Python objects.

A key is 16 bytes. Its first 8, read as an unsigned integer, sort and search fast and fit twenty
million into 160 MB; they serve as a filter whose rare false hit (one in 10^12 for a million keys
among twenty million) is found out later, when whole keys are compared.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batch_etl.batches.request import KEY_BYTES

U64 = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.int64]

_RUNS_BEFORE_MERGE = 8
_FITS_THE_CACHE = 2**17
_WORTH_SORTING = 64


def halves(keys: npt.NDArray[np.bytes_]) -> tuple[U64, U64]:
    """The two 8-byte halves of 16-byte keys, each as unsigned integers."""
    words = np.ascontiguousarray(keys, dtype=f"S{KEY_BYTES}").view(">u8").reshape(-1, 2)
    native = words.astype(np.uint64)
    return np.ascontiguousarray(native[:, 0]), np.ascontiguousarray(native[:, 1])


def from_arrow(column: pa.Array) -> npt.NDArray[np.bytes_]:
    """A fixed-size binary Arrow array without nulls as NumPy S16, without a copy where possible."""
    data = column.buffers()[1]
    whole = np.frombuffer(data, dtype=f"S{KEY_BYTES}") if data is not None else np.empty(0, "S16")
    return whole[column.offset : column.offset + len(column)]


class KeySet:
    """A growing set of key prefixes; membership of many keys at once."""

    def __init__(self, prefixes: Iterable[U64] = ()) -> None:
        self._runs: list[U64] = [_sorted([*prefixes, np.empty(0, np.uint64)])]

    def __len__(self) -> int:
        """Keys added; those added twice count once within one call of :meth:`add`."""
        return sum(len(run) for run in self._runs)

    def add(self, prefixes: U64) -> None:
        if not len(prefixes):
            return
        self._runs.append(_sorted([prefixes]))
        if len(self._runs) > _RUNS_BEFORE_MERGE:
            self._runs[1:] = [_sorted(self._runs[1:])]
            if len(self._runs[1]) * 4 > len(self._runs[0]):
                self._runs = [_sorted(self._runs)]

    def all(self) -> U64:
        """Every prefix that was added, sorted, once."""
        self._runs = [_sorted(self._runs)]
        return self._runs[0]

    def contains(self, prefixes: U64) -> Mask:
        """For each prefix, whether it was added."""
        found = np.zeros(len(prefixes), dtype=bool)
        for run in self._runs:
            if len(run):
                found |= run[_places(run, prefixes)] == prefixes
        return found


def _sorted(runs: list[U64]) -> U64:
    """All prefixes, ascending, each once. ``np.unique`` does the same ten times slower."""
    ordered = np.concatenate(runs)
    ordered.sort()  # in place: twenty million prefixes are 160 MB
    again = ordered[1:] == ordered[:-1]
    return ordered[np.concatenate(([True], ~again))] if again.any() else ordered


def _places(run: U64, wanted: U64) -> Positions:
    """Where each wanted prefix stands first in a sorted run that is not empty, if it does.

    In a run that is larger than the processor's cache each search would wait for memory some
    twenty times; sorted searches go through it once.
    """
    if len(run) < _FITS_THE_CACHE or len(wanted) < _WORTH_SORTING:
        at = np.searchsorted(run, wanted)
    else:
        order = np.argsort(wanted)
        at = np.empty(len(wanted), dtype=np.int64)
        at[order] = np.searchsorted(run, wanted[order])
    at[at == len(run)] = 0
    return at


class KeyMap:
    """From whole keys to the positions (0, 1, ...) at which they stand; a key may stand often."""

    def __init__(self, keys: npt.NDArray[np.bytes_]) -> None:
        high, low = halves(keys)
        self._order: Positions = np.argsort(high, kind="stable")
        self._high = high[self._order]
        self._low = low[self._order]
        self._distinct = not (self._high[1:] == self._high[:-1]).any()

    def prefixes(self) -> U64:
        """The keys' first halves, sorted."""
        return self._high

    def positions(self, keys: npt.NDArray[np.bytes_]) -> tuple[Positions, Positions]:
        """Pairs (index into ``keys``, position in the map) of all matches, fan-out included."""
        high, low = halves(keys)
        if not len(self._high):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        first = _places(self._high, high)
        if self._distinct:
            exact = (self._high[first] == high) & (self._low[first] == low)
            return np.flatnonzero(exact), self._order[first[exact]]
        after = np.searchsorted(self._high, high, side="right")
        counts = np.where(self._high[first] == high, after - first, 0)
        index, place = spread(first, counts)
        exact = self._low[place] == low[index]
        return index[exact], self._order[place[exact]]


def spread(starts: Positions, counts: Positions) -> tuple[Positions, Positions]:
    """Of ranges, each with a start and a length: (number of the range, place) of all places."""
    index = np.repeat(np.arange(len(starts)), counts)
    before = np.cumsum(counts) - counts
    return index, np.repeat(starts - before, counts) + np.arange(len(index))
