"""Requests -> payloads: filled in order, by count and by the bytes that are really sent.

A payload is ``{"requests":[entry,entry,...]}``. Its size is known exactly before it exists: the
envelope, the entries (:data:`batch_etl.batches.request.LINE_OVERHEAD_BYTES` beyond the parameters)
and the commas. A request that alone breaks the byte limit fits no payload: its record gets an
outcome, the others go on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt

from batch_etl.batches.payload import PIECE_BYTES
from batch_etl.batches.request import LINE_OVERHEAD_BYTES, Params, entry
from batch_etl.batches.task import Packing

ENVELOPE_HEAD = b'{"requests":['
ENVELOPE_TAIL = b"]}"
_ENVELOPE_BYTES = len(ENVELOPE_HEAD) + len(ENVELOPE_TAIL)
_BLOCK_BYTES = PIECE_BYTES - _ENVELOPE_BYTES
"""A block goes out as one piece, then."""

Sizes = npt.NDArray[np.int64]
"""Bytes of each request's parameters."""


@dataclass
class Room:
    """What still fits into the payload that is being filled."""

    limits: Packing
    count: int = 0
    size_bytes: int = _ENVELOPE_BYTES

    def fits(self, params_bytes: int) -> bool:
        """Whether one more request with parameters of this size stays within both limits."""
        return (
            self.count < self.limits.max_requests
            and self.size_bytes + self._cost(params_bytes) <= self.limits.max_bytes
        )

    def add(self, params_bytes: int) -> None:
        self.size_bytes += self._cost(params_bytes)
        self.count += 1

    def fitting(self, params_bytes: Sizes) -> int:
        """How many more requests fit, of these sizes and in this order, each counted alone."""
        ends = np.cumsum(params_bytes + (LINE_OVERHEAD_BYTES + 1)) - (0 if self.count else 1)
        by_bytes = int(np.searchsorted(ends, self.limits.max_bytes - self.size_bytes, "right"))
        return min(by_bytes, self.limits.max_requests - self.count)

    def add_all(self, params_bytes: Sizes) -> None:
        """As :meth:`add` of each."""
        commas = len(params_bytes) - (0 if self.count else 1)
        self.size_bytes += (
            int(params_bytes.sum()) + len(params_bytes) * LINE_OVERHEAD_BYTES + commas
        )
        self.count += len(params_bytes)

    def _cost(self, params_bytes: int) -> int:
        return params_bytes + LINE_OVERHEAD_BYTES + (1 if self.count else 0)


def fits_alone(params_bytes: int, limits: Packing) -> bool:
    """Whether a request of this size fits a payload of its own."""
    return Room(limits).fits(params_bytes)


@dataclass
class Payload:
    """The exact bytes of one create call, held as blocks of about a megabyte."""

    token: str
    room: Room
    _blocks: list[bytes] = field(default_factory=list[bytes])
    _open: list[bytes] = field(default_factory=list[bytes])
    _open_bytes: int = 0

    @classmethod
    def of(cls, token: str, params: Iterable[bytes], limits: Packing) -> Payload:
        """The payload of these requests; the caller has cut them to the limits."""
        payload = cls(token, Room(limits))
        for one in params:
            payload.add(one)
        return payload

    def add(self, params: bytes) -> None:
        """Append one request; its row is the number of requests before it."""
        more_bytes = len(params) + LINE_OVERHEAD_BYTES + 1
        if self._open and self._open_bytes + more_bytes > _BLOCK_BYTES:
            self._close()
        self._open += (b",", entry(self.token, self.room.count, params))
        self._open_bytes += more_bytes
        self.room.add(len(params))

    def extend(self, params: Params, sizes: Sizes) -> None:
        """As :meth:`add` of each; ``sizes`` are theirs."""
        ends = np.cumsum(sizes + (LINE_OVERHEAD_BYTES + 1))
        start, before = 0, 0
        while start < len(params):
            full = before + _BLOCK_BYTES - self._open_bytes
            end = int(np.searchsorted(ends, full, "right"))
            if end <= start and self._open:
                self._close()
                continue
            end = max(end, start + 1)  # a request that is larger than a block is one of its own
            self._open += params.cut(start, end).entries(self.token, self.room.count)
            self.room.add_all(sizes[start:end])
            self._open_bytes += int(ends[end - 1]) - before
            start, before = end, int(ends[end - 1])

    def _close(self) -> None:
        self._blocks.append(self._joined())
        self._open, self._open_bytes = [], 0

    def _joined(self) -> bytes:
        """What is open, with what stands before it."""
        if self._blocks:
            return b"".join(self._open)
        first = self._open[0].removeprefix(b",") if self._open else b""
        return b"".join([ENVELOPE_HEAD, first, *self._open[1:]])

    @property
    def count(self) -> int:
        return self.room.count

    @property
    def size_bytes(self) -> int:
        return self.room.size_bytes

    def blocks(self) -> Iterator[bytes]:
        """The body, in order; may be iterated more than once."""
        yield from self._blocks
        yield self._joined() + ENVELOPE_TAIL


def params_bytes(payload: Payload) -> int:
    """The bytes of a payload's parameters alone, without entries, commas and envelope."""
    commas = max(0, payload.count - 1)
    return payload.size_bytes - _ENVELOPE_BYTES - commas - payload.count * LINE_OVERHEAD_BYTES


class _Entry(msgspec.Struct):
    params: msgspec.Raw


def entries(payload: Payload) -> Iterator[bytes]:
    """The parameters of a payload's requests, in order; a block is decoded at a time."""
    read = msgspec.json.Decoder(list[_Entry])
    for block in payload.blocks():
        inner = block.removeprefix(ENVELOPE_HEAD).removesuffix(ENVELOPE_TAIL).removeprefix(b",")
        for one in read.decode(b"[" + inner + b"]"):
            yield bytes(one.params)
