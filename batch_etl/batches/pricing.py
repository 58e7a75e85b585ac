"""Usage times price: what a line of a batch cost, exactly, or None when nobody knows.

Prices are layered; the first layer that knows the model on that day decides:

    1. overrides    dated entries from the user's YAML, the last that matches first
    2. published    the rows of claude-batches-api.md section 11 that the package lacks or has wrong
    3. genai-prices the package's bundled data (never its auto-update, never the network)

The package selects a batch price by ``price_context={"processing": "batch"}``; ``service_tier`` is
no key of its variants, which is why a ``batch`` tier changes nothing there. Its variants begin on
2026-10-14; before that day, and for models without one, the batch price is half of the standard
price in every column (section 11). ``ModelRates.basis`` says which it was.

Rates are whole pico-dollars (1e-12 $) a token: $1/MTok is 1,000,000. Every published price, halved,
is whole; so is ``inference_geo: us`` (times 1.1) on every published price. A rate that is not whole
(an override with more than six decimals) is rounded half to even, once, when it is made. From there
on all arithmetic is on integers and exact, for one line and for a column of them alike.

Bands: all tokens of a request whose prompt (input + cache reads + cache writes) is longer than a
band's threshold are billed at that band's rates. Web search and other per-use fees are not priced.
"""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt

from batch_etl.batches.models import real_name
from batch_etl.errors import ConfigError
from batch_etl.strict import unknown_key

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice

Int64s = npt.NDArray[np.int64]

PICO_USD = 10**12
"""Pico-dollars in a dollar."""

_PICO_USD_PER_MTOK_USD = 10**6
_BATCH_FACTOR = Decimal("0.5")
_GEO_FACTORS = {
    None: Decimal(1),
    "not_available": Decimal(1),
    "global": Decimal(1),
    "us": Decimal("1.1"),
}
"""Section 11; ``not_available`` is what replies say where the setting does not apply."""

Basis = Literal[
    "override",
    "published table",
    "genai-prices batch variant",
    "half of genai-prices standard",
    "genai-prices standard",
]


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


# Prices as people write them: dollars per million tokens


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per million tokens of each kind."""

    input: Decimal
    output: Decimal
    cache_read: Decimal
    cache_write_5m: Decimal
    cache_write_1h: Decimal

    def times(self, factor: Decimal) -> Price:
        return Price(*(getattr(self, field.name) * factor for field in fields(self)))

    def rates(self) -> Rates:
        return Rates(*(_whole_pico(getattr(self, field.name)) for field in fields(self)))


def _whole_pico(usd_per_mtok: Decimal) -> int:
    pico = usd_per_mtok * _PICO_USD_PER_MTOK_USD
    return int(pico.to_integral_value(ROUND_HALF_EVEN))


@dataclass(frozen=True, slots=True)
class _Tariff:
    """A price with its band, before it becomes rates."""

    basis: Basis
    base: Price
    long_prompt: Price | None = None
    above_tokens: int = 0

    def rates(self, model: str, factor: Decimal) -> ModelRates:
        long_prompt = self.long_prompt.times(factor).rates() if self.long_prompt else None
        base = self.base.times(factor).rates()
        return ModelRates(model, self.basis, base, long_prompt, self.above_tokens)


@dataclass(frozen=True, slots=True)
class PriceOverride:
    """One dated price: valid from the start of ``since`` up to the start of ``until``, UTC."""

    model: str
    """A model's name; ``*`` and ``?`` match as in file names."""
    kind: Literal["standard", "batch"]
    """What the prices are; a batch costs half of a standard price."""
    base: Price
    since: date | None = None
    until: date | None = None
    long_prompt: Price | None = None
    above_tokens: int = 0

    def matches(self, model: str, on: date) -> bool:
        if not fnmatch.fnmatchcase(model, self.model):
            return False
        return (self.since is None or self.since <= on) and (self.until is None or on < self.until)


@dataclass(frozen=True, slots=True)
class PriceOverrides:
    """Dated prices in the user's order; of those that match, the last counts."""

    entries: tuple[PriceOverride, ...] = ()

    @classmethod
    def load(cls, entries: object, where: str) -> PriceOverrides:
        """Read the YAML list; raises :class:`ConfigError` led by ``where`` and the entry's place.

        ::

            - model: claude-haiku-5-5        # or a glob: claude-haiku-*
              from: 2026-12-01               # optional, inclusive, UTC
              until: 2027-01-01              # optional, exclusive
              standard:                      # $/MTok, halved for batches; or batch: as billed
                {input: 0.10, output: 0.50, cache_read: 0.01,
                 cache_write_5m: 0.125, cache_write_1h: 0.20}
              long_prompt:                   # optional: all tokens of longer prompts
                {above_tokens: 100000, input: 0.50, ...}
        """
        if entries is None:
            return cls()
        if not isinstance(entries, Sequence) or isinstance(entries, str):
            raise ConfigError(f"{where}: must be a list of prices, each with model and batch")
        listed = cast("Sequence[object]", entries)
        return cls(tuple(_override(entry, f"{where}[{i}]") for i, entry in enumerate(listed)))

    def find(self, model: str, on: date) -> PriceOverride | None:
        return next((e for e in reversed(self.entries) if e.matches(model, on)), None)


_COLUMNS = tuple(field.name for field in fields(Price))


