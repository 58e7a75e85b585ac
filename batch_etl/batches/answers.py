"""Outcomes on disk: one Parquet file a collected batch, content-addressed by request_key.

An answers file tells of every request of its batch exactly once, in the order the lines came. Its
columns are those of the results that analysts get, plus where the request came from. What was
bought stays here and answers equal requests of later transforms; beside it lie the raw result
lines (``.jsonl.zst``), from which it can be made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
from upath import UPath

from batch_etl.batches.errors import LedgerError
from batch_etl.batches.keys import KeySet, from_arrow, halves
from batch_etl.batches.outcome import BILLED, Outcome
from batch_etl.batches.request import KEY_BYTES, keys_array
from batch_etl.batches.retry import reusable
from batch_etl.files import read_batches

pc: Any = pyarrow.compute  # its functions are made at import; a type checker sees none

USD = pa.decimal128(18, 12)
"""Dollars, exact to the millionth of a millionth: one token of the cheapest model is 50,000 of
them.
"""

_WORD = pa.dictionary(pa.int32(), pa.string())

ANSWERS = pa.schema(
    [
        ("request_key", pa.binary(KEY_BYTES)),
        ("row", pa.int32()),  # of the request in its batch
        ("partition", pa.string()),  # of the record it was bought for
        ("record_id", pa.string()),
        ("outcome", _WORD),
        ("reason", pa.string()),
        ("output", pa.string()),
        ("text", pa.string()),
        ("stop_reason", _WORD),
        ("error_type", _WORD),
        ("model", _WORD),
        ("message_id", pa.string()),
        ("input_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("cache_read_tokens", pa.int64()),
        ("cache_write_tokens", pa.int64()),
        ("cost_usd", USD),
    ]
)

Tokens = npt.NDArray[np.int64]
"""Shape (rows, 5): input, output, cache read, 5-minute and 1-hour cache write."""

Price = Callable[[str, Tokens], tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None]
"""(model, tokens) -> pico-dollars a row at the batch price and at the standard price, or None."""


def answers_path(folder: UPath, token: str) -> UPath:
    return folder / f"{token}.parquet"


def raw_path(folder: UPath, token: str) -> UPath:
    return folder / f"{token}.jsonl.zst"


@dataclass
class Totals:
    """What a batch came to. ``cost_pico_usd`` is None as soon as one price is unknown."""

    outcomes: dict[str, int] = field(default_factory=dict)
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost_pico_usd: int | None = 0
    standard_pico_usd: int | None = 0


@dataclass(frozen=True)
class Source:
    """Where a batch's requests came from: its manifest's columns, by row."""

    keys: npt.NDArray[np.bytes_]
    partitions: pa.Array[Any]
    record_ids: pa.Array[Any]


def answer_rows(
    rows: Sequence[int], outcomes: Sequence[Outcome], source: Source, price: Price, totals: Totals
) -> pa.RecordBatch:
    """Outcomes of the requests at ``rows`` as columns; adds them to ``totals``."""
    at = pa.array(rows, pa.int32())
    kinds = [outcome.kind for outcome in outcomes]
    tokens = pa.array([outcome.tokens for outcome in outcomes], pa.list_(pa.int64(), 5))
    flat = tokens.flatten()
    columns = [
        pc.fill_null(flat.take(pa.array(range(i, len(flat), 5), pa.int64())), 0) for i in range(5)
    ]
    known = pc.and_(
        *(pc.is_valid(flat.take(pa.array(range(i, len(flat), 5), pa.int64()))) for i in (0, 1))
    )
    matrix = np.stack([column.to_numpy(zero_copy_only=False) for column in columns], axis=1)
    models = [outcome.model for outcome in outcomes]
    billed = np.array([kind in BILLED for kind in kinds], dtype=bool)
    counted = billed & np.array(known.to_numpy(zero_copy_only=False), dtype=bool)
    cost = _priced(models, matrix, price, totals, billed=billed, counted=counted)
    _count(kinds, matrix, totals)
    writes = matrix[:, 3] + matrix[:, 4]
    return pa.RecordBatch.from_arrays(
        [
            keys_array(source.keys[np.asarray(rows, dtype=np.int64)]),
            at,
            source.partitions.take(at),
            source.record_ids.take(at),
            _words(kinds),
            pa.array([outcome.reason for outcome in outcomes], pa.string()),
            pa.array([outcome.output for outcome in outcomes], pa.string()),
            pa.array([outcome.text for outcome in outcomes], pa.string()),
            _words([outcome.stop_reason for outcome in outcomes]),
            _words([outcome.error_type for outcome in outcomes]),
            _words(models),
            pa.array([outcome.message_id for outcome in outcomes], pa.string()),
            _where(matrix[:, 0], known),
            _where(matrix[:, 1], known),
            _where(matrix[:, 2], known),
            _where(writes, known),
            cost,
        ],
        schema=ANSWERS,
    )


def _words(values: Sequence[str | None]) -> pa.Array[Any]:
    return pa.array(values, pa.string()).dictionary_encode()


def _where(values: npt.NDArray[np.int64], known: pa.Array[Any]) -> pa.Array[Any]:
    return pc.if_else(known, pa.array(values), pa.scalar(None, pa.int64()))


def _priced(
    models: Sequence[str | None],
    tokens: Tokens,
    price: Price,
    totals: Totals,
    *,
    billed: npt.NDArray[np.bool_],
    counted: npt.NDArray[np.bool_],
) -> pa.Array[Any]:
    """What each row cost: 0 where it was not billed, null where tokens or price are not known."""
    cost = np.zeros(len(models), dtype=np.int64)
    known = ~billed
    for model in {model for model in models if model is not None}:
        mine = counted & np.array([one == model for one in models], dtype=bool)
        prices = price(model, tokens[mine])
        if prices is None:
            continue
        cost[mine], known[mine] = prices[0], True
        if totals.cost_pico_usd is not None and totals.standard_pico_usd is not None:
            totals.cost_pico_usd += int(prices[0].sum())
            totals.standard_pico_usd += int(prices[1].sum())
    if not known.all():
        totals.cost_pico_usd = totals.standard_pico_usd = None
    return usd(cost, known)


def usd(pico: npt.NDArray[np.int64], known: npt.NDArray[np.bool_]) -> pa.Array[Any]:
    """Pico-dollars as exact decimals, null where not known."""
    words = np.empty((len(pico), 2), dtype="<i8")
    words[:, 0], words[:, 1] = pico, pico >> 63
    exact = pa.Array.from_buffers(USD, len(pico), [None, pa.py_buffer(words)])
    return pc.if_else(pa.array(known), exact, pa.scalar(None, USD))


def _count(kinds: Sequence[str], tokens: Tokens, totals: Totals) -> None:
    for kind in kinds:
        totals.outcomes[kind] = totals.outcomes.get(kind, 0) + 1
    sums = tokens.sum(axis=0).tolist()
    totals.input_tokens += sums[0]
    totals.output_tokens += sums[1]
    totals.cache_read_tokens += sums[2]
    totals.cache_write_tokens += sums[3] + sums[4]


def reusable_rows(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Only the rows whose outcome answers its request_key for good."""
    kinds = batch.column("outcome").dictionary.to_pylist()
    good = np.array([reusable(kind) for kind in kinds] or [False], dtype=bool)
    mask = good[batch.column("outcome").indices.to_numpy()]
    return batch if mask.all() else batch.filter(pa.array(mask))


def answered_keys(folder: UPath, tokens: Iterable[str]) -> KeySet:
    """The keys that the answers files of these batches answer for good."""
    return KeySet(
        halves(from_arrow(rows.column("request_key")))[0]
        for token in tokens
        for rows in _read(folder, token, ["request_key", "outcome"])
    )


def read_answers(folder: UPath, token: str) -> Iterator[pa.RecordBatch]:
    """All rows of one answers file. Raises ``LedgerError`` when it is gone."""
    return _read(folder, token, None)


def _read(folder: UPath, token: str, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
    path = answers_path(folder, token)
    if not path.exists():
        raise LedgerError(
            f"the ledger has batch {token} as collected, but {path} is gone; restore the file from "
            "a backup: without it, what was bought would have to be bought again"
        )
    for rows in read_batches(path, columns, rows=8_192):
        yield reusable_rows(rows) if columns is not None else rows
