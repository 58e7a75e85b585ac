"""One request goes ahead of the others where the prompt is cached, and the hits are reported."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from batch_etl.batches.budget import Budget
from batch_etl.batches.priming import FEWEST
from batch_etl.batches.tables import hit_rate
from batch_etl.errors import ConfigError
from batch_etl_tests.batches.engine import Site, rows, task, until_done

SYSTEM = "You classify what people say about things. " * 400
"""More than the 4,096 tokens that the model caches at the least."""
CACHED: dict[str, Any] = {
    "system": [{"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral"}}],
    "prime_cache": True,
}


def test_the_others_follow_when_the_first_has_ended(site: Site) -> None:
    site.pace(end_s=3600)
    transform = replace(site.transform(rows(30), **CACHED), budget=Budget.load({"run_usd": 1}, "b"))
    runner = site.runner()
    identity = runner.open(transform)
    for _ in range(3):
        assert runner.advance(identity, transform).status == "planning"
        assert [batch.requests for batch in site.ledger().batches()] == [1]
    site.clock(advance_s=4000)
    for _ in range(3):
        runner.advance(identity, transform)
    assert [batch.requests for batch in site.ledger().batches()] == [1, 29]
    site.clock(advance_s=4000)
    until_done(runner, identity, transform)
    assert site.bill == (30, 30, 0)
    assert {row["state"] for row in site.results()} == {"answered"}


def test_the_first_may_fail_and_the_others_follow(site: Site) -> None:
    site.faults({"kind": "expire_lines", "attempts": 1, "match": "item 0"})
    summary = site.run(site.transform(rows(30), **CACHED))
    assert [batch.requests for batch in summary.batches] == [1, 29, 1]
    assert site.bill == (31, 30, 0)


def test_a_few_requests_are_sent_at_once(site: Site) -> None:
    assert len(site.run(site.transform(rows(FEWEST), **CACHED)).batches) == 1
    site.run(site.transform(rows(FEWEST + 5), **CACHED))
    assert site.status()["creates_accepted"] == 2


def test_the_hit_rate_is_the_share_of_the_prompts_that_was_read_from_the_cache(site: Site) -> None:
    summary = site.run(site.transform(rows(30), **CACHED))
    usage = [
        (row["cache_read_tokens"], row["cache_write_tokens"], row["input_tokens"])
        for row in site.results()
    ]
    reads = sum(one[0] for one in usage)
    rate = hit_rate(summary.batches)
    assert rate == reads / sum(map(sum, usage))
    assert rate is not None
    assert 0.5 < rate < 1
    assert hit_rate([]) is None


def test_priming_without_a_prompt_cache_is_a_mistake_that_is_told() -> None:
    with pytest.raises(ConfigError, match="prime_cache: the task has no cache_control"):
        task(prime_cache=True)


@pytest.mark.parametrize(
    ("changes", "ttl"),
    [
        ({}, None),
        ({"system": CACHED["system"]}, "5m"),
        ({"params": {"cache_control": {"type": "ephemeral", "ttl": "1h"}}}, "1h"),
    ],
)
def test_the_time_to_live_is_the_longest_that_is_asked_for(changes, ttl) -> None:
    assert task(**changes).cache_ttl == ttl
