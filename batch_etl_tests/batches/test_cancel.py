"""Cancelling: nothing more is bought, what was bought is kept."""

from __future__ import annotations

import json

from click.testing import CliRunner

from batch_etl.cli import cli
from batch_etl_tests.batches.engine import rows


def test_what_a_cancelled_batch_had_answered_is_kept_and_the_next_run_buys_the_rest(slow):
    slow.faults({"kind": "partial_cancel", "finished": 0.5})
    slow.pace(end_s=3600.0, cancel_s=30.0)
    runner, transform = slow.runner(), slow.transform(rows(40))
    identity = runner.open(transform)
    runner.advance(identity, transform)
    progress = runner.cancel(identity)
    assert (progress.status, progress.batches_open) == ("open", 1)
    slow.clock(advance_s=60)
    progress = runner.cancel(identity)
    assert (progress.status, progress.batches_open) == ("superseded", 0)
    _, bought, twice = slow.bill
    assert 0 < bought < 40
    assert twice == 0

    slow.pace(end_s=0.0)
    slow.run(slow.transform(None))
    assert slow.bill == (40 + 40 - bought, 40, 0)
    assert {row["state"] for row in slow.results()} == {"answered"}


def test_a_transform_that_was_planned_and_never_sent_costs_nothing_when_cancelled(
    slow, monkeypatch
):
    slow.faults({"kind": "error", "route": "create", "status": 429, "times": 9})
    runner, transform = slow.runner(), slow.transform(rows(5))
    identity = runner.open(transform)
    runner.advance(identity, transform)
    assert runner.cancel(identity).status == "superseded"
    assert {batch.status for batch in slow.ledger().batches()} == {"dropped"}
    assert slow.status()["creates_accepted"] == 0
    monkeypatch.setenv("BATCH_ETL_HOME", str(slow.root))
    (told,) = json.loads(CliRunner().invoke(cli, ["status", "--json"]).stdout)
    assert (told["counts"]["sent"], told["cost_usd"]) == (0, 0.0)
    assert "  0 batch(es)  $0.000000" in CliRunner().invoke(cli, ["status"]).stdout


def test_a_transform_that_is_done_stays_done_when_cancelled(slow):
    slow.pace(end_s=0.0)
    runner, transform = slow.runner(), slow.transform(rows(5))
    slow.run(transform, runner)
    (done,) = slow.ledger().transforms()
    assert runner.cancel(done.id).status == "done"
    assert runner.open_transforms(transform.pipeline) == []


def test_a_run_that_waits_is_told_that_its_transform_was_cancelled(slow):
    runner, transform = slow.runner(), slow.transform(rows(5))
    identity = runner.open(transform)
    runner.advance(identity, transform)
    other = slow.runner()
    other.cancel(identity)
    slow.clock(advance_s=5)
    other.cancel(identity)
    assert runner.advance(identity, transform).status == "superseded"
