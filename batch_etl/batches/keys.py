"""Sets and maps of request_keys as sorted NumPy arrays: 8 to 20 bytes a key, no Python objects.

A key is 16 bytes. Its first 8, read as an unsigned integer, sort and search fast and fit twenty
million into 200 MB; they serve as a filter whose rare false hit (one in 10^12 for a million keys
among twenty million) is found out later, when whole keys are compared.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batch_etl.batches.request import KEY_BYTES

U64 = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.int64]

_RUNS_BEFORE_MERGE = 8
_QUICKLY_SORTED = 2**20
_FEW = 2**14
_SLOTS = 2**20
_SLOT_BITS = np.uint64(_SLOTS - 1)
_RANGES_AT_ONCE = 2**20
_MOST_STEPS = 12


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
        self._young = _Young()
        self._runs: list[_Run] = []
        self._append([*prefixes])

    def __len__(self) -> int:
        """Keys added; one that was added by several calls of :meth:`add` may count often."""
        return sum(map(len, self._runs)) + self._young.count

    def add(self, prefixes: U64) -> None:
        if len(prefixes) > _FEW or not prefixes.all():  # a zero has no place among the young
            self._append([prefixes])
        elif len(prefixes):
            if self._young.is_full:
                self._append([self._young.taken()])
            self._young.add(prefixes)

    def all(self) -> U64:
        """Every prefix that was added, sorted, once."""
        if self._young.count or len(self._runs) != 1:
            self._runs = [_merged([*self._runs, _Run([self._young.taken()])])]
        return self._runs[0].ordered

    def contains(self, prefixes: U64) -> Mask:
        """For each prefix, whether it was added."""
        found = self._young.contains(prefixes)
        for run in self._runs:
            found |= run.contains(prefixes)
        return found

    def _append(self, prefixes: list[U64]) -> None:
        run = _Run(prefixes)
        if not len(run):
            return
        self._runs.append(run)
        if len(self) <= _QUICKLY_SORTED:
            self._runs = [_merged(self._runs)]
        elif len(self._runs) > _RUNS_BEFORE_MERGE:
            self._runs[1:] = [_merged(self._runs[1:])]
            if len(self._runs[1]) * 4 > len(self._runs[0]):
                self._runs = [_merged(self._runs)]


class _Run:
    """Prefixes in ascending order, each once, and where each of their equal ranges begins.

    Prefixes are parts of digests, so they lie evenly and a range holds about three of them: one
    that is looked for is found in a step or two, where a binary search would wait for memory some
    twenty times.
    """

    def __init__(self, prefixes: list[U64], *, ordered: bool = False) -> None:
        """``ordered``: as they are, and they may stand often."""
        self.ordered = prefixes[0] if ordered else _sorted(prefixes)
        self._last = max(len(self.ordered) - 1, 0)

    def __len__(self) -> int:
        return len(self.ordered)

    @cached_property
    def _ranges(self) -> tuple[np.uint64, npt.NDArray[np.int32]]:
        """How many bits to the left a range's number stands in a prefix; where each begins."""
        bits = max(len(self.ordered).bit_length() - 2, 1)
        shift = np.uint64(64 - bits)
        begins = np.empty(2**bits, dtype=np.int32)
        for start in range(0, len(begins), _RANGES_AT_ONCE):
            some = begins[start : start + _RANGES_AT_ONCE]
            least = np.arange(start, start + len(some), dtype=np.uint64) << shift
            np.minimum(np.searchsorted(self.ordered, least), self._last, out=some, casting="unsafe")
        return shift, begins

    def contains(self, wanted: U64) -> Mask:
        if not len(self.ordered):
            return np.zeros(len(wanted), dtype=bool)
        return self.ordered[self.places(wanted)] == wanted

    def places(self, wanted: U64) -> Positions:
        """Where each wanted prefix stands first, if it does; the run is not empty."""
        shift, begins = self._ranges
        at = begins[(wanted >> shift).view(np.int64)].astype(np.int64)
        far = np.flatnonzero(self.ordered[at] < wanted)
        for _ in range(_MOST_STEPS):
            if not len(far):
                return at
            at[far] = np.minimum(at[far] + 1, self._last)
            far = far[self.ordered[at[far]] < wanted[far]]
        at[far] = np.minimum(np.searchsorted(self.ordered, wanted[far]), self._last)
        return at


