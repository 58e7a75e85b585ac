"""Prices that are public: rows of the vendor's table, and the package genai-prices. No network.

The package's bundled data are used, never its auto-update. Importing them takes a tenth of a
second, so it is done at the first look-up. The package selects a batch price by
``price_context={"processing": "batch"}``; ``service_tier`` is no key of its variants, which is why
a ``batch`` tier changes nothing there. Its variants begin on 2026-10-14; before that day, and for
models without one, the batch price is half of the standard price in every column
(docs/batches-api.md, section 11).

A model whose price lacks one of the five columns, or has more than one band, has no price here:
unknown is better than wrong.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, cast

from batch_etl import memory
from batch_etl.batches.price_overrides import (
    COLUMNS,
    Basis,
    Price,
    PriceOverride,
    PriceOverrides,
    Tariff,
)

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice


BATCH_FACTOR = Decimal("0.5")
"""What a batch costs of the standard price, in every column (section 11)."""


def _published(model: str, prices: str, until: date | None = None) -> PriceOverride:
    price = Price(*map(Decimal, prices.split()))
    return PriceOverride(model, "standard", price, until=until)


PUBLISHED = PriceOverrides(
    (
        _published("claude-mythos-5", "10 50 1.00 12.5 20"),
        _published("claude-mythos-5-1", "10 50 0.25 12.5 20"),
        _published("claude-sonnet-5-5", "2 10 0.20 2.5 4", until=date(2026, 10, 7)),
    )
)
"""Rows of section 11 that genai-prices 0.2.3 lacks, or has for later days only."""


_PACKAGE_KEYS: dict[str, tuple[str, ...]] = {
    "input": ("input_mtok",),
    "output": ("output_mtok",),
    "cache_read": ("cache_read_mtok",),
    "cache_write_5m": ("cache_write_5m_mtok", "cache_write_mtok"),
    "cache_write_1h": ("cache_write_1h_mtok",),
}


def packaged(model: str, on: date, kind: Literal["standard", "batch"]) -> Tariff | None:
    """The package's price, None when it does not know the model or one of the five columns."""
    info = _find_packaged(model)
    if info is None:
        return None
    moment = datetime(on.year, on.month, on.day, tzinfo=UTC)
    standard = info.get_prices(moment)
    if kind == "standard":
        return _tariff("genai-prices standard", standard)
    batch = info.get_prices(moment, {"processing": "batch"})
    if all(_amounts(batch, name) != _amounts(standard, name) for name in COLUMNS):
        return _tariff("genai-prices batch variant", batch)
    tariff = _tariff("half of genai-prices standard", standard)
    return tariff and tariff.times(BATCH_FACTOR)


def _find_packaged(model: str) -> ModelInfo | None:
    with memory.uncollected():  # thousands of objects, all of which stay
        from genai_prices.data import providers

    anthropic = next(provider for provider in providers if provider.id == "anthropic")
    return anthropic.find_model(model)


def _tariff(basis: Basis, price: ModelPrice) -> Tariff | None:
    amounts = {name: _amounts(price, name) for name in COLUMNS}
    if any(amount is None for amount in amounts.values()):
        return None
    known = cast("dict[str, tuple[Decimal, int, Decimal]]", amounts)
    base = Price(**{name: amount[0] for name, amount in known.items()})
    above = max(amount[1] for amount in known.values())
    if not above:
        return Tariff(basis, base)
    return Tariff(basis, base, Price(**{n: amount[2] for n, amount in known.items()}), above)


def _amounts(price: ModelPrice, column: str) -> tuple[Decimal, int, Decimal] | None:
    """A column's base price, its tier's threshold (0: none) and its price above that."""
    from genai_prices.types import TieredPrices

    found = (getattr(price, key) for key in _PACKAGE_KEYS[column])
    value: Any = next((amount for amount in found if amount is not None), None)
    if isinstance(value, TieredPrices):
        if len(value.tiers) != 1:
            return None
        return value.base, value.tiers[0].start, value.tiers[0].price
    return None if value is None else (value, 0, value)
