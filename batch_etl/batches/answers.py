"""Outcomes on disk: one Parquet file a collected batch, content-addressed by request_key.

An answers file tells of every request of its batch exactly once, in the order the lines came. Its
columns are those of the results that analysts get, plus where the request came from. What was
bought stays here and answers equal requests of later transforms; beside it lie the raw result
lines (``.jsonl.zst``), from which it can be made again.

Each row also says how its request differed from the question (whom it asked, for how many tokens,
which answer it repaired, how many answers had failed before), so that what to do next follows from
the row alone (``retry.py``). Files from before there were these columns are read as if all were
null: their requests did not differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
from upath import UPath

from batch_etl import arrow
from batch_etl.batches.errors import LedgerError
from batch_etl.batches.keys import from_arrow
from batch_etl.batches.outcome import BILLED, Outcome
from batch_etl.batches.repair import Faulty
from batch_etl.batches.request import KEY_BYTES, custom_id, keys_array, parse_custom_id
from batch_etl.batches.told import Tokens, Told
from batch_etl.files import ROWS_PER_GROUP, read_batches

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
        ("asked_model", _WORD),  # where it was not the task's
        ("asked_max_tokens", pa.int32()),  # where it was not the task's
        ("faulty", pa.string()),  # custom_id of the answer that the request was to repair
        ("failed", pa.int16()),  # answers to the question that had failed before; null: none
    ]
)

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
    asked: pa.RecordBatch | None = None
    """The columns that say how each request differed from its question; None: none did."""

    @classmethod
    def of(cls, manifest: pa.Table, scope: Sequence[str | None]) -> Source:
        """From a manifest's rows and the keys of its transform's partitions."""
        whole = {name: manifest.column(name).combine_chunks() for name in manifest.column_names}
        asked = {name: whole[name] for name in ("claude_model", "max_tokens", "faulty", "failed")}
        differs = any(column.null_count < len(column) for column in asked.values())
        return cls(
            keys=from_arrow(whole["request_key"]),
            partitions=pa.array(scope, pa.string()).take(whole["partition"]),
            record_ids=whole["record_id"],
            asked=pa.RecordBatch.from_pydict(asked) if differs else None,
        )

    def asked_at(self, at: pa.Array[Any]) -> list[pa.Array[Any]]:
        """The answers' columns for the requests at these rows."""
        fields = list(ANSWERS)[-4:]
        if self.asked is None:
            return [pa.nulls(len(at), field.type) for field in fields]
        model, *others = (column.take(at) for column in self.asked.columns)
        return [model.dictionary_encode(), *others]


def answer_rows(
    rows: Sequence[int] | npt.NDArray[np.int64],
    outcomes: Sequence[Outcome] | Told,
    source: Source,
    price: Price,
    totals: Totals,
) -> pa.RecordBatch:
    """Outcomes of the requests at ``rows`` as columns; adds them to ``totals``."""
    told = outcomes if isinstance(outcomes, Told) else Told.of(outcomes)
    places = np.asarray(rows, dtype=np.int32)
    at = arrow.column(places)
    tokens, known = np.maximum(told.tokens, 0), told.tokens[:, :2].min(axis=1) >= 0
    kinds, models = told.kinds.array(), told.models.array()
    billed = outcome_in(kinds, BILLED)
    cost = _priced(models, tokens, price, totals, billed=billed, counted=billed & known)
    count_outcomes(kinds, totals.outcomes)
    _add_tokens(tokens, totals)
    return pa.RecordBatch.from_arrays(
        [
            keys_array(source.keys[places]),
            at,
            source.partitions.take(at),
            source.record_ids.take(at),
            kinds,
            pa.array(told.reasons, pa.string()),
            pa.array(told.outputs, pa.string()),
            pa.array(told.texts, pa.string()),
            told.stop_reasons.array(),
            told.error_types.array(),
            models,
            pa.array(told.message_ids, pa.string()),
            *_token_columns(tokens, known),
            cost,
            *source.asked_at(at),
        ],
        schema=ANSWERS,
    )


def outcome_in(outcomes: pa.DictionaryArray, kinds: frozenset[str]) -> npt.NDArray[np.bool_]:
    """Which of the outcomes are of these kinds."""
    hit = np.array([word in kinds for word in outcomes.dictionary.to_pylist()], dtype=bool)
    return hit[arrow.numbers(outcomes.indices)]


def count_outcomes(outcomes: pa.DictionaryArray, total: dict[str, int]) -> None:
    """Add how many there are of each kind to ``total``."""
    counts = np.bincount(
        arrow.numbers(outcomes.indices), minlength=len(outcomes.dictionary)
    ).tolist()
    for kind, count in zip(outcomes.dictionary.to_pylist(), counts, strict=True):
        if count:
            total[kind] = total.get(kind, 0) + count


def _token_columns(tokens: Tokens, known: npt.NDArray[np.bool_]) -> list[pa.Array[Any]]:
    """Input, output, read from the cache and written to it, as columns."""
    columns = (*tokens.T[:3], tokens[:, 3] + tokens[:, 4])
    return [arrow.column(numbers, known) for numbers in columns]


