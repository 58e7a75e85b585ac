"""Usage times price: what a line of a batch cost, exactly, or None when nobody knows.

Prices are layered; the first layer that knows the model on that day decides:

    1. overrides    dated entries from the user's YAML, the last that matches first
    2. published    the rows of docs/batches-api.md, section 11 that the package lacks or has wrong
    3. genai-prices the package's bundled data (never its auto-update, never the network)

``price_overrides`` reads the first layer and holds what all of them speak in, dollars per million
tokens; ``prices_published`` is the other two. ``ModelRates.basis`` says which it was.

Rates are whole pico-dollars (1e-12 $) a token: $1/MTok is 1,000,000. Every published price, halved,
is whole; so is ``inference_geo: us`` (times 1.1) on every published price. A rate that is not whole
(an override with more than six decimals) is rounded half to even, once, when it is made. From there
on all arithmetic is on integers and exact, for one line and for a column of them alike.

Bands: all tokens of a request whose prompt (input + cache reads + cache writes) is longer than a
band's threshold are billed at that band's rates. Web search and other per-use fees are not priced.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING, Literal

from batch_etl.batches.models import real_name
from batch_etl.batches.price_overrides import Basis, Price, PriceOverrides, Tariff
from batch_etl.batches.prices_published import BATCH_FACTOR, PUBLISHED, packaged

__all__ = [
    "PICO_USD",
    "ModelRates",
    "PriceList",
    "PriceOverrides",
    "Rates",
    "Usage",
    "UsageColumns",
    "bound_usd",
    "cost_pico",
    "cost_pico_usd",
    "cost_usd",
    "usd",
]

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Int64s = npt.NDArray[np.int64]

PICO_USD = 10**12
"""Pico-dollars in a dollar."""

_PICO_USD_PER_MTOK_USD = 10**6
_GEO_FACTORS = {
    None: Decimal(1),
    "not_available": Decimal(1),
    "global": Decimal(1),
    "us": Decimal("1.1"),
}
"""Section 11; ``not_available`` is what replies say where the setting does not apply."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one reply, as the API counts them: ``input_tokens`` excludes all cached ones."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0

    @property
    def prompt_tokens(self) -> int:
        """The whole prompt, which decides the band."""
        return self.input_tokens + self.cache_read_tokens + self._written_tokens

    @property
    def _written_tokens(self) -> int:
        return self.cache_write_5m_tokens + self.cache_write_1h_tokens


@dataclass(frozen=True, slots=True)
class UsageColumns:
    """The same five numbers for many replies: int64 arrays of one length, without nulls."""

    input_tokens: Int64s
    output_tokens: Int64s
    cache_read_tokens: Int64s
    cache_write_5m_tokens: Int64s
    cache_write_1h_tokens: Int64s

    @classmethod
    def of(cls, matrix: Int64s) -> UsageColumns:
        """From one array of shape (rows, 5), its columns in the order of the fields."""
        return cls(*(matrix[:, column] for column in range(5)))


@dataclass(frozen=True, slots=True)
class Rates:
    """Whole pico-dollars for one token of each kind."""

    input_pico_usd: int
    output_pico_usd: int
    cache_read_pico_usd: int
    cache_write_5m_pico_usd: int
    cache_write_1h_pico_usd: int

    def times(self, usage: Usage) -> int:
        """Pico-dollars for these tokens, whatever their band."""
        return (
            self.input_pico_usd * usage.input_tokens
            + self.output_pico_usd * usage.output_tokens
            + self.cache_read_pico_usd * usage.cache_read_tokens
            + self.cache_write_5m_pico_usd * usage.cache_write_5m_tokens
            + self.cache_write_1h_pico_usd * usage.cache_write_1h_tokens
        )


@dataclass(frozen=True, slots=True)
class ModelRates:
    """What one model's tokens cost on one day; ``basis`` says where the price is from."""

    model: str
    basis: Basis
    base: Rates
    long_prompt: Rates | None = None
    long_prompt_above_tokens: int = 0
    """``long_prompt`` holds for all tokens of requests whose prompt is longer than this."""

    def for_prompt(self, prompt_tokens: int) -> Rates:
        """The rates of a request with a prompt of that length, cached tokens included."""
        if self.long_prompt is not None and prompt_tokens > self.long_prompt_above_tokens:
            return self.long_prompt
        return self.base


def cost_pico(rates: ModelRates, usage: Usage) -> int:
    """Exact pico-dollars of one reply."""
    return rates.for_prompt(usage.prompt_tokens).times(usage)


def cost_usd(rates: ModelRates, usage: Usage) -> Decimal:
    """Exact dollars of one reply."""
    return usd(cost_pico(rates, usage))


def usd(pico_usd: int) -> Decimal:
    """Pico-dollars as dollars, exact at any size."""
    return Decimal(pico_usd).scaleb(-12)


