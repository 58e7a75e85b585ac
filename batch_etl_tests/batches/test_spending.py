"""Budgets hold: nothing is sent that they have not room for, whoever asks and however it ends.

The emulator's own results, priced here, are the bill.
"""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from batch_etl.batches.budget import Budget, Limit, Reservation
from batch_etl.batches.errors import BudgetExceeded, LedgerError, PriceUnknown, SpendLimit
from batch_etl.batches.ledger import Lease, Ledger
from batch_etl.batches.pricing import PICO_USD, PriceList, Usage, cost_pico
from batch_etl.batches.runner import Runner
from batch_etl.batches.transform import Transform
from batch_etl_tests.batches import engine
from batch_etl_tests.batches.engine import MortalLedger, Site, in_process, rows, until_done

PACKED: dict[str, Any] = {"packing": {"max_requests": 15}}
ALL = Limit("all", "day", 10**18, None)


def within(transform: Transform, **dollars: Any) -> Transform:
    return replace(transform, budget=Budget.load(dollars, "budget"))


def runner(site: Site, day_usd: Decimal | None = None, ledger: Ledger | None = None) -> Runner:
    exchange = site.exchange(ledger)
    exchange.day_budget_usd = day_usd
    return Runner(exchange)


def estimate(site: Site, transform: Transform) -> Decimal:
    """What the transform would cost by its own estimate, in dollars."""
    found = runner(site).outlook(transform).estimate.cost_pico_usd
    assert found
    return Decimal(found) / PICO_USD


def bill(site: Site) -> Decimal:
    """Dollars for all that the emulator answered, from its own results."""
    client, prices, total = site.client(), PriceList(), 0
    for batch in client.iter_batches():
        if not batch.ended:
            continue
        rates = prices.batch_rates("claude-haiku-4-5", batch.created_at)
        assert rates is not None
        with client.results(batch.id) as chunks:
            lines = [json.loads(line) for line in b"".join(chunks).splitlines()]
        for line in lines:
            if line["result"]["type"] == "succeeded":
                usage = line["result"]["message"]["usage"]
                total += cost_pico(rates, Usage(usage["input_tokens"], usage["output_tokens"]))
    return Decimal(total) / PICO_USD


def standing(site: Site, limit: Limit = ALL) -> tuple[int, int]:
    """Spent and reserved."""
    (found,) = site.ledger().standings(site.endpoint, [limit])
    return found.spent_pico_usd, found.reserved_pico_usd


# a run


def test_without_a_budget_no_token_is_counted_and_nothing_reserved(site: Site) -> None:
    summary = site.run(site.transform(rows(20)))
    assert "count_tokens" not in site.status()["http_calls"]
    assert {batch.reserved_pico_usd for batch in summary.batches} == {None}


@pytest.mark.parametrize("period", ["run_usd", "day_usd", "total_usd"])
def test_over_a_budget_nothing_is_sent_and_nothing_stays_reserved(site: Site, period: str) -> None:
    transform = within(site.transform(rows(40), **PACKED), **{period: "0.0001"})
    with pytest.raises(BudgetExceeded, match=rf"40 request\(s\) of .*budget\.{period}") as refused:
        site.run(transform)
    assert refused.value.budget == f"budget.{period}"
    assert site.status()["creates_accepted"] == 0
    assert "create" not in site.status()["http_calls"]
    assert standing(site) == (0, 0)
    site.run(within(transform, **{period: 1}))
    assert site.bill == (40, 40, 0)


def test_the_budget_of_all_pipelines_refuses_too(site: Site) -> None:
    transform = site.transform(rows(40))
    with pytest.raises(BudgetExceeded, match=r"BATCH_ETL_BUDGET_DAY_USD .*all pipelines"):
        site.run(transform, runner(site, Decimal("0.0001")))
    assert site.status()["creates_accepted"] == 0


