"""Prices: the published table row by row, exact arithmetic, overrides that explain themselves."""

from __future__ import annotations

from dataclasses import astuple
from datetime import UTC, date, datetime
from decimal import Decimal

import genai_prices
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_etl.batches.pricing import (
    ModelRates,
    PriceList,
    PriceOverrides,
    Rates,
    Usage,
    UsageColumns,
    bound_usd,
    cost_pico,
    cost_pico_usd,
    cost_usd,
)
from batch_etl.errors import ConfigError

NOW = datetime(2026, 11, 23, tzinfo=UTC)
BEFORE_BATCH_VARIANTS = datetime(2026, 10, 8, tzinfo=UTC)
COLUMNS = ("input", "output", "cache_write_5m", "cache_write_1h", "cache_read")

# docs/batches-api.md, section 11: in, out, 5m write, 1h write, cache read; batch in / out
TABLE = [
    ("claude-fable-5-2", "8 40 10 16 0.20", "4 20"),
    ("claude-mythos-5-2", "8 40 10 16 0.20", "4 20"),
    ("claude-fable-5-1", "10 50 12.5 20 0.25", "5 25"),
    ("claude-mythos-5-1", "10 50 12.5 20 0.25", "5 25"),
    ("claude-fable-5", "10 50 12.5 20 1.00", "5 25"),
    ("claude-mythos-5", "10 50 12.5 20 1.00", "5 25"),
    ("claude-opus-5-5", "4 20 5 8 0.20", "2 10"),
    ("claude-opus-5", "5 25 6.25 10 0.50", "2.5 12.5"),
    ("claude-opus-4-8", "5 25 6.25 10 0.50", "2.5 12.5"),
    ("claude-opus-4-7", "5 25 6.25 10 0.50", "2.5 12.5"),
    ("claude-opus-4-6", "5 25 6.25 10 0.50", "2.5 12.5"),
    ("claude-opus-4-5", "5 25 6.25 10 0.50", "2.5 12.5"),
    ("claude-opus-4-5-20251101", "5 25 6.25 10 0.50", "2.5 12.5"),
    ("claude-sonnet-5-5", "2 10 2.5 4 0.10", "1 5"),
    ("claude-sonnet-5", "2 10 2.5 4 0.20", "1 5"),
    ("claude-sonnet-4-6", "3 15 3.75 6 0.30", "1.5 7.5"),
    ("claude-sonnet-4-5", "3 15 3.75 6 0.30", "1.5 7.5"),
    ("claude-sonnet-4-5-20250929", "3 15 3.75 6 0.30", "1.5 7.5"),
    ("claude-haiku-5-5", "0.10 0.50 0.125 0.20 0.01", "0.05 0.25"),
    ("claude-haiku-4-5", "1 5 1.25 2 0.10", "0.5 2.5"),
    ("claude-haiku-4-5-20251001", "1 5 1.25 2 0.10", "0.5 2.5"),
]


def usd_per_mtok(rates: Rates) -> list[Decimal]:
    return [Decimal(getattr(rates, f"{column}_pico_usd")) / 10**6 for column in COLUMNS]


def numbers(words: str) -> list[Decimal]:
    return [Decimal(word) for word in words.split()]


def batch(model: str, at: datetime = NOW, **kwargs: str) -> ModelRates:
    rates = PriceList().batch_rates(model, at, **kwargs)
    assert rates is not None
    return rates


@pytest.mark.parametrize(("model", "standard", "in_out"), TABLE)
@pytest.mark.parametrize("at", [NOW, BEFORE_BATCH_VARIANTS])
def test_every_row_of_the_published_table_is_priced_so_and_halved_in_batches(
    model: str, standard: str, in_out: str, at: datetime
) -> None:
    list_price = PriceList().standard_rates(model, at)
    assert list_price is not None
    assert usd_per_mtok(list_price.base) == numbers(standard)
    halved = batch(model, at)
    assert usd_per_mtok(halved.base) == [price / 2 for price in numbers(standard)]
    assert usd_per_mtok(halved.base)[:2] == numbers(in_out)


def test_haiku_5_5_bills_every_token_of_a_long_prompt_at_the_higher_rate() -> None:
    rates = batch("claude-haiku-5-5")
    assert rates.long_prompt_above_tokens == 100_000
    assert rates.long_prompt is not None
    assert usd_per_mtok(rates.long_prompt) == [
        price / 2 for price in numbers("0.50 2.50 0.625 1.00 0.05")
    ]
    at_the_edge = Usage(input_tokens=60_000, cache_read_tokens=40_000)
    beyond = Usage(input_tokens=60_000, cache_read_tokens=40_001)
    assert cost_usd(rates, at_the_edge) == Decimal("0.0032")
    assert cost_usd(rates, beyond) == Decimal("0.016000025")


