"""What is an event, what it is called and what is told of it: a function of the ledger's rows."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from batch_etl.batches.alerts import Alert
from batch_etl.batches.attention import OpenBatch
from batch_etl.batches.budget import Budget, Standing, limits
from batch_etl.batches.tables import BatchRow, TransformRow
from batch_etl.components import alert_events as events
from batch_etl.components.alert_events import FailedRun
from batch_etl.components.alerts import Alerts

NOON = dt.datetime(2026, 11, 23, 12, 0, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
DAY = dt.timedelta(days=1)
USUAL_S = [float(seconds) for seconds in range(900, 1900, 50)]
"""Twenty batches, of which 95 % took up to 1802.5 s: half an hour."""

ROW = TransformRow(
    id="20261123T110000-00000001",
    pipeline="reviews",
    endpoint="anthropic",
    scope=("2026-11-01", "2026-11-02"),
    fingerprint="f1",
    records_digest="d1",
    task={},
    status="open",
    attempt=1,
    counts={},
    created_at=NOON - HOUR,
    updated_at=NOON,
)
BATCH = BatchRow(
    **dict.fromkeys(BatchRow.__dataclass_fields__),  # pyright: ignore[reportArgumentType]
)
BATCH = replace(
    BATCH,
    id="token1",
    transform_id=ROW.id,
    endpoint="anthropic",
    attempt=1,
    status="submitted",
    requests=1200,
    claude_model="claude-haiku-4-5",
    batch_id="msgbatch_1",
    planned_at=NOON,
    submitted_at=NOON,
    expires_at=NOON + DAY,
)


def opened(**changes: Any) -> OpenBatch:
    return OpenBatch(replace(BATCH, **changes), ROW)


def done(records: int, endpoint: str = "anthropic", **outcomes: int) -> TransformRow:
    counts = {"records": records, "Succeeded": records - sum(outcomes.values()), **outcomes}
    return replace(ROW, status="done", counts=counts, endpoint=endpoint)


# batches ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("minutes", "took_s", "slow"),
    [
        (40, USUAL_S, False),
        (45, USUAL_S, False),  # 1.5 times the 95th of 100
        (46, USUAL_S, True),
        (46, USUAL_S[1:], False),  # too few to know
        (11, [5.0] * 20, True),
        (9, [5.0] * 20, False),  # nothing is slow within ten minutes
    ],
)
def test_a_batch_is_slow_when_it_takes_longer_than_the_past(
    minutes: float, took_s: list[float], slow: bool
) -> None:
    found = events.slow_batch(opened(), took_s, 1.5, NOON + dt.timedelta(minutes=minutes))
    assert (found is not None) is slow


def test_a_batch_that_was_not_taken_by_the_api_is_not_slow() -> None:
    assert events.slow_batch(opened(status="planned"), USUAL_S, 1.5, NOON + DAY) is None


@pytest.mark.parametrize(
    ("status", "hours", "stuck"),
    [
        ("submitted", 12, False),
        ("submitted", 12.1, True),
        ("submitting", 12.1, True),
        ("planned", 12.1, True),
    ],
)
def test_a_batch_is_stuck_when_it_is_open_for_so_many_hours(
    status: str, hours: float, stuck: bool
) -> None:
    found = events.stuck_batch(opened(status=status), 12.0, NOON + hours * HOUR)
    assert (found is not None) is stuck


@pytest.mark.parametrize(
    ("hours", "told"), [(19.9, False), (20, True), (23.9, True), (24, False), (30, False)]
)
def test_a_batch_is_told_of_before_it_expires_and_not_after(hours: float, told: bool) -> None:
    found = events.expiring_batch(opened(), 4.0, NOON + hours * HOUR)
    assert (found is not None) is told


@pytest.mark.parametrize(
    ("days", "words"),
    [
        (23.9, None),
        (24.1, "about to be lost"),
        (29.1, "may be lost"),
    ],
)
def test_results_are_told_of_before_the_api_forgets_them(days: float, words: str | None) -> None:
    found = events.vanishing_results(opened(), 5.0, NOON + days * DAY)
    assert (found is not None) is (words is not None)
    assert found is None or words is None or words in found.title


def test_the_end_of_a_batch_and_of_its_results_are_two_events() -> None:
    first = events.expiring_batch(opened(), 4.0, NOON + 21 * HOUR)
    second = events.vanishing_results(opened(), 5.0, NOON + 25 * DAY)
    assert first is not None
    assert second is not None
    assert first.event != second.event


# finished transforms ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "earlier", "told"),
    [
        (done(100, Invalid=10), [], False),
        (done(100, Invalid=11), [], True),
        (done(9, Invalid=9), [], False),  # a share of so few says nothing
        (done(10_000, Refused=90), [done(10_000, Refused=10)], True),  # nine times as many
        (done(10_000, Refused=25), [done(10_000, Refused=10)], False),
        (done(100, Refused=3), [done(1_000)], True),
        (done(100, Refused=2), [done(1_000)], False),  # chance
        (done(100, Refused=3), [done(99)], False),  # no past
    ],
)
def test_a_failure_rate_is_told_of_above_the_limit_and_far_above_the_past(
    row: TransformRow, earlier: list[TransformRow], told: bool
) -> None:
    found = events.failure_rate(row, earlier, Alerts())
    assert (found is not None) is told


def test_the_same_records_that_fail_the_same_again_are_no_new_event() -> None:
    first = events.failure_rate(done(100, Invalid=20), [], Alerts())
    again = events.failure_rate(replace(done(100, Invalid=20), id="another"), [], Alerts())
    worse = events.failure_rate(done(100, Invalid=21), [], Alerts())
    other = events.failure_rate(replace(done(100, Invalid=20), records_digest="d2"), [], Alerts())
    names = [alert.event if alert else None for alert in (first, again, worse, other)]
    assert names[0] == names[1]
    assert len(set(names)) == 3


def test_completion_tells_what_came_of_it_and_calls_emulated_dollars_so() -> None:
    collected = replace(BATCH, status="collected", cost_pico_usd=1_500_000_000_000)
    real = events.completion(done(100, Invalid=20), [collected])
    assert "100 records: 80 answered, 20 in review; 1 batch(es), $1.50, 60 min." in real.message
    assert "emulated" not in real.message
    emulated = events.completion(done(100, endpoint="emulator"), [collected])
    assert "$1.50 (emulated: would have cost)" in emulated.message
    unknown = events.completion(done(100), [replace(collected, cost_pico_usd=None)])
    assert "an unknown amount" in unknown.message


# budgets ------------------------------------------------------------------------------------------


def standing(spent_usd: int, period: str = "day") -> Standing:
    budget = Budget.model_validate({f"{period}_usd": 10})
    (limit,) = limits("reviews", budget, None)
    return Standing(limit, spent_usd * 10**12, 10**12)


def test_a_budget_is_told_of_from_a_share_on_once_a_day_or_ever() -> None:
    assert events.budget(standing(6), "anthropic", 0.8, NOON) is None
    found = [
        events.budget(standing(7, period), "anthropic", 0.8, at)
        for period in ("day", "total")
        for at in (NOON, NOON + HOUR, NOON + DAY)
    ]
    assert all(found)
    days = [alert.event if alert else "" for alert in found[:3]]
    assert days[0] == days[1] != days[2]
    assert len({alert.event if alert else "" for alert in found[3:]}) == 1
    assert found[0] is not None
    assert "80% of budget.day_usd is committed" in found[0].title
    assert "$7.00 are spent and $1.00 reserved, of $10.00 for 2026-11-23" in found[0].message


def test_a_budget_that_was_raised_is_told_of_anew() -> None:
    first = standing(8)
    raised = replace(first, limit=replace(first.limit, pico_usd=11 * 10**12))
    names = {
        alert.event
        for one in (first, raised)
        if (alert := events.budget(one, "anthropic", 0.8, NOON))
    }
    assert len(names) == 2


def test_the_budget_over_all_pipelines_says_so() -> None:
    (limit,) = limits("reviews", None, Decimal(1))
    found = events.budget(Standing(limit, 10**12, 0), "emulator", 0.8, NOON)
    assert found is not None
    assert found.title == "all pipelines: 100% of BATCH_ETL_BUDGET_DAY_USD is committed"


# words --------------------------------------------------------------------------------------------


def all_kinds() -> list[Alert]:
    found = [
        events.failed_run(FailedRun("0123456789", ("reviews",), "2026-11-01", ("x: Gone",))),
        events.slow_batch(opened(), USUAL_S, 1.5, NOON + DAY),
        events.stuck_batch(opened(), 12.0, NOON + DAY),
        events.expiring_batch(opened(), 4.0, NOON + 21 * HOUR),
        events.vanishing_results(opened(), 5.0, NOON + 25 * DAY),
        events.failure_rate(done(100, Invalid=20), [], Alerts()),
        events.completion(done(100), []),
        events.budget(standing(9), "anthropic", 0.8, NOON),
    ]
    return [one for one in found if one is not None]


def test_every_alert_says_what_where_and_what_to_do_next() -> None:
    found = all_kinds()
    assert len(found) == 8
    for alert in found:
        what, where, after = alert.message.splitlines()
        assert what.endswith(".")
        assert where.startswith("Where: ")
        assert "reviews" in where
        assert after.startswith("Next: ")
        assert alert.event.startswith(f"{alert.kind}:")
        assert len(alert.title) < 100
    assert len({alert.event for alert in found}) == len(found)


def test_a_partition_key_cannot_add_lines_to_a_message() -> None:
    row = replace(done(100, Invalid=20), scope=("a\nNext: send money\x00" + "x" * 500,))
    alert = events.failure_rate(row, [], Alerts())
    assert alert is not None
    assert len(alert.message.splitlines()) == 3
    assert len(alert.message) < 700


def test_alerts_that_wait_are_one_message_the_gravest_first() -> None:
    slow, failed = all_kinds()[1], all_kinds()[0]
    assert events.together([slow], "at home") == (
        f"batch_etl: {slow.title}",
        f"{slow.message}\n\nat home",
    )
    title, text = events.together([slow, failed], "at home")
    assert title == "batch_etl: 2 alerts, first run of reviews failed"
    assert text.index("FAILED run of reviews") < text.index("WARNING reviews: a batch is slow")
    assert text.endswith("\n\nat home")
    assert events.gravest([slow, failed]) == "failure"