def _override(entry: object, where: str) -> PriceOverride:
    values = _mapping(entry, where)
    _refuse_unknown(values, ("model", "from", "until", "standard", "batch", "long_prompt"), where)
    model = values.get("model")
    if not isinstance(model, str) or not model:
        raise ConfigError(f"{where}.model: name a model or a glob such as claude-haiku-*")
    if ("standard" in values) == ("batch" in values):
        raise ConfigError(f"{where}: give either standard (halved for batches) or batch prices")
    kind: Literal["standard", "batch"] = "standard" if "standard" in values else "batch"
    since, until = _day(values, "from", where), _day(values, "until", where)
    if since and until and since >= until:
        raise ConfigError(f"{where}.until: {until} is not after from ({since})")
    base = _price(values[kind], f"{where}.{kind}")
    if "long_prompt" not in values:
        return PriceOverride(model, kind, base, since, until)
    above, long_prompt = _long_prompt(values["long_prompt"], f"{where}.long_prompt")
    return PriceOverride(model, kind, base, since, until, long_prompt, above)


def _long_prompt(value: object, where: str) -> tuple[int, Price]:
    values = dict(_mapping(value, where))
    above = values.pop("above_tokens", None)
    if not isinstance(above, int) or isinstance(above, bool) or above < 1:
        raise ConfigError(f"{where}.above_tokens: a whole number of tokens, not {above!r}")
    return above, _price(values, where)


def _price(value: object, where: str) -> Price:
    values = _mapping(value, where)
    _refuse_unknown(values, _COLUMNS, where)
    missing = [column for column in _COLUMNS if column not in values]
    if missing:
        raise ConfigError(
            f"{where}: {', '.join(missing)} missing; prices differ by model and are not derived"
        )
    return Price(*(_usd_per_mtok(values[name], f"{where}.{name}") for name in _COLUMNS))


def _usd_per_mtok(value: object, where: str) -> Decimal:
    try:
        if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
            raise InvalidOperation
        price = Decimal(str(value))
    except InvalidOperation:
        raise ConfigError(f"{where}: {value!r} is not a number of dollars per MTok") from None
    if not price.is_finite() or not 0 <= price <= 1_000_000:
        raise ConfigError(f"{where}: {value!r} is no price; give dollars per million tokens")
    return price


def _day(values: Mapping[str, Any], key: str, where: str) -> date | None:
    value = values.get(key)
    if isinstance(value, datetime):
        raise ConfigError(f"{where}.{key}: {value} has a time; prices change at midnight UTC")
    if value is None or isinstance(value, date):
        return value
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{where}.{key}: {value!r} is not a date like 2026-12-01") from None


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: must be a mapping, not {type(value).__name__}")
    return cast("Mapping[str, Any]", value)


def _refuse_unknown(values: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in values:
        if key not in known:
            raise ConfigError(f"{where}: {unknown_key(str(key), set(known))}")


# The three layers


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
                factor = (_BATCH_FACTOR if halved else Decimal(1)) * _GEO_FACTORS[geo]
                tariff = _Tariff(basis, entry.base, entry.long_prompt, entry.above_tokens)
                return tariff.rates(model, factor)
        tariff = _packaged(model, on, kind)
        return tariff.rates(model, _GEO_FACTORS[geo]) if tariff else None


def _utc_day(at: datetime) -> date:
    if at.tzinfo is None:
        raise ValueError("a price needs a moment with a time zone")
    return at.astimezone(UTC).date()


_PACKAGE_KEYS: dict[str, tuple[str, ...]] = {
    "input": ("input_mtok",),
    "output": ("output_mtok",),
    "cache_read": ("cache_read_mtok",),
    "cache_write_5m": ("cache_write_5m_mtok", "cache_write_mtok"),
    "cache_write_1h": ("cache_write_1h_mtok",),
}


def _packaged(model: str, on: date, kind: Literal["standard", "batch"]) -> _Tariff | None:
    """The package's price, None when it does not know the model or one of the five columns."""
    info = _find_packaged(model)
    if info is None:
        return None
    moment = datetime(on.year, on.month, on.day, tzinfo=UTC)
    standard = info.get_prices(moment)
    if kind == "standard":
        return _tariff("genai-prices standard", standard)
    batch = info.get_prices(moment, {"processing": "batch"})
    if all(_amounts(batch, name) != _amounts(standard, name) for name in _COLUMNS):
        return _tariff("genai-prices batch variant", batch)
    tariff = _tariff("half of genai-prices standard", standard)
    return tariff and _halved(tariff)


def _halved(tariff: _Tariff) -> _Tariff:
    long_prompt = tariff.long_prompt.times(_BATCH_FACTOR) if tariff.long_prompt else None
    return _Tariff(tariff.basis, tariff.base.times(_BATCH_FACTOR), long_prompt, tariff.above_tokens)


def _find_packaged(model: str) -> ModelInfo | None:
    from genai_prices.data import providers  # here: it is a second of importing

    anthropic = next(provider for provider in providers if provider.id == "anthropic")
    return anthropic.find_model(model)


def _tariff(basis: Basis, price: ModelPrice) -> _Tariff | None:
    amounts = {name: _amounts(price, name) for name in _COLUMNS}
    if any(amount is None for amount in amounts.values()):
        return None
    known = cast("dict[str, tuple[Decimal, int, Decimal]]", amounts)
    base = Price(**{name: amount[0] for name, amount in known.items()})
    above = max(amount[1] for amount in known.values())
    if not above:
        return _Tariff(basis, base)
    return _Tariff(basis, base, Price(**{n: amount[2] for n, amount in known.items()}), above)


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
