"""The cases of one variant, as its table in the warehouse has them.

The answer is taken from the typed columns as JSON, so that a number is a number and a list a list;
expected values come from the record's columns of the same row. Rows are read in blocks.

What an answer costs is the batch price of its tokens, and not what the variant paid: an equal
request of another variant or pipeline may have bought it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import duckdb

from batch_etl.batches.pricing import PriceList, Usage, cost_usd
from batch_etl.errors import ConfigError
from batch_etl.evaluation.scorers import Score
from batch_etl.strict import did_you_mean
from batch_etl.warehouse import TableInfo
from batch_etl.warehouse.sql import comma, identifier, qualified

_ROWS_AT_ONCE = 5_000

_PRICED = (
    "_model",
    "_answered_at",
    "_input_tokens",
    "_output_tokens",
    "_cache_read_tokens",
    "_cache_write_tokens",
)
"""In the order of ``Usage``; tables do not tell 5 minutes' cache from an hour's."""


@dataclass(frozen=True)
class Case:
    """One field of one record's answer by one variant, with what was expected."""

    variant: str
    record_id: str
    field: str
    expected: Any
    actual: Any
    """None where the record is in review."""
    score: float
    correct: bool
    state: str
    outcome: str
    cost_usd: Decimal | None
    """Price of the tokens of the record's whole answer: the same for each of its fields."""


def read_cases(
    connection: duckdb.DuckDBPyConnection,
    table: TableInfo,
    id_column: str,
    variant: str,
    scores: Sequence[Score],
    *,
    prices: PriceList,
) -> Iterator[Case]:
    """Each record's case for each of the scores, by the record's id.

    Raises ``ConfigError`` for an expected column or a field that the table does not have.
    """
    known = [column.name for column in table.columns]
    _require("expected", [score.expected for score in scores], known)
    _require("field", [score.field.split(".")[0] for score in scores], known)
    rows = connection.execute(_query(table, id_column, scores))
    while block := rows.fetchmany(_ROWS_AT_ONCE):
        for row in block:
            yield from _of_row(variant, row, scores, prices)


def _require(key: str, names: Sequence[str], known: list[str]) -> None:
    for at, name in enumerate(names):
        if name not in known:
            raise ConfigError(
                f"scores.{at}.{key}: the table has no column {name!r}{did_you_mean(name, known)}"
            )


def _query(table: TableInfo, id_column: str, scores: Sequence[Score]) -> str:
    values = [
        f"CAST(to_json({identifier(name)}) AS VARCHAR)"
        for score in scores
        for name in (score.expected, score.field.split(".")[0])
    ]
    columns = [f"CAST({identifier(id_column)} AS VARCHAR) AS id", "_state", "_outcome", *_PRICED]
    rows = qualified(table.schema, table.name)
    return f"SELECT {comma([*columns, *values])} FROM {rows} ORDER BY id"


def _of_row(
    variant: str, row: Sequence[Any], scores: Sequence[Score], prices: PriceList
) -> Iterator[Case]:
    record_id, state, outcome, *rest = row
    priced, values = rest[: len(_PRICED)], rest[len(_PRICED) :]
    cost = _price(prices, *priced)
    for at, score in enumerate(scores):
        expected, top = (_json(text) for text in values[2 * at : 2 * at + 2])
        first = score.field.split(".")[0]
        actual = score.value({first: top}) if state == "answered" else None
        points = score.of(expected, actual) if state == "answered" else 0.0
        yield Case(
            variant=variant,
            record_id=record_id,
            field=score.field,
            expected=expected,
            actual=actual,
            score=points,
            correct=points >= score.correct_from,
            state=state,
            outcome=outcome,
            cost_usd=cost,
        )


def _price(
    prices: PriceList, model: str | None, at: datetime | None, *tokens: int | None
) -> Decimal | None:
    """Of a row's tokens; nothing where there was no reply, None where there is no price."""
    if model is None or at is None:
        return Decimal(0)
    rates = prices.batch_rates(model, at)
    return None if rates is None else cost_usd(rates, Usage(*(count or 0 for count in tokens)))


def _json(text: str | None) -> Any:
    return None if text is None else json.loads(text)
