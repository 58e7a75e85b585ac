"""Prices in dollars per million tokens, as people write and publish them; the user's dated ones.

An override is one dated price of one model, or of all models that a glob matches. Days are UTC,
``from`` is inclusive and ``until`` exclusive, so that one price's end is the next one's beginning.
The user's order decides between entries that overlap: the last that matches counts, so a line
added at the end of the file is the one that holds.

All five columns must be given. No column is derived from another, because the ratios differ by
model (a cache read costs a tenth of the input with one and a fortieth with another), and a price
that was guessed looks like one that is known. A wrong entry is a :class:`ConfigError` that leads
with its place: ``prices[2].batch.input``.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, cast

from batch_etl.errors import ConfigError
from batch_etl.strict import unknown_key

Basis = Literal[
    "override",
    "published table",
    "genai-prices batch variant",
    "half of genai-prices standard",
    "genai-prices standard",
]
"""Where a price is from."""


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


COLUMNS = tuple(field.name for field in fields(Price))
"""The kinds of tokens that have a price of their own."""


@dataclass(frozen=True, slots=True)
class Tariff:
    """A price with its band, before it becomes rates."""

    basis: Basis
    base: Price
    long_prompt: Price | None = None
    above_tokens: int = 0

    def times(self, factor: Decimal) -> Tariff:
        long_prompt = self.long_prompt.times(factor) if self.long_prompt else None
        return Tariff(self.basis, self.base.times(factor), long_prompt, self.above_tokens)


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
    _refuse_unknown(values, COLUMNS, where)
    missing = [column for column in COLUMNS if column not in values]
    if missing:
        raise ConfigError(
            f"{where}: {', '.join(missing)} missing; prices differ by model and are not derived"
        )
    return Price(*(_usd_per_mtok(values[name], f"{where}.{name}") for name in COLUMNS))


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
