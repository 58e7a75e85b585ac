"""Batches that the API does not have any more: a clear error, and a person's decision."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from batch_etl.batches.errors import BatchGone, CreateUndecided
from batch_etl.errors import ConfigError
from batch_etl_tests.batches.engine import Site, rows, site, until_done


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path, end_s=3600.0) as opened:
        yield opened


def vanish(place: Site) -> str:
    """Another program with the same key deletes our oldest batch after its end."""
    oldest = place.ledger().batches()[0].batch_id or ""
    place.clock(advance_s=7200)
    place.client().delete(oldest)
    place.clock(advance_s=60)
    return oldest


def test_a_deleted_batch_is_named_with_what_to_do_and_the_others_are_collected(place):
    runner, transform = place.runner(), place.transform(rows(30), packing={"max_requests": 10})
    identity = runner.open(transform)
    runner.advance(identity, transform)
    name = vanish(place)
    with pytest.raises(BatchGone, match=rf"{name} \(10 requests\).*resolve {name} --buy-again"):
        runner.advance(identity, transform)
    assert sorted(batch.status for batch in place.ledger().batches()) == [
        "collected",
        "collected",
        "submitted",
    ]
    with pytest.raises(BatchGone):
        runner.advance(identity, transform)
    assert place.status()["requests_received"] == 30


def test_a_batch_that_is_bought_again_is_answered(place):
    runner, transform = place.runner(), place.transform(rows(30), packing={"max_requests": 10})
    identity = runner.open(transform)
    runner.advance(identity, transform)
    name = vanish(place)
    place.runner().resolve(name, buy_again=True)
    place.pace(end_s=0.0)
    until_done(runner, identity, transform)
    assert place.status()["requests_received"] == 40
    assert {row["state"] for row in place.results()} == {"answered"}


def test_a_batch_that_is_given_up_leaves_its_records_to_review(place):
    runner, transform = place.runner(), place.transform(rows(30), packing={"max_requests": 10})
    identity = runner.open(transform)
    runner.advance(identity, transform)
    place.runner().resolve(vanish(place), buy_again=False)
    until_done(runner, identity, transform)
    assert place.status()["requests_received"] == 30
    states = [(row["state"], row["outcome"]) for row in place.results()]
    assert states == [("review", "Missing")] * 10 + [("answered", "Succeeded")] * 20


def test_a_batch_whose_results_are_archived_needs_a_decision_too(place):
    place.faults({"kind": "archived"})
    runner, transform = place.runner(), place.transform(rows(5))
    identity = runner.open(transform)
    runner.advance(identity, transform)
    place.clock(advance_s=7200)
    with pytest.raises(BatchGone, match="results are not kept"):
        runner.advance(identity, transform)
    (row,) = place.ledger().batches()
    place.faults()
    place.runner().resolve(row.batch_id or "", buy_again=False)
    until_done(runner, identity, transform)
    assert {row["outcome"] for row in place.results()} == {"Missing"}


def test_a_lost_create_whose_only_candidate_is_archived_waits_for_a_decision(place):
    place.pace(end_s=0.0)
    place.faults({"kind": "archived"}, {"kind": "drop", "when": "after"})
    runner, transform = place.runner(), place.transform(rows(5))
    identity = runner.open(transform)
    runner.advance(identity, transform)
    with pytest.raises(CreateUndecided, match="never answered"):
        runner.advance(identity, transform)
    (row,) = place.ledger().batches()
    assert row.status == "submitting"
    place.runner().resolve(row.id, buy_again=False)
    until_done(runner, identity, transform)
    assert {row["outcome"] for row in place.results()} == {"Missing"}
    assert place.status()["creates_accepted"] == 1


def test_there_is_nothing_to_decide_while_the_api_has_the_batch(place):
    runner, transform = place.runner(), place.transform(rows(5))
    identity = runner.open(transform)
    runner.advance(identity, transform)
    (row,) = place.ledger().batches()
    with pytest.raises(ConfigError, match="is at the API; the next run collects it"):
        runner.resolve(row.batch_id or "", buy_again=True)
    with pytest.raises(ConfigError, match="has no batch 'msgbatch_none'"):
        runner.resolve("msgbatch_none", buy_again=True)
    place.clock(advance_s=7200)
    until_done(runner, identity, transform)
    with pytest.raises(ConfigError, match="it is collected"):
        runner.resolve(row.batch_id or "", buy_again=True)


def test_what_is_collected_is_deleted_at_the_api_where_that_is_asked_for(place):
    place.pace(end_s=0.0)
    transform = place.transform(rows(30), packing={"max_requests": 10}, delete_collected=True)
    place.run(transform)
    assert list(place.client().iter_batches()) == []
    assert all(batch.deleted_at for batch in place.ledger().batches())
    assert {row["state"] for row in place.results()} == {"answered"}
    place.run(place.transform(None))
    assert place.bill == (30, 30, 0)


def test_a_batch_whose_results_lacked_lines_is_not_deleted(place):
    place.pace(end_s=0.0)
    place.faults({"kind": "missing_lines", "fraction": 0.5, "attempts": 1})
    place.run(place.transform(rows(20), delete_collected=True))
    (lacking,) = [row for row in place.ledger().batches() if (row.outcomes or {}).get("Missing")]
    assert [batch.id for batch in place.client().iter_batches()] == [lacking.batch_id]
    assert {row["state"] for row in place.results()} == {"answered"}


def test_a_deletion_that_failed_is_made_up_for_by_the_next_transform(place):
    place.pace(end_s=0.0)
    place.faults({"kind": "error", "route": "delete", "status": 403, "times": 3})
    place.run(place.transform(rows(5), delete_collected=True))
    assert len(list(place.client().iter_batches())) == 1
    place.faults()
    place.run(place.transform(rows(6), delete_collected=True))
    assert list(place.client().iter_batches()) == []
