"""Collecting: a stream of result lines -> raw lines on disk, and one outcome for each request.

The bytes go to disk as they come (zstd) and are decoded as they go by: all whole lines of a chunk
at once, while the processor's cache still holds them, or, where one of them is not of the API's
shape, one by one, which tells the same of each line and takes longer. Every request of the manifest
gets exactly one row: a second line for it is counted and dropped, a request without a line is
Missing, a line that names no request of this batch is counted. Nothing appears under its final name
before the whole stream was read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from upath import UPath

from batch_etl import memory
from batch_etl.batches.answers import (
    ANSWERS,
    Price,
    Source,
    Totals,
    answer_rows,
    answers_path,
    raw_path,
)
from batch_etl.batches.errors import Interrupted
from batch_etl.batches.outcome import MISSING, Line, decode, decode_block
from batch_etl.batches.request import rows_named
from batch_etl.batches.schema import OutputSchema
from batch_etl.batches.told import Reader, Told
from batch_etl.effects import effect
from batch_etl.files import ParquetSink, replacing

_ROWS = 4_096
"""Requests that become columns at once, or a chunk's lines more."""

Rows = npt.NDArray[np.int64]
_Group = tuple[Rows, Told]
"""Some requests' rows in the manifest, and what became of each."""


@dataclass
class Collected:
    """What a batch's results held."""

    totals: Totals = field(default_factory=Totals)
    missing: int = 0
    duplicates: int = 0
    foreign: int = 0
    """Lines whose custom_id is not of this batch."""
    unreadable: int = 0
    """Lines that are no JSON or name no request."""

    @property
    def counts(self) -> dict[str, int]:
        """Outcomes by kind, and the oddities that there were."""
        odd = {
            "duplicate_lines": self.duplicates,
            "foreign_lines": self.foreign,
            "unreadable_lines": self.unreadable,
        }
        return {**self.totals.outcomes, **{name: n for name, n in odd.items() if n}}


def collect(
    chunks: Iterable[bytes],
    *,
    token: str,
    source: Source,
    schema: OutputSchema | None,
    price: Price,
    folder: UPath,
) -> Collected:
    """Read the results of batch ``token`` to their end; write its raw and its answers file.

    Whatever the stream raises passes through, and then neither file is there.
    """
    memory.lean_pool()
    collected = Collected()
    with (
        replacing(raw_path(folder, token), "raw results") as raw_file,
        ParquetSink(
            answers_path(folder, token), ANSWERS, "answers", lean=True, noise=["message_id"]
        ) as sink,
        pa.CompressedOutputStream(pa.OSFile(str(raw_file), "wb"), "zstd") as raw,
        memory.uncollected(),
    ):
        roll = _RollCall(token, len(source.keys), collected, schema)
        for rows, told in chain(roll.answered(_blocks(_kept(chunks, raw))), roll.missing()):
            sink.write(answer_rows(rows, told, source, price, collected.totals))
    memory.release()
    return collected


def _kept(chunks: Iterable[bytes], raw: pa.NativeFile) -> Iterator[bytes]:
    for chunk in chunks:
        with effect("result chunk written"):
            raw.write(chunk)
        yield chunk


def lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Whole lines of a byte stream; the last needs no newline. Blank lines are passed over.

    Raises ``Interrupted`` where the last line is torn: something on the way ended the stream as if
    that were all, and what comes after it was paid for too.
    """
    for block in _blocks(chunks):
        yield from _lines_of(block)


def _blocks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The stream cut where lines end: each block ends with a newline, but for the last."""
    held: list[bytes] = []
    for chunk in chunks:
        end = chunk.rfind(b"\n") + 1
        if end:
            yield b"".join([*held, chunk[:end]])
            held = []
        held.append(chunk[end:])
    yield from _rest(b"".join(held))


def _rest(held: bytes) -> Iterator[bytes]:
    """What came last: whole lines, and one that may lack its newline, or be torn."""
    end = held.rfind(b"\n") + 1
    if end:
        yield held[:end]
    last = held[end:]
    if last and not last.isspace():
        if _is_torn(last):
            raise Interrupted("reading the results", reason="the last line is not whole")
        yield last


def _lines_of(block: bytes) -> Iterator[bytes]:
    for line in block.split(b"\n"):
        if line and not line.isspace():
            yield line


def _is_torn(line: bytes) -> bool:
    """Whether it is the beginning of a JSON object; what is no JSON at all is not torn, but odd."""
    try:
        msgspec.json.decode(line, type=msgspec.Raw)
    except msgspec.DecodeError as error:
        return line.startswith(b"{") and "truncated" in str(error)
    return False


class _RollCall:
    """Which requests of the batch have their line: the first one that names a request counts."""

    def __init__(
        self, token: str, requests: int, collected: Collected, schema: OutputSchema | None
    ) -> None:
        self._token = token
        self._line_of = np.full(requests, -1, dtype=np.int32)
        """By row: the place of its line among those that were looked at together; -1: none yet."""
        self._collected = collected
        self._schema = schema
        self._reader = Reader(schema)

    def answered(self, blocks: Iterable[bytes]) -> Iterator[_Group]:
        """What the blocks' lines tell of requests that had none yet, in their order."""
        parsed: list[Line] = []
        for block in blocks:
            more = decode_block(block)
            parsed += more or ()
            if more is None or len(parsed) >= _ROWS:
                group, parsed = self._together(parsed), []
                yield group
            if more is None:
                yield self._one_by_one(block)
        yield self._together(parsed)

    def _together(self, parsed: list[Line]) -> _Group:
        places, rows = self._first([line.custom_id for line in parsed])
        chosen = parsed if len(places) == len(parsed) else [parsed[place] for place in places]
        return rows, self._reader.told([line.result for line in chosen])

    def _one_by_one(self, block: bytes) -> _Group:
        decoded = [decode(line, self._schema) for line in _lines_of(block)]
        named = [line for line in decoded if line is not None]
        self._collected.unreadable += len(decoded) - len(named)
        places, rows = self._first([line.custom_id for line in named])
        return rows, Told.of([named[place].outcome for place in places])

    def _first(self, names: list[str]) -> tuple[list[int], Rows]:
        """Places among the names, and rows, of the requests that had no line yet."""
        rows = rows_named(names, self._token)
        own = np.flatnonzero((rows >= 0) & (rows < len(self._line_of)))
        fresh = own[self._line_of[rows[own]] < 0]
        self._line_of[rows[fresh][::-1]] = fresh[::-1]  # of two lines for a row, the first stays
        fresh = fresh[self._line_of[rows[fresh]] == fresh]
        self._collected.foreign += len(rows) - len(own)
        self._collected.duplicates += len(own) - len(fresh)
        return fresh.tolist(), rows[fresh]

    def missing(self) -> Iterator[_Group]:
        """Those without a line, once all lines were read."""
        absent = np.flatnonzero(self._line_of < 0)
        self._collected.missing = len(absent)
        for start in range(0, len(absent), _ROWS):
            rows = absent[start : start + _ROWS]
            yield rows, Told.of([MISSING] * len(rows))