@pytest.mark.parametrize(
    ("model", "at", "basis"),
    [
        ("claude-haiku-4-5", NOW, "genai-prices batch variant"),
        ("claude-haiku-4-5", datetime(2026, 10, 13, 23, 59, tzinfo=UTC), "half of genai-prices"),
        ("claude-haiku-4-5", datetime(2026, 10, 14, tzinfo=UTC), "genai-prices batch variant"),
        ("claude-opus-4-1", NOW, "half of genai-prices standard"),
        ("claude-mythos-5", NOW, "published table"),
    ],
)
def test_the_basis_says_where_a_price_is_from(model: str, at: datetime, basis: str) -> None:
    assert batch(model, at).basis.startswith(basis)


def test_sonnet_5_5_cache_reads_cost_twice_as_much_before_2026_10_07() -> None:
    before = batch("claude-sonnet-5-5", datetime(2026, 10, 6, 23, 59, tzinfo=UTC))
    after = batch("claude-sonnet-5-5", datetime(2026, 10, 7, tzinfo=UTC))
    assert (before.base.cache_read_pico_usd, after.base.cache_read_pico_usd) == (100_000, 50_000)


@pytest.mark.parametrize("model", ["gpt-5", "claude-haiku-9", "my-local-model", "", "claude-2"])
def test_an_unknown_price_is_none_and_never_zero(model: str) -> None:
    assert PriceList().batch_rates(model, NOW) is None
    assert PriceList().standard_rates(model, NOW) is None


def test_an_emulated_model_is_priced_as_the_model_it_stands_for() -> None:
    assert batch("emulator:claude-haiku-4-5") == batch("claude-haiku-4-5")


def test_inference_in_the_us_costs_a_tenth_more_in_every_column() -> None:
    us, plain = batch("claude-haiku-5-5", inference_geo="us"), batch("claude-haiku-5-5")
    for column in COLUMNS:
        name = f"{column}_pico_usd"
        assert getattr(us.base, name) * 10 == getattr(plain.base, name) * 11
    assert batch("claude-haiku-5-5", inference_geo="not_available") == plain
    assert PriceList().batch_rates("claude-haiku-5-5", NOW, inference_geo="mars") is None


def test_a_moment_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        PriceList().batch_rates("claude-haiku-4-5", datetime(2026, 11, 1))  # noqa: DTZ001


tokens = st.integers(0, 2_000_000)
usages = st.builds(Usage, tokens, tokens, tokens, tokens, tokens)
models = st.sampled_from([row[0] for row in TABLE])


@given(models, usages)
def test_our_arithmetic_equals_the_packages_for_its_own_models(model: str, usage: Usage) -> None:
    rates = batch(model)
    if rates.basis == "published table":
        return
    theirs = genai_prices.calc_price(
        genai_prices.Usage(
            input_tokens=usage.prompt_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cache_read_tokens,
            cache_write_tokens=usage.cache_write_5m_tokens + usage.cache_write_1h_tokens,
            cache_write_1h_tokens=usage.cache_write_1h_tokens,
        ),
        model,
        provider_id="anthropic",
        genai_request_timestamp=NOW,
        price_context={"processing": "batch"},
    )
    assert cost_usd(rates, usage) == theirs.total_price


@given(models, st.lists(usages, max_size=20))
def test_a_column_of_replies_costs_what_they_cost_one_by_one(
    model: str, replies: list[Usage]
) -> None:
    rates = batch(model, inference_geo="us")
    matrix = np.array([astuple(usage) for usage in replies], dtype=np.int64).reshape(-1, 5)
    costs = cost_pico_usd(rates, UsageColumns.of(matrix))
    assert costs.dtype == np.int64
    assert costs.tolist() == [cost_pico(rates, usage) for usage in replies]


def test_a_row_that_would_overflow_is_refused_instead_of_wrapping() -> None:
    matrix = np.array([[2**62, 0, 0, 0, 0]], dtype=np.int64)
    with pytest.raises(OverflowError, match="int64"):
        cost_pico_usd(batch("claude-opus-5"), UsageColumns.of(matrix))


@given(models, usages)
def test_the_bound_is_never_below_the_cost(model: str, usage: Usage) -> None:
    rates = batch(model)
    ttl = "1h" if usage.cache_write_1h_tokens else "5m" if usage.cache_write_5m_tokens else None
    bound = bound_usd(rates, usage.prompt_tokens, usage.output_tokens, cache_ttl=ttl)
    assert bound >= cost_usd(rates, usage)