def test_reservations_move_to_the_batches_and_are_settled_by_their_cost(site: Site) -> None:
    transform = site.transform(rows(40), **PACKED)
    expected = estimate(site, transform)
    site.pace(end_s=3600)
    own = runner(site)
    budgeted = within(transform, run_usd=expected)
    identity = own.open(budgeted)
    own.advance(identity, budgeted)
    batches = site.ledger().batches(transform_id=identity)
    assert [batch.requests for batch in batches] == [15, 15, 10]
    parts = [batch.reserved_pico_usd or 0 for batch in batches]
    assert expected * PICO_USD - 3 <= sum(parts) <= expected * PICO_USD
    assert site.ledger().transform(identity).reserved_pico_usd is None
    site.clock(advance_s=4000)
    until_done(own, identity, budgeted)
    assert standing(site) == (int(bill(site) * PICO_USD), 0)
    assert bill(site) < expected


def test_what_was_answered_before_needs_no_budget(site: Site) -> None:
    site.run(site.transform(rows(20)))
    again = site.run(within(site.transform(rows(20)), total_usd="0.000001"))
    assert again.counts["reused"] == 20


def test_a_model_without_a_price_is_refused_only_where_a_budget_is_set(site: Site) -> None:
    changes = {"claude_model": "claude-unheard-of", "allow_unknown_model": True}
    transform = site.transform(rows(3), **changes)
    with pytest.raises(PriceUnknown, match=r"'claude-unheard-of' is not known.*budget\.day_usd"):
        site.run(within(transform, day_usd=5))
    assert site.status()["creates_accepted"] == 0
    site.run(transform)
    assert site.status()["creates_accepted"] == 1


# killed and started again


def die(own: Site, dollars: dict[str, str], death: dict[str, Any]) -> None:
    transform = within(own.transform(None, **PACKED), **dollars)
    own.run(transform, Runner(own.exchange(own.ledger(MortalLedger, **death))))


def killed(site: Site, at: int, **dollars: str) -> None:
    with in_process(die, site.again(), dollars, {"at": at, "when": "after"}) as process:
        process.join(60)
        assert process.exitcode == -9


@pytest.mark.parametrize("at", [2, 3, 4, 5], ids=lambda at: f"after change {at}")
def test_a_killed_plan_that_starts_again_replaces_its_reservation(site: Site, at: int) -> None:
    transform = site.transform(rows(40), **PACKED)
    budget = str(estimate(site, transform) * Decimal("1.05"))
    killed(site, at, run_usd=budget, day_usd=budget)
    assert 0 < sum(standing(site)) <= Decimal(budget) * PICO_USD
    site.run(within(transform, run_usd=budget, day_usd=budget))
    assert site.bill == (40, 40, 0)
    assert standing(site) == (int(bill(site) * PICO_USD), 0)


def test_cancelling_a_killed_plan_gives_its_reservation_back(site: Site) -> None:
    transform = site.transform(rows(40), **PACKED)
    killed(site, 2, day_usd="1")
    assert standing(site)[1] > 0
    own = runner(site)
    (row,) = own.open_transforms(transform.pipeline)
    own.cancel(row.id)
    assert standing(site) == (0, 0)


# later attempts


def test_requests_that_expired_are_reserved_again_in_place_of_what_they_did_not_cost(
    site: Site,
) -> None:
    site.faults({"kind": "expire_lines", "attempts": 1})
    transform = site.transform(rows(40), **PACKED)
    budget = estimate(site, transform) * Decimal("1.001")
    site.run(within(transform, run_usd=budget, day_usd=budget))
    assert site.bill[1:] == (40, 0)
    assert bill(site) <= budget


def test_a_later_attempt_that_no_budget_has_room_for_is_refused_until_there_is(site: Site) -> None:
    transform = site.transform(rows(40), retry={"invalid": "again"})
    budget = estimate(site, transform)
    site.faults({"kind": "invalid_lines", "attempts": 1})
    with pytest.raises(BudgetExceeded, match=r"40 request\(s\)"):
        site.run(within(transform, run_usd=budget))
    assert site.bill == (40, 40, 0)
    assert 0 < bill(site) <= budget
    site.run(within(transform, run_usd=3 * budget))
    assert site.bill[:2] == (80, 80)
    assert {row["state"] for row in site.results()} == {"answered"}