def cost_pico_usd(rates: ModelRates, columns: UsageColumns) -> Int64s:
    """Exact pico-dollars of many replies, equal to :func:`cost_pico` row by row.

    Raises ``OverflowError`` where a row could pass int64 (9.2 million dollars). A *sum* of rows
    can pass it too: add in Python integers or Decimal beyond that.
    """
    _refuse_overflow(rates, columns)
    cost = _times(rates.base, columns)
    if rates.long_prompt is None:
        return cost
    prompt = columns.input_tokens + columns.cache_read_tokens
    prompt = prompt + columns.cache_write_5m_tokens + columns.cache_write_1h_tokens
    import numpy as np  # here: the ledger's money needs none of it

    long = prompt > rates.long_prompt_above_tokens
    return np.where(long, _times(rates.long_prompt, columns), cost)


def _times(rates: Rates, columns: UsageColumns) -> Int64s:
    return (
        columns.input_tokens * rates.input_pico_usd
        + columns.output_tokens * rates.output_pico_usd
        + columns.cache_read_tokens * rates.cache_read_pico_usd
        + columns.cache_write_5m_tokens * rates.cache_write_5m_pico_usd
        + columns.cache_write_1h_tokens * rates.cache_write_1h_pico_usd
    )


def _refuse_overflow(rates: ModelRates, columns: UsageColumns) -> None:
    arrays: list[Int64s] = [getattr(columns, field.name) for field in fields(columns)]
    largest = Usage(*(int(array.max(initial=0)) for array in arrays))
    bands = [rates.base, *([rates.long_prompt] if rates.long_prompt else [])]
    if max(band.times(largest) for band in bands) >= 2**63:
        raise OverflowError(f"a reply's cost passes int64 pico-dollars; its usage: {largest}")


def bound_usd(
    rates: ModelRates,
    input_tokens: int,
    max_tokens: int,
    *,
    cache_ttl: Literal["5m", "1h"] | None = None,
) -> Decimal:
    """The most that a request can cost: the whole prompt, and all the output it may write.

    ``input_tokens`` is the whole prompt's length. With prompt caching, every token of it is taken
    to be written to the cache, which is the dearest thing that can happen to it.
    """
    band = rates.for_prompt(input_tokens)
    written = {
        None: 0,
        "5m": band.cache_write_5m_pico_usd,
        "1h": max(band.cache_write_5m_pico_usd, band.cache_write_1h_pico_usd),
    }[cache_ttl]
    per_input = max(band.input_pico_usd, written)
    return usd(per_input * input_tokens + band.output_pico_usd * max_tokens)


class PriceList:
    """Prices by model and day; lookups are remembered."""

    def __init__(self, overrides: PriceOverrides | None = None) -> None:
        self._overrides = overrides or PriceOverrides()
        self._rates = functools.cache(self._look_up)

    def batch_rates(
        self, model: str, at: datetime, *, inference_geo: str | None = None
    ) -> ModelRates | None:
        """What a line of a batch created at ``at`` costs; None when unknown, never zero.

        ``emulator:<model>`` is priced as ``<model>``: what it would have cost. ``inference_geo``
        is the reply's: ``us`` costs 1.1 times as much; one that is not documented has no price.
        """
        return self._rates(real_name(model), _utc_day(at), inference_geo, "batch")

    def standard_rates(
        self, model: str, at: datetime, *, inference_geo: str | None = None
    ) -> ModelRates | None:
        """What the same tokens cost outside a batch; otherwise as :meth:`batch_rates`.

        An override that states only batch prices says nothing of standard ones and is passed over.
        """
        return self._rates(real_name(model), _utc_day(at), inference_geo, "standard")

    def _look_up(
        self, model: str, on: date, geo: str | None, kind: Literal["standard", "batch"]
    ) -> ModelRates | None:
        if geo not in _GEO_FACTORS:
            return None
        layers: tuple[tuple[PriceOverrides, Basis], ...] = (
            (self._overrides, "override"),
            (PUBLISHED, "published table"),
        )
        for layer, basis in layers:
            entry = layer.find(model, on)
            if entry is not None and not (kind == "standard" and entry.kind == "batch"):
                halved = kind == "batch" and entry.kind == "standard"
                factor = (BATCH_FACTOR if halved else Decimal(1)) * _GEO_FACTORS[geo]
                tariff = Tariff(basis, entry.base, entry.long_prompt, entry.above_tokens)
                return _model_rates(model, tariff.times(factor))
        tariff = packaged(model, on, kind)
        return _model_rates(model, tariff.times(_GEO_FACTORS[geo])) if tariff else None


def _utc_day(at: datetime) -> date:
    if at.tzinfo is None:
        raise ValueError("a price needs a moment with a time zone")
    return at.astimezone(UTC).date()


def _model_rates(model: str, tariff: Tariff) -> ModelRates:
    long_prompt = _rates(tariff.long_prompt) if tariff.long_prompt else None
    return ModelRates(model, tariff.basis, _rates(tariff.base), long_prompt, tariff.above_tokens)


def _rates(price: Price) -> Rates:
    return Rates(*(_whole_pico(getattr(price, field.name)) for field in fields(price)))


def _whole_pico(usd_per_mtok: Decimal) -> int:
    pico = usd_per_mtok * _PICO_USD_PER_MTOK_USD
    return int(pico.to_integral_value(ROUND_HALF_EVEN))