def _priced(
    models: pa.DictionaryArray,
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
    places = arrow.numbers(pc.fill_null(models.indices, pa.scalar(-1, pa.int32())))
    for place, model in enumerate(models.dictionary.to_pylist()):
        mine = counted & (places == place)
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
    return pc.if_else(arrow.column(known), exact, pa.scalar(None, USD))


def _add_tokens(tokens: Tokens, totals: Totals) -> None:
    sums = tokens.sum(axis=0).tolist()
    totals.input_tokens += sums[0]
    totals.output_tokens += sums[1]
    totals.cache_read_tokens += sums[2]
    totals.cache_write_tokens += sums[3] + sums[4]


def pico_usd(column: pa.Array[Any]) -> npt.NDArray[np.int64]:
    """Exact decimals as pico-dollars, 0 where null: the inverse of :func:`usd`."""
    known = pc.fill_null(column, Decimal(0))
    words = np.frombuffer(known.buffers()[1] or b"", dtype="<i8")
    return words[2 * known.offset : 2 * (known.offset + len(known)) : 2]


def completed(batch: pa.RecordBatch | pa.Table, schema: pa.Schema) -> Any:
    """The columns of ``schema``, null where a file of an earlier version has none."""
    columns = [
        batch.column(field.name)
        if field.name in batch.schema.names
        else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return type(batch).from_arrays(columns, schema=schema)


@dataclass(frozen=True)
class Verdict:
    """Which answers of one file do not meet a task's conditions."""

    rows: npt.NDArray[np.int32]
    """Of the requests in their batch, ascending."""
    reasons: pa.Array[Any]
    mendable: npt.NDArray[np.bool_]
    """Whether asking again can help."""
    is_json: bool
    """Whether the answers are JSON that a schema allowed, or free texts."""

    NEEDS = ("row", "outcome", "reason", "output", "text", "stop_reason")

    def applied(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows as if their outcome had been Invalid from the start; has all of ``NEEDS``."""
        place = np.searchsorted(self.rows, batch.column("row").to_numpy())
        place[place == len(self.rows)] = 0
        failed = self.rows[place] == batch.column("row").to_numpy()
        if not failed.any():
            return batch
        hit, at = arrow.column(failed), arrow.column(place)
        hopeless = arrow.column(failed & ~self.mendable[place])
        nothing = pa.scalar(None, pa.string())
        said = batch.column("output") if self.is_json else _plain_texts(batch.column("output"))
        stop, outcome = (
            batch.column(name).cast(pa.string()) for name in ("stop_reason", "outcome")
        )
        changed = {
            "outcome": pc.if_else(hit, "Invalid", outcome).dictionary_encode(),
            "reason": pc.if_else(hit, self.reasons.take(at), batch.column("reason")),
            "text": pc.if_else(hit, pc.coalesce(batch.column("text"), said), batch.column("text")),
            "output": pc.if_else(hit, nothing, batch.column("output")),
            "stop_reason": pc.if_else(hopeless, nothing, stop).dictionary_encode(),
        }
        columns = [changed.get(name, batch.column(name)) for name in batch.schema.names]
        return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _plain_texts(outputs: pa.Array[Any]) -> pa.Array[Any]:
    """Texts that are written as JSON strings."""
    texts = [None if one is None else msgspec.json.decode(one) for one in outputs.to_pylist()]
    return pa.array(texts, pa.string())


@dataclass(frozen=True)
class Judged:
    """A folder of answers as a task with conditions sees them: what fails one is Invalid."""

    folder: UPath
    verdict: Callable[[str], Verdict | None]
    """By the batch's token; None: all its answers stand."""


Answers = UPath | Judged
"""Where answers are read."""


def read_answers(
    folder: Answers, token: str, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """All rows of one answers file. Raises ``LedgerError`` when it is gone."""
    if isinstance(folder, Judged):
        yield from _read_judged(folder, token, columns)
        return
    path = answers_path(folder, token)
    if not path.exists():
        raise LedgerError(
            f"the ledger has batch {token} as collected, but {path} is gone; restore the file from "
            "a backup: without it, what was bought would have to be bought again"
        )
    names = ANSWERS.names if columns is None else list(columns)
    schema = pa.schema([ANSWERS.field(name) for name in names])
    for rows in read_batches(path, names, rows=ROWS_PER_GROUP):
        yield completed(rows, schema)


def _read_judged(
    judged: Judged, token: str, columns: Sequence[str] | None
) -> Iterator[pa.RecordBatch]:
    verdict = judged.verdict(token)
    if verdict is None:
        yield from read_answers(judged.folder, token, columns)
        return
    names = ANSWERS.names if columns is None else list(columns)
    more = [name for name in Verdict.NEEDS if name not in names]
    for rows in read_answers(judged.folder, token, [*names, *more]):
        yield verdict.applied(rows).select(names)


def faulty_answers(folder: Answers, custom_ids: Iterable[str]) -> dict[str, Faulty]:
    """The answers of these custom_ids, as a repair shows them.

    Raises ``LedgerError`` when their file is gone or does not hold them.
    """
    wanted: dict[str, set[int]] = {}
    for name in set(custom_ids):
        token, row = parse_custom_id(name) or (name, 0)
        wanted.setdefault(token, set()).add(row)
    found: dict[str, Faulty] = {}
    for token, rows in wanted.items():
        chosen = pa.array(sorted(rows), pa.int32())
        for batch in read_answers(folder, token, ["row", "text", "reason"]):
            mine = batch.filter(pc.is_in(batch.column("row"), chosen))
            for row, text, reason in zip(*(c.to_pylist() for c in mine.columns), strict=True):
                found[custom_id(token, row)] = Faulty(text, reason)
    missing = set(custom_ids) - found.keys()
    if missing:
        raise LedgerError(
            f"the answer {min(missing)}, which a later attempt repairs, is not there; "
            "restore the answers files from a backup"
        )
    return found