# the day


def reservation(pico_usd: int, *limits: Limit) -> Reservation:
    return Reservation("reviews", pico_usd, "something", limits)


def opened(ledger: Ledger, pipeline: str = "reviews") -> Lease:
    identity = ledger.create_transform(
        pipeline=pipeline,
        endpoint="emulator",
        scope=[None],
        fingerprint="f",
        records_digest="d",
        task={},
    )
    lease = ledger.acquire(identity)
    assert lease is not None
    return lease


def planned(ledger: Ledger, lease: Lease, token: str, part: Reservation) -> None:
    ledger.add_batch(
        lease,
        token=token,
        endpoint="emulator",
        attempt=1,
        requests=1,
        payload_bytes=100,
        claude_model="claude-haiku-4-5",
        reservation=part,
    )


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    opened = Ledger(url)
    try:
        yield opened
    finally:
        opened.close()


def test_a_day_counts_what_was_sent_on_it_and_what_may_yet_be(ledger: Ledger) -> None:
    day = Limit("day", "day", 10**15, "reviews")
    total = Limit("total", "total", 10**15, "reviews")
    lease = opened(ledger)
    for number, token in enumerate(["before", "today", "unsent", "dropped"]):
        planned(ledger, lease, token, reservation(10**number, day))
    now = dt.datetime.now(dt.UTC)
    for token, at in (("before", now - dt.timedelta(days=2)), ("today", now)):
        ledger.move_batch(lease, token, "planned", "submitting", submitting_at=at)
        ledger.move_batch(lease, token, "submitting", "submitted", batch_id=token, submitted_at=at)
    ledger.move_batch(lease, "dropped", "planned", "dropped")
    found = ledger.standings("emulator", [day, total])
    assert [one.reserved_pico_usd for one in found] == [110, 111]
    ledger.move_batch(lease, "today", "submitted", "collected", cost_pico_usd=7, outcomes={})
    found = ledger.standings("emulator", [day, total])
    assert [(one.spent_pico_usd, one.reserved_pico_usd) for one in found] == [(7, 100), (7, 101)]
    assert ledger.standings("anthropic", [total])[0].reserved_pico_usd == 0


def test_a_batch_whose_price_was_unknown_counts_as_what_was_reserved(ledger: Ledger) -> None:
    lease = opened(ledger)
    planned(ledger, lease, "a", reservation(500, ALL))
    now = dt.datetime.now(dt.UTC)
    ledger.move_batch(lease, "a", "planned", "submitting", submitting_at=now)
    ledger.move_batch(lease, "a", "submitting", "submitted", batch_id="a", submitted_at=now)
    ledger.move_batch(lease, "a", "submitted", "collected", cost_pico_usd=None, outcomes={})
    (found,) = ledger.standings("emulator", [ALL])
    assert (found.spent_pico_usd, found.reserved_pico_usd, found.unpriced) == (0, 500, 0)


@pytest.mark.parametrize("buy_again", [True, False])
def test_what_a_batch_that_is_gone_may_have_cost_stays_committed(
    site: Site, buy_again: bool
) -> None:
    site.pace(end_s=3600)
    own, transform = runner(site), within(site.transform(rows(20)), total_usd=1)
    identity = own.open(transform)
    own.advance(identity, transform)
    (batch,) = site.ledger().batches()
    name, reserved = batch.batch_id or "", batch.reserved_pico_usd
    site.clock(advance_s=4000)
    site.client().delete(name)
    site.clock(advance_s=60)
    own.resolve(name, buy_again=buy_again)
    limits = [ALL, replace(ALL, period="total"), replace(ALL, period="run")]
    found = site.ledger().standings(site.endpoint, limits, identity)
    assert {(one.spent_pico_usd, one.reserved_pico_usd) for one in found} == {(0, reserved)}