FIVE = {
    "input": 0.2,
    "output": "1.00",
    "cache_read": 0.02,
    "cache_write_5m": 0.25,
    "cache_write_1h": 0.4,
}


def priced_by(*entries: object) -> PriceList:
    return PriceList(PriceOverrides.load(list(entries), "prices"))


def test_a_standard_override_is_halved_in_batches_and_a_batch_override_is_not() -> None:
    prices = priced_by(
        {"model": "claude-haiku-*", "standard": FIVE}, {"model": "local-*", "batch": FIVE}
    )
    haiku, local = prices.batch_rates("claude-haiku-4-5", NOW), prices.batch_rates("local-1", NOW)
    assert haiku is not None
    assert local is not None
    assert haiku.basis == local.basis == "override"
    assert (haiku.base.input_pico_usd, local.base.input_pico_usd) == (100_000, 200_000)
    assert prices.standard_rates("local-1", NOW) is None


def test_an_override_holds_from_its_first_day_to_the_day_before_its_last() -> None:
    entry = {"model": "m", "batch": FIVE, "from": date(2026, 11, 1), "until": "2026-12-01"}
    prices = priced_by(entry)
    at = [datetime(2026, *day, tzinfo=UTC) for day in [(10, 31), (11, 1), (11, 30), (12, 1)]]
    assert [prices.batch_rates("m", day) is not None for day in at] == [False, True, True, False]


def test_of_two_overrides_that_match_the_last_counts() -> None:
    dearer = FIVE | {"input": 3}
    prices = priced_by({"model": "*", "batch": FIVE}, {"model": "m?", "batch": dearer})
    rates = prices.batch_rates("m1", NOW)
    assert rates is not None
    assert rates.base.input_pico_usd == 3_000_000


def test_an_override_can_price_long_prompts() -> None:
    long_prompt = FIVE | {"input": 1, "above_tokens": 1000}
    prices = priced_by({"model": "m", "batch": FIVE, "long_prompt": long_prompt})
    rates = prices.batch_rates("m", NOW)
    assert rates is not None
    assert cost_usd(rates, Usage(1000)) == Decimal("0.0002")
    assert cost_usd(rates, Usage(1001)) == Decimal("0.001001")


def test_a_rate_finer_than_a_pico_dollar_is_rounded_half_to_even() -> None:
    prices = priced_by(
        {"model": "m", "batch": FIVE | {"input": "0.0000025", "output": "0.0000035"}}
    )
    rates = prices.batch_rates("m", NOW)
    assert rates is not None
    assert (rates.base.input_pico_usd, rates.base.output_pico_usd) == (2, 4)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("cheap", "prices: must be a list"),
        ([3], r"prices\[0\]: must be a mapping, not int"),
        ([{"batch": FIVE}], r"prices\[0\]\.model: name a model"),
        ([{"model": "m"}], r"prices\[0\]: give either standard"),
        ([{"model": "m", "batch": FIVE, "standard": FIVE}], "give either standard"),
        ([{"model": "m", "batch": FIVE, "form": 1}], "'form'; did you mean 'from'"),
        ([{"model": "m", "batch": {"input": 1}}], r"prices\[0\]\.batch: output, cache_read,"),
        ([{"model": "m", "batch": FIVE | {"inputs": 1}}], r"'inputs'; did you mean 'input'"),
        ([{"model": "m", "batch": FIVE | {"input": -1}}], r"batch\.input: -1 is no price"),
        ([{"model": "m", "batch": FIVE | {"input": True}}], "True is not a number"),
        ([{"model": "m", "batch": FIVE | {"input": "a"}}], "'a' is not a number"),
        ([{"model": "m", "batch": FIVE | {"input": "NaN"}}], "'NaN' is no price"),
        ([{"model": "m", "batch": FIVE, "from": "soon"}], r"\.from: 'soon' is not a date"),
        ([{"model": "m", "batch": FIVE, "from": NOW}], r"\.from: .* has a time"),
        (
            [{"model": "m", "batch": FIVE, "from": "2026-02-01", "until": "2026-02-01"}],
            r"\.until: 2026-02-01 is not after from",
        ),
        (
            [{"model": "m", "batch": FIVE, "long_prompt": FIVE}],
            r"long_prompt\.above_tokens: a whole number",
        ),
    ],
)
def test_a_wrong_override_says_what_and_where(entries: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PriceOverrides.load(entries, "prices")


def test_no_overrides_is_no_error() -> None:
    assert PriceOverrides.load(None, "prices").entries == ()
