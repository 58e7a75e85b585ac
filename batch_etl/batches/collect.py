"""Collecting: a stream of result lines -> raw lines on disk, and one outcome for each request.

The bytes go to disk as they come (zstd) and are decoded as they go by. Every request of the
manifest gets exactly one row: a second line for it is counted and dropped, a request without a
line is Missing, a line that names no request of this batch is counted. Nothing appears under its
final name before the whole stream was read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
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
from batch_etl.batches.outcome import MISSING, Outcome, decode
from batch_etl.batches.request import parse_custom_id
from batch_etl.batches.schema import OutputSchema
from batch_etl.files import ParquetSink, replacing

_ROWS = 4_096


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
        replacing(raw_path(folder, token)) as raw_file,
        ParquetSink(answers_path(folder, token), ANSWERS) as sink,
        pa.CompressedOutputStream(pa.OSFile(str(raw_file), "wb"), "zstd") as raw,
    ):
        for rows, outcomes in _grouped(
            _outcomes(_kept(chunks, raw), token, source, schema, collected)
        ):
            sink.write(answer_rows(rows, outcomes, source, price, collected.totals))
    return collected


def _kept(chunks: Iterable[bytes], raw: pa.NativeFile) -> Iterator[bytes]:
    for chunk in chunks:
        raw.write(chunk)
        yield chunk


def lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Whole lines of a byte stream; the last needs no newline. Blank lines are passed over."""
    rest = b""
    for chunk in chunks:
        whole = (rest + chunk).split(b"\n")
        rest = whole.pop()
        for line in whole:
            if line and not line.isspace():
                yield line
    if rest and not rest.isspace():
        yield rest


def _outcomes(
    chunks: Iterable[bytes],
    token: str,
    source: Source,
    schema: OutputSchema | None,
    collected: Collected,
) -> Iterator[tuple[int, Outcome]]:
    """(row, outcome) of every request, exactly once each; the missing ones last."""
    seen = np.zeros(len(source.keys), dtype=bool)
    for line in lines(chunks):
        decoded = decode(line, schema)
        if decoded is None:
            collected.unreadable += 1
            continue
        name = parse_custom_id(decoded.custom_id)
        if name is None or name[0] != token or name[1] >= len(seen):
            collected.foreign += 1
        elif seen[name[1]]:
            collected.duplicates += 1
        else:
            seen[name[1]] = True
            yield name[1], decoded.outcome
    absent = np.flatnonzero(~seen).tolist()
    collected.missing = len(absent)
    for row in absent:
        yield row, MISSING


def _grouped(
    pairs: Iterator[tuple[int, Outcome]],
) -> Iterator[tuple[list[int], list[Outcome]]]:
    rows: list[int] = []
    outcomes: list[Outcome] = []
    for row, outcome in pairs:
        rows.append(row)
        outcomes.append(outcome)
        if len(rows) == _ROWS:
            yield rows, outcomes
            rows, outcomes = [], []
    if rows:
        yield rows, outcomes