def test_a_budget_that_a_gone_batch_may_have_spent_does_not_buy_it_again(site: Site) -> None:
    site.pace(end_s=3600)
    plain = site.transform(rows(20))
    own, transform = runner(site), within(plain, total_usd=estimate(site, plain))
    identity = own.open(transform)
    own.advance(identity, transform)
    (batch,) = site.ledger().batches()
    site.clock(advance_s=4000)
    site.client().delete(batch.batch_id or "")
    site.clock(advance_s=60)
    own.resolve(batch.id, buy_again=True)
    with pytest.raises(BudgetExceeded, match=r"budget\.total_usd"):
        own.advance(identity, transform)
    assert site.bill[0] == 20


@pytest.mark.parametrize("buy_again", [True, False])
def test_what_a_batch_of_unknown_fate_may_have_cost_stays_committed(
    site: Site, buy_again: bool
) -> None:
    site.faults({"kind": "archived"}, {"kind": "drop", "when": "after"})
    own, transform = runner(site), within(site.transform(rows(5)), total_usd=1)
    identity = own.open(transform)
    own.advance(identity, transform)
    (batch,) = site.ledger().batches()
    own.resolve(batch.id, buy_again=buy_again)
    assert standing(site) == (0, batch.reserved_pico_usd)


def test_a_batch_that_was_never_taken_is_given_back_to_the_budget(ledger: Ledger) -> None:
    lease = opened(ledger)
    planned(ledger, lease, "a", reservation(500, ALL))
    now = dt.datetime.now(dt.UTC)
    ledger.move_batch(lease, "a", "planned", "submitting", submitting_at=now)
    ledger.move_batch(lease, "a", "submitting", "dropped")
    (found,) = ledger.standings("emulator", [ALL])
    assert (found.spent_pico_usd, found.reserved_pico_usd, found.unpriced) == (0, 0, 0)


def test_sums_beyond_64_bits_are_exact(ledger: Ledger) -> None:
    most = 9 * 10**18
    limit = Limit("total", "total", 10**20, None)
    for number in range(3):
        lease = opened(ledger)
        planned(ledger, lease, f"b{number}", reservation(most + number, limit))
        ledger.release(lease)
    assert ledger.standings("emulator", [limit])[0].reserved_pico_usd == 3 * most + 3


def test_a_batch_takes_from_its_transform_and_reserves_what_that_lacks(ledger: Ledger) -> None:
    limit = Limit("budget.run_usd", "run", 100, "reviews")
    lease = opened(ledger)
    ledger.reserve(lease, "emulator", reservation(60, limit))
    planned(ledger, lease, "a", reservation(40, limit))
    assert ledger.transform(lease.transform_id).reserved_pico_usd == 20
    planned(ledger, lease, "b", reservation(50, limit))
    assert ledger.transform(lease.transform_id).reserved_pico_usd is None
    (found,) = ledger.standings("emulator", [limit], lease.transform_id)
    assert found.reserved_pico_usd == 90
    with pytest.raises(BudgetExceeded):
        planned(ledger, lease, "c", reservation(11, limit))
    assert [row.id for row in ledger.batches(transform_id=lease.transform_id)] == ["a", "b"]


def test_a_refused_reservation_leaves_nothing_reserved_and_an_event(ledger: Ledger) -> None:
    limit = Limit("budget.run_usd", "run", 100, "reviews")
    lease = opened(ledger)
    ledger.reserve(lease, "emulator", reservation(60, limit))
    with pytest.raises(BudgetExceeded):
        ledger.reserve(lease, "emulator", reservation(101, limit))
    assert ledger.transform(lease.transform_id).reserved_pico_usd is None
    assert "refused" in ledger.events(lease.transform_id)[-1][3]


def test_who_lost_the_lease_reserves_nothing(ledger: Ledger) -> None:
    lease = opened(ledger)
    ledger.release(lease)
    with pytest.raises(LedgerError):
        ledger.reserve(lease, "emulator", reservation(60, ALL))


