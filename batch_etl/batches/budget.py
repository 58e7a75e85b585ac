"""Budgets: how many dollars may be committed, by whom and when, and how a refusal reads.

    run_usd     by one transform, with all its attempts: one partition, or a whole backfill
    day_usd     by a pipeline on one day (UTC)
    total_usd   by a pipeline, ever
    (a setting) by all pipelines of the ledger on one day (UTC)

All of them hold for one endpoint: emulated dollars are no dollars. Committed is what was spent and
what is reserved (``reservations.py`` says which is which). Pure: functions of values, in whole
pico-dollars.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Annotated, Literal

import pydantic

from batch_etl.batches.pricing import PICO_USD, usd
from batch_etl.errors import ConfigError
from batch_etl.strict import Strict

__all__ = [
    "DAY_SETTING",
    "Budget",
    "Limit",
    "Period",
    "Reservation",
    "Standing",
    "day_budget",
    "dollars",
    "limits",
    "overdrawn",
    "refusal",
]

DAY_SETTING = "BATCH_ETL_BUDGET_DAY_USD"
"""The environment variable of the budget over all pipelines."""

Period = Literal["run", "day", "total"]

_MOST_USD = 9_000_000
"""A budget up to this is counted in 64 bits of pico-dollars."""

Usd = Annotated[Decimal, pydantic.Field(gt=0, le=_MOST_USD)]


class Budget(Strict):
    """The most that a pipeline may commit, in dollars; over it, nothing is sent."""

    run_usd: Usd | None = pydantic.Field(
        default=None, description="By one run: a partition, or a whole backfill, with its retries."
    )
    day_usd: Usd | None = pydantic.Field(default=None, description="On one day (UTC).")
    total_usd: Usd | None = pydantic.Field(default=None, description="Ever.")


@dataclass(frozen=True)
class Limit:
    """One budget that holds for a transform."""

    name: str
    """As the user wrote it: ``budget.day_usd``, or the setting."""
    period: Period
    pico_usd: int
    pipeline: str | None
    """None: all pipelines."""

    def since(self, now: dt.datetime) -> dt.datetime | None:
        """From when on money counts; None: from the beginning."""
        if self.period != "day":
            return None
        return now.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)


@dataclass(frozen=True)
class Reservation:
    """Dollars to be set aside for requests, and all that a refusal has to say."""

    pipeline: str
    pico_usd: int
    what: str
    """The requests and their tokens, in words."""
    limits: tuple[Limit, ...]


@dataclass(frozen=True)
class Standing:
    """How much of a budget is committed."""

    limit: Limit
    spent_pico_usd: int
    reserved_pico_usd: int
    unpriced: int = 0
    """Batches that count as nothing, because neither cost nor reservation is known."""

    @property
    def left_pico_usd(self) -> int:
        """Never below zero: what was spent may be more than was reserved."""
        return max(0, self.limit.pico_usd - self.spent_pico_usd - self.reserved_pico_usd)


def limits(pipeline: str, budget: Budget | None, all_day_usd: Decimal | None) -> tuple[Limit, ...]:
    """The budgets that hold for a pipeline, the narrowest first."""
    budget = budget or Budget()
    periods: tuple[tuple[Period, Decimal | None], ...] = (
        ("run", budget.run_usd),
        ("day", budget.day_usd),
        ("total", budget.total_usd),
    )
    own = [
        Limit(f"budget.{period}_usd", period, _pico(value), pipeline)
        for period, value in periods
        if value is not None
    ]
    if all_day_usd is None:
        return tuple(own)
    return (*own, Limit(DAY_SETTING, "day", _pico(all_day_usd), None))


def day_budget(value: str | None) -> Decimal | None:
    """The setting's dollars, None where it is not set. Raises ``ConfigError``."""
    if value is None:
        return None
    try:
        amount = Decimal(value)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or not 0 < amount <= _MOST_USD:
        raise ConfigError(
            f"{DAY_SETTING}: {value!r} is no budget; give dollars above 0, such as 25 or 0.50, "
            "or unset it"
        )
    return amount


def overdrawn(standings: Sequence[Standing], need_pico_usd: int) -> Standing | None:
    """The first budget that has not so much left."""
    return next((one for one in standings if one.left_pico_usd < need_pico_usd), None)


def refusal(reservation: Reservation, standing: Standing) -> str:
    """One readable sentence a fact: the price and why, whose budget, what is left, what to do."""
    limit = standing.limit
    whose = "all pipelines" if limit.pipeline is None else f"pipeline {limit.pipeline!r}"
    per = {"run": "for one run", "day": "for a day (UTC)", "total": "in all"}[limit.period]
    left = dollars(standing.left_pico_usd)
    return (
        f"pipeline {reservation.pipeline!r}: sending {reservation.what} would cost up to "
        f"{dollars(reservation.pico_usd)}, and {limit.name} ({dollars(limit.pico_usd)} {per}, "
        f"{whose}) has {left} left: {dollars(standing.spent_pico_usd)} are spent, "
        f"{dollars(standing.reserved_pico_usd)} are reserved for what is under way. "
        f"Nothing of it was sent. {_advice(reservation, standing)}"
    )


def _advice(reservation: Reservation, standing: Standing) -> str:
    limit = standing.limit
    ways = [f"raise {limit.name}", "send fewer records at a time"]
    alone = reservation.pico_usd <= limit.pico_usd
    if limit.period == "day" and alone:
        ways.append("run again after midnight UTC")
    if standing.reserved_pico_usd and alone and limit.period != "run":
        ways.append("run again when what is under way has been collected")
    sentence = f"{', or '.join(ways)}."
    return sentence[0].upper() + sentence[1:]


def dollars(pico_usd: int) -> str:
    """Dollars for people: cents at least, down to the millionth where the amount is small."""
    amount = usd(pico_usd)
    if amount >= 100:
        return f"${amount:,.2f}"
    text = f"{amount:.6f}" if amount < 1 else f"{amount:.4f}"
    whole, _, decimals = text.partition(".")
    return f"${whole}.{decimals.rstrip('0').ljust(2, '0')}"


def _pico(value: Decimal) -> int:
    return int(value * PICO_USD)
