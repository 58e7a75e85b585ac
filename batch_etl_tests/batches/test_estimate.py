"""What requests will cost: counted, remembered, or bounded, and always said which."""

from __future__ import annotations

import datetime as dt
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_etl.batches.estimate import Estimate, Forecast, Kind, Per, forecast, output_tokens
from batch_etl.batches.packing import Payload, entries, params_bytes
from batch_etl.batches.pricing import PriceList, PriceOverrides
from batch_etl.batches.reservations import Written
from batch_etl.batches.task import Packing, Task
from batch_etl_tests.batches.engine import Site, task

TODAY = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
CACHED = [{"type": "text", "text": "Judge.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]


def request(text: str, model: str = "claude-haiku-4-5") -> bytes:
    turns = [{"role": "user", "content": text}]
    params = {"model": model, "max_tokens": 100, "temperature": 0, "messages": turns}
    return msgspec.json.encode(params)


def kind(requests: list[bytes], sample: list[bytes] | None = None, **changes: Any) -> Kind:
    values: dict[str, Any] = {
        "claude_model": "claude-haiku-4-5",
        "max_tokens": 100,
        "requests": len(requests),
        "params_bytes": sum(map(len, requests)),
        "largest_bytes": max(map(len, requests), default=0),
        "sample": requests if sample is None else sample,
        **changes,
    }
    return Kind(**values)


def estimated(
    site: Site,
    of: Kind,
    asked: Task | None = None,
    prices: PriceList | None = None,
    written: list[Written] | None = None,
) -> Estimate:
    predicted = forecast(
        of,
        asked or task(),
        client=site.client(max_tries=1),
        prices=prices or PriceList(),
        written=written or [],
        at=TODAY,
    )
    return predicted.of(of.requests, of.params_bytes)


# input


def test_where_all_requests_are_counted_the_input_is_exact(site: Site) -> None:
    requests = [request("I love it"), request("I hate it " * 20)]
    estimate = estimated(site, kind(requests))
    # by the emulator's rule: 4 bytes a token of the text, and 8 for the frame
    assert estimate.input_tokens == (3 + 8) + (50 + 8)
    assert estimate.input_basis == "count_tokens of every request"
    assert site.status()["http_calls"]["count_tokens"] == 2


def test_a_sample_stands_for_all_by_its_bytes_and_a_tenth_is_added(site: Site) -> None:
    requests = [request("word " * n) for n in range(1, 101)]
    exact = estimated(site, kind(requests)).input_tokens
    estimate = estimated(site, kind(requests, sample=requests[::5]))
    assert exact <= estimate.input_tokens <= exact * 1.15
    assert "count_tokens of 20 of 100 requests" in estimate.input_basis


def test_where_the_api_does_not_count_a_token_is_at_least_a_byte(site: Site) -> None:
    site.faults({"kind": "error", "route": "count_tokens", "status": 500, "times": None})
    requests = [request("I love it")] * 3
    estimate = estimated(site, kind(requests))
    assert estimate.input_tokens == sum(map(len, requests))
    assert estimate.input_basis == (
        "at most one token a byte: count_tokens failed (ServerFault, 500)"
    )
    assert estimate.cost_pico_usd is not None


def test_a_request_of_the_sample_that_cannot_be_counted_is_left_out(site: Site) -> None:
    good, bad = request("I love it"), request("text", model="claude-nonsense-1")
    estimate = estimated(site, kind([good, bad, good]))
    assert "count_tokens of 2 of 3 requests" in estimate.input_basis


def test_where_the_first_of_the_sample_cannot_be_counted_the_others_are(site: Site) -> None:
    good, empty = request("I love it"), request("")
    estimate = estimated(site, kind([empty, empty, good, good]))
    assert "count_tokens of 2 of 4 requests" in estimate.input_basis


def test_where_none_of_the_sample_can_be_counted_the_first_refusal_is_told(site: Site) -> None:
    estimate = estimated(site, kind([request("")] * 2))
    assert estimate.input_basis.startswith("at most one token a byte: count_tokens failed (")
    assert estimate.input_basis.endswith(", 400)")


def test_nothing_costs_nothing_and_asks_nothing(site: Site) -> None:
    estimate = estimated(site, kind([]), prices=PriceList())
    assert (estimate.cost_pico_usd, estimate.bound_pico_usd) == (0, 0)
    assert "count_tokens" not in site.status()["http_calls"]


# output


def written(answers: int, output: int, fingerprint: str = "mine") -> Written:
    return Written(fingerprint, {"Succeeded": answers, "Expired": 7}, output)


@pytest.mark.parametrize(
    ("history", "tokens", "basis"),
    [
        ([], 100, "max_tokens (100) for every answer"),
        ([written(49, 490)], 100, "max_tokens"),
        ([written(60, 600)], 12.5, "mean of 60 answers to this task (10.0), and 25% more"),
        (
            [written(60, 600), written(60, 2400, "other")],
            12.5,
            "mean of 60 answers to this task",
        ),
        (
            [written(10, 100), written(50, 2000, "other")],
            43.75,
            "mean of 60 answers to this pipeline (35.0)",
        ),
        ([written(60, 5400)], 100, "max_tokens"),
    ],
)
def test_output_is_what_answers_had_on_average_and_a_quarter_more(history, tokens, basis) -> None:
    per = output_tokens(100, "mine", history)
    assert float(per.tokens) == tokens
    assert basis in per.basis


# money


def test_an_unknown_price_is_none_and_never_zero(site: Site) -> None:
    strange = kind([request("I love it")], claude_model="claude-unheard-of")
    estimate = estimated(site, strange)
    assert estimate.cost_pico_usd is estimate.bound_pico_usd is None
    assert estimate.price_basis == "unknown: no price for this model"


def test_the_cost_is_tokens_times_the_batch_price_and_the_bound_has_max_tokens(site: Site) -> None:
    history = [Written(task().fingerprint, {"Succeeded": 100}, 800)]
    estimate = estimated(site, kind([request("I love it")] * 2), written=history)
    # $0.5 and $2.5 a million tokens, so 500,000 and 2,500,000 pico-dollars a token
    assert estimate.cost_pico_usd == 2 * 11 * 500_000 + 2 * 10 * 2_500_000
    assert estimate.bound_pico_usd == 2 * 11 * 500_000 + 2 * 100 * 2_500_000
    assert estimate.price_basis.startswith("batch price of today")
    assert estimate.what == "2 request(s) of 11 input and 10 output tokens each to claude-haiku-4-5"


def test_a_cached_prompt_is_priced_as_written_to_the_cache(site: Site) -> None:
    plain = estimated(site, kind([request("I love it")]))
    cached = estimated(site, kind([request("I love it")]), task(system=CACHED))
    assert plain.cost_pico_usd is not None
    assert cached.cost_pico_usd is not None
    assert cached.cost_pico_usd - plain.cost_pico_usd == 11 * (1_000_000 - 500_000)
    assert "written to the cache for 1h" in cached.price_basis


def test_the_largest_request_decides_the_band(site: Site) -> None:
    row = {"input": 1, "output": 5, "cache_read": 1, "cache_write_5m": 1, "cache_write_1h": 1}
    long = {**row, "input": 2, "output": 10, "above_tokens": 1000}
    entry = {"model": "claude-haiku-4-5", "batch": row, "long_prompt": long}
    prices = PriceList(PriceOverrides.load([entry], "prices"))
    short = [request("I love it")]
    both = estimated(site, kind([*short, request("word " * 1000)]), prices=prices)
    assert both.cost_pico_usd == both.input_tokens * 2_000_000 + 200 * 10_000_000


PARTS = st.lists(st.tuples(st.integers(1, 1000), st.integers(1, 10**6)), min_size=1, max_size=20)


@given(PARTS, st.fractions(0, 2), st.fractions(0, 5000))
def test_the_parts_of_a_plan_never_cost_more_than_the_whole(
    parts: list[tuple[int, int]], per_byte: Fraction, per_answer: Fraction
) -> None:
    one = Forecast("m", 9999, Per(per_byte, ""), Per(per_answer, ""), 123_457, 2_500_001, "")
    whole = one.of(sum(n for n, _ in parts), sum(size for _, size in parts))
    costs = [one.cost(n, size) for n, size in parts]
    assert whole.cost_pico_usd is not None
    assert sum(int(cost) for cost in costs if cost is not None) <= whole.cost_pico_usd


@given(st.lists(st.text(max_size=40), max_size=40), st.integers(1, 6))
def test_a_payloads_requests_can_be_read_back_out_of_it(texts: list[str], repeated: int) -> None:
    requests = [request(text * 40_000 if i < 2 else text) for i, text in enumerate(texts)]
    payload = Payload.of("0" * 16, requests * repeated, Packing())
    assert list(entries(payload)) == requests * repeated
    assert params_bytes(payload) == repeated * sum(map(len, requests))