# many at once


@pytest.fixture
def crowded(tmp_path: Path, new_url: Callable[[], str]) -> Iterator[Site]:
    with engine.site(tmp_path, end_s=36_000, ledger_url=new_url()) as opened:
        yield opened


PARTITIONS = [f"p{number:02}" for number in range(20)]


def test_twenty_partitions_at_once_never_pass_one_days_budget(crowded: Site) -> None:
    """Room for seven and a half: seven are sent, and more once these cost less than reserved."""
    transforms = [
        crowded.transform({key: rows(10, start=100 * number)})
        for number, key in enumerate(PARTITIONS)
    ]
    budget = estimate(crowded, transforms[-1]) * Decimal("7.5")  # the longest texts
    start = threading.Barrier(len(transforms))

    def attempt(transform: Transform, *, wait: bool = False) -> str:
        own = crowded.again()
        try:
            if wait:
                start.wait(60)
            engaged = runner(own, budget)
            progress = engaged.advance(engaged.open(transform), transform)
            return progress.status
        except BudgetExceeded as refused:
            return str(refused)
        finally:
            own.close()

    with ThreadPoolExecutor(len(transforms)) as pool:
        first = list(pool.map(lambda one: attempt(one, wait=True), transforms))
    assert first.count("open") == 7
    refusals = [text for text in first if text != "open"]
    assert len(refusals) == 13
    for text in refusals:
        assert "10 request(s) of" in text
        assert "BATCH_ETL_BUDGET_DAY_USD" in text
        assert "Nothing of it was sent." in text
    assert crowded.bill[0] == 70
    assert sum(standing(crowded)) <= budget * PICO_USD

    pending = transforms
    for _ in range(20):
        crowded.clock(advance_s=40_000)
        with ThreadPoolExecutor(5) as pool:
            statuses = list(pool.map(attempt, pending))
        assert bill(crowded) <= budget
        assert sum(standing(crowded)) <= budget * PICO_USD
        pending = [one for one, status in zip(pending, statuses, strict=True) if status != "done"]
        if not pending:
            break
    assert not pending
    assert crowded.bill == (200, 200, 0)
    assert bill(crowded) < budget


# the API's own limits

SPENT: list[dict[str, Any]] = [
    {"status": 402, "type": "billing_error", "message": "Your credit balance is too low"},
    {
        "status": 400,
        "type": "invalid_request_error",
        "message": "You have reached your specified API usage limits.",
    },
    {
        "status": 429,
        "type": "rate_limit_error",
        "message": "limit",
        "error_code": "enforced_spend_limit_reached",
    },
]


@pytest.mark.parametrize("error", SPENT, ids=lambda error: error["status"])
def test_the_apis_own_spend_limit_stops_the_run_and_burns_no_attempt(
    site: Site, error: dict[str, Any]
) -> None:
    site.faults({"kind": "error", "route": "create", **error, "skip": 1})
    transform = site.transform(rows(40), **PACKED)
    with pytest.raises(SpendLimit, match="Raise the limit or add credit"):
        site.run(transform)
    statuses = [(b.status, b.attempt) for b in site.ledger().batches()]
    assert statuses == [("submitted", 1), ("planned", 1)]
    summary = site.run(transform)
    assert site.bill == (40, 40, 0)
    assert {batch.attempt for batch in summary.batches} == {1}


@pytest.mark.parametrize("kind", ["billing_error", "permission_error"])
def test_lines_that_were_not_paid_for_go_to_review_at_once_and_are_asked_by_the_next_run(
    site: Site, kind: str
) -> None:
    site.faults({"kind": "error_lines", "type": kind, "message": "no", "attempts": 1})
    first = site.run(site.transform(rows(10)))
    assert first.outcomes == {"Errored": 10}
    assert site.bill == (10, 0, 0)
    again = site.run(site.transform(rows(10)))
    assert again.outcomes == {"Succeeded": 10}
    assert site.bill == (20, 10, 0)
