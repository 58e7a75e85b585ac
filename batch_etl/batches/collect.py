"""Collecting: a stream of result lines -> raw lines on disk, and one outcome for each request.

The bytes go to disk as they come (zstd) and are decoded as they go by: all whole lines of a chunk
at once or, where one of them is not of the API's shape, one by one, which tells the same of each
line and takes longer. Every request of the manifest gets exactly one row: a second line for it is
counted and dropped, a request without a line is Missing, a line that names no request of this batch
is counted. Nothing appears under its final name before the whole stream was read.
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
from batch_etl.batches.outcome import MISSING, Outcome, decode, decode_block, outcome_of
from batch_etl.batches.request import rows_named
from batch_etl.batches.schema import OutputSchema
from batch_etl.effects import effect
from batch_etl.files import ParquetSink, replacing

_ROWS = 4_096
"""Requests whose outcomes become columns at once."""

Rows = npt.NDArray[np.int64]
_Group = tuple[Rows, list[Outcome]]
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
    collected = Collected()
    with (
        replacing(raw_path(folder, token), "raw results") as raw_file,
        ParquetSink(answers_path(folder, token), ANSWERS, "answers") as sink,
        pa.CompressedOutputStream(pa.OSFile(str(raw_file), "wb"), "zstd") as raw,
    ):
        roll = _RollCall(token, len(source.keys), collected)
        told = (roll.answered(block, schema) for block in _blocks(_kept(chunks, raw)))
        for rows, outcomes in chain(_joined(told), roll.missing()):
            sink.write(answer_rows(rows, outcomes, source, price, collected.totals))
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
    rest = b"".join(held)
    if rest and not rest.isspace():
        if _is_torn(rest):
            raise Interrupted("reading the results", reason="the last line is not whole")
        yield rest


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

    def __init__(self, token: str, requests: int, collected: Collected) -> None:
        self._token = token
        self._seen = np.zeros(requests, dtype=bool)
        self._collected = collected

    def answered(self, block: bytes, schema: OutputSchema | None) -> _Group:
        """The outcomes that a block's lines tell of requests that had none yet, in their order."""
        parsed = decode_block(block)
        if parsed is None:
            return self._one_by_one(block, schema)
        places, rows = self._first([line.custom_id for line in parsed])
        return rows, [outcome_of(parsed[place].result, schema) for place in places]

    def _one_by_one(self, block: bytes, schema: OutputSchema | None) -> _Group:
        decoded = [decode(line, schema) for line in _lines_of(block)]
        named = [line for line in decoded if line is not None]
        self._collected.unreadable += len(decoded) - len(named)
        places, rows = self._first([line.custom_id for line in named])
        return rows, [named[place].outcome for place in places]

    def _first(self, names: list[str]) -> tuple[list[int], Rows]:
        """Places among the names, and rows, of the requests that had no line yet."""
        rows = rows_named(names, self._token)
        own = np.flatnonzero((rows >= 0) & (rows < len(self._seen)))
        fresh = own[~self._seen[rows[own]]]
        fresh = fresh[np.sort(np.unique(rows[fresh], return_index=True)[1])]
        self._seen[rows[fresh]] = True
        self._collected.foreign += len(rows) - len(own)
        self._collected.duplicates += len(own) - len(fresh)
        return fresh.tolist(), rows[fresh]

    def missing(self) -> Iterator[_Group]:
        """Those without a line, once all lines were read."""
        absent = np.flatnonzero(~self._seen)
        self._collected.missing = len(absent)
        for start in range(0, len(absent), _ROWS):
            rows = absent[start : start + _ROWS]
            yield rows, [MISSING] * len(rows)


def _joined(groups: Iterable[_Group]) -> Iterator[_Group]:
    """Groups of at least ``_ROWS`` requests, but for the last."""
    rows: list[Rows] = []
    outcomes: list[Outcome] = []
    for some, theirs in groups:
        rows.append(some)
        outcomes += theirs
        if len(outcomes) >= _ROWS:
            yield np.concatenate(rows), outcomes
            rows, outcomes = [], []
    if outcomes:
        yield np.concatenate(rows), outcomes