class _Young:
    """The latest few prefixes, each in the slot that its low bits name or in the next free one.

    To put some thousands into a run would sort and search many runs, over and over.
    """

    def __init__(self) -> None:
        self.count = 0

    @cached_property
    def _slots(self) -> U64:
        """A zero is a free slot; half of them stay free."""
        return np.zeros(_SLOTS, dtype=np.uint64)

    @property
    def is_full(self) -> bool:
        return self.count + _FEW > _SLOTS // 2

    def taken(self) -> U64:
        """All of them, which are forgotten here."""
        if not self.count:
            return np.empty(0, np.uint64)
        prefixes = self._slots[self._slots != 0]
        del self._slots
        self.count = 0
        return prefixes

    def add(self, prefixes: U64) -> None:
        """Take in at most ``_FEW`` prefixes, none of them zero."""
        self.count += len(prefixes)
        at = _slots(prefixes)
        while len(prefixes):
            free = self._slots[at] == 0
            self._slots[at[free]] = prefixes[free]  # of several for one slot the last stays
            others = self._slots[at] != prefixes
            prefixes, at = prefixes[others], (at[others] + 1) % _SLOTS

    def contains(self, wanted: U64) -> Mask:
        """For each prefix, whether it was added."""
        found = np.zeros(len(wanted), dtype=bool)
        if not self.count:
            return found
        on, at = np.arange(len(wanted)), _slots(wanted)
        while len(on):
            held = self._slots[at]
            same = (held == wanted[on]) & (held != 0)
            found[on[same]] = True
            others = (held != 0) & ~same
            on, at = on[others], (at[others] + 1) % _SLOTS
        return found


def _slots(prefixes: U64) -> Positions:
    return (prefixes & _SLOT_BITS).view(np.int64)


def _merged(runs: list[_Run]) -> _Run:
    return _Run([run.ordered for run in runs]) if len(runs) > 1 else runs[0]


def _sorted(runs: list[U64]) -> U64:
    """All prefixes, ascending, each once. ``np.unique`` does the same ten times slower."""
    ordered = np.concatenate([*runs, np.empty(0, np.uint64)])
    ordered.sort()  # in place: twenty million prefixes are 160 MB
    again = ordered[1:] == ordered[:-1]
    return ordered[np.concatenate(([True], ~again))] if again.any() else ordered


class KeyMap:
    """From whole keys to the positions (0, 1, ...) at which they stand; a key may stand often."""

    def __init__(self, keys: npt.NDArray[np.bytes_]) -> None:
        high, low = halves(keys)
        self._order: Positions = np.argsort(high)
        self._run = _Run([high[self._order]], ordered=True)
        self._low = low[self._order]
        ordered = self._run.ordered
        others = ordered[1:] != ordered[:-1]
        self._counts = None if others.all() else _counts(others)

    def prefixes(self, wanted: Mask) -> KeySet:
        """Those of the keys at these positions."""
        return KeySet([self._run.ordered[wanted[self._order]]])

    def positions(self, keys: npt.NDArray[np.bytes_]) -> tuple[Positions, Positions]:
        """Pairs (index into ``keys``, position in the map) of all matches, fan-out included."""
        high, low = halves(keys)
        if not len(self._run):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        ordered = self._run.ordered
        first = self._run.places(high)
        if self._counts is None:
            exact = (ordered[first] == high) & (self._low[first] == low)
            return np.flatnonzero(exact), self._order[first[exact]]
        counts = np.where(ordered[first] == high, self._counts[first], 0)
        index, place = spread(first, counts)
        exact = self._low[place] == low[index]
        return index[exact], self._order[place[exact]]


def _counts(others: Mask) -> npt.NDArray[np.int32]:
    """How often each value stands from its first place on, by whether the next one is another."""
    counts = np.zeros(len(others) + 1, dtype=np.int32)
    first = np.flatnonzero(np.concatenate(([True], others)))
    counts[first] = np.diff(first, append=len(counts))
    return counts


def spread(starts: Positions, counts: Positions) -> tuple[Positions, Positions]:
    """Of ranges, each with a start and a length: (number of the range, place) of all places."""
    index = np.repeat(np.arange(len(starts)), counts)
    before = np.cumsum(counts) - counts
    return index, np.repeat(starts - before, counts) + np.arange(len(index))
