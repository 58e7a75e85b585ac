"""Budgets as values: which hold, what is left, and how a refusal reads."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest

from batch_etl.batches.budget import (
    DAY_SETTING,
    Budget,
    Limit,
    Reservation,
    Standing,
    day_budget,
    dollars,
    limits,
    overdrawn,
    refusal,
)
from batch_etl.batches.pricing import PICO_USD
from batch_etl.errors import ConfigError

DAY = Limit("budget.day_usd", "day", 20 * PICO_USD, "reviews")


def test_each_budget_that_is_set_holds_and_the_narrowest_comes_first() -> None:
    budget = Budget.load({"run_usd": 1.5, "day_usd": "20", "total_usd": 300}, "budget")
    held = limits("reviews", budget, Decimal("0.1"))
    assert [(one.name, one.period, one.pico_usd, one.pipeline) for one in held] == [
        ("budget.run_usd", "run", 1_500_000_000_000, "reviews"),
        ("budget.day_usd", "day", 20 * PICO_USD, "reviews"),
        ("budget.total_usd", "total", 300 * PICO_USD, "reviews"),
        (DAY_SETTING, "day", 100_000_000_000, None),
    ]
    assert limits("reviews", None, None) == limits("reviews", Budget(), None) == ()


@pytest.mark.parametrize("value", [0, -1, "much", ".inf", 9_000_001, True, [1]])
def test_a_budget_that_is_no_amount_is_refused_with_its_key(value: object) -> None:
    with pytest.raises(ConfigError, match=r"budget\.day_usd"):
        Budget.load({"day_usd": value}, "budget")


def test_a_budget_of_an_unknown_period_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="did you mean 'day_usd'"):
        Budget.load({"daily_usd": 5}, "budget")


@pytest.mark.parametrize(("text", "amount"), [("25", "25"), ("0.50", "0.5"), ("1e1", "10")])
def test_the_settings_budget_is_an_exact_decimal(text: str, amount: str) -> None:
    assert day_budget(text) == Decimal(amount)
    assert day_budget(None) is None


@pytest.mark.parametrize("text", ["0", "-3", "ten", "NaN", "Infinity", "$5"])
def test_a_setting_that_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"{DAY_SETTING}.*is no budget"):
        day_budget(text)


def test_a_day_begins_at_midnight_utc() -> None:
    berlin = dt.timezone(dt.timedelta(hours=1))
    assert DAY.since(dt.datetime(2026, 11, 23, 0, 30, tzinfo=berlin)) == dt.datetime(
        2026, 11, 22, tzinfo=dt.UTC
    )
    assert Limit("budget.run_usd", "run", 1, "x").since(dt.datetime.now(dt.UTC)) is None


@pytest.mark.parametrize(
    ("spent", "reserved", "left"), [(0, 0, 20), (12, 3, 5), (20, 0, 0), (15, 9, 0)]
)
def test_what_is_left_is_what_is_neither_spent_nor_reserved(
    spent: int, reserved: int, left: int
) -> None:
    standing = Standing(DAY, spent * PICO_USD, reserved * PICO_USD)
    assert standing.left_pico_usd == left * PICO_USD
    assert overdrawn([standing], left * PICO_USD) is None
    assert overdrawn([standing], left * PICO_USD + 1) == standing


def test_a_refusal_says_what_why_whose_how_much_is_left_and_what_to_do() -> None:
    what = "10,000 request(s) of 310 input and 125 output tokens each to claude-haiku-4-5"
    wanted = Reservation("reviews", 9_340_000_000_000, what, (DAY,))
    text = refusal(wanted, Standing(DAY, 10_200_000_000_000, 4_700_000_000_000))
    assert text == (
        "pipeline 'reviews': sending 10,000 request(s) of 310 input and 125 output tokens each to "
        "claude-haiku-4-5 would cost up to $9.34, and budget.day_usd ($20.00 for a day (UTC), "
        "pipeline 'reviews') has $5.10 left: $10.20 are spent, $4.70 are reserved for what is "
        "under way. Nothing of it was sent. Raise budget.day_usd, or send fewer records at a time, "
        "or run again after midnight UTC, or run again when what is under way has been collected."
    )


def test_waiting_is_not_advised_where_it_cannot_help() -> None:
    wanted = Reservation("reviews", 21 * PICO_USD, "much", (DAY,))
    text = refusal(wanted, Standing(DAY, 0, PICO_USD))
    assert text.endswith("Raise budget.day_usd, or send fewer records at a time.")


@pytest.mark.parametrize(
    ("pico_usd", "shown"),
    [
        (0, "$0.00"),
        (534_000_000, "$0.000534"),
        (500_000_000_000, "$0.50"),
        (12_340_000_000_000, "$12.34"),
        (1_234_567_890_000_000, "$1,234.57"),
    ],
)
def test_dollars_are_shown_as_exactly_as_they_are_large(pico_usd: int, shown: str) -> None:
    assert dollars(pico_usd) == shown
