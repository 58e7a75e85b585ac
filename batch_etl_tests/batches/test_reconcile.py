"""Finding a batch whose create was answered by nothing: proof, patience, what is passed over."""

from __future__ import annotations

import datetime as dt

import pytest

from batch_etl.batches.errors import ServerFault
from batch_etl.batches.ledger import BatchRow
from batch_etl.batches.packing import Payload
from batch_etl.batches.payload import MemoryPayload
from batch_etl.batches.reconcile import Finding, find_created
from batch_etl.batches.request import new_token
from batch_etl.batches.task import Packing
from batch_etl_tests.batches.engine import Site

PARAMS = b'{"model":"claude-haiku-4-5","max_tokens":5,"messages":[{"role":"user","content":"Hi"}]}'


def intent(site: Site, count: int = 3, ago_s: float = 0.0) -> BatchRow:
    """A row in ``submitting`` whose create call began ``ago_s`` ago, by the server's clock."""
    now = site.client().ping().server_time or dt.datetime.now(dt.UTC)
    return BatchRow(
        id=new_token(),
        transform_id="t",
        endpoint="emulator",
        attempt=1,
        status="submitting",
        requests=count,
        payload_bytes=1,
        claude_model="claude-haiku-4-5",
        batch_id=None,
        planned_at=now,
        submitting_at=now - dt.timedelta(seconds=ago_s),
        submitted_at=None,
        expires_at=None,
        ended_at=None,
        collected_at=None,
        outcomes=None,
        input_tokens=None,
        output_tokens=None,
        cache_read_tokens=None,
        cache_write_tokens=None,
        cost_pico_usd=None,
        standard_pico_usd=None,
    )


def create(site: Site, token: str, count: int = 3) -> str:
    payload = Payload.of(token, [PARAMS] * count, Packing())
    return site.client().create_batch(payload).batch.id


def found(
    site: Site,
    row: BatchRow,
    known: set[str] | None = None,
    grace_s: float = 0.0,
    quiet_s: float = 1e9,
) -> Finding:
    ids = known or set()
    return find_created(site.client(), row, lambda asked: ids & set(asked), grace_s, quiet_s)


def test_our_batch_is_found_by_the_token_in_its_results(site):
    row = intent(site)
    for _ in range(3):
        create(site, new_token())
    ours = create(site, row.id)
    create(site, new_token())
    finding = found(site, row)
    assert (finding.verdict, finding.batch and finding.batch.id) == ("found", ours)


def test_nothing_there_is_absent_after_the_grace_period_and_not_before(site):
    assert found(site, intent(site)).verdict == "absent"
    assert found(site, intent(site), grace_s=60).verdict == "unproven"
    assert found(site, intent(site, ago_s=59), grace_s=60).verdict == "unproven"
    assert found(site, intent(site, ago_s=61), grace_s=60).verdict == "absent"


def test_the_grace_period_begins_when_the_call_failed_where_that_is_known(site):
    """An upload may have taken longer than the grace period."""
    row = intent(site, ago_s=300)
    assert found(site, row, grace_s=60, quiet_s=5).verdict == "unproven"
    assert found(site, row, grace_s=60, quiet_s=61).verdict == "absent"


def test_a_candidate_in_progress_proves_nothing_yet(slow):
    row = intent(slow)
    create(slow, row.id)
    assert found(slow, row).verdict == "unproven"
    slow.clock(advance_s=3600)
    assert found(slow, row).verdict == "found"


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "error", "route": "results", "status": 404, "times": 100},
        {"kind": "cut", "fraction": 0.05, "times": 100},
    ],
)
def test_a_candidate_whose_results_cannot_be_read_now_proves_nothing_yet(site, fault):
    row = intent(site)
    create(site, row.id)
    site.faults(fault)
    assert found(site, row).verdict == "unproven"
    site.faults()
    assert found(site, row).verdict == "found"


def test_a_candidate_whose_results_are_archived_leaves_the_decision_to_a_person(site):
    site.faults({"kind": "archived"})
    row = intent(site)
    only = create(site, new_token())
    finding = found(site, row)
    assert finding.verdict == "archived"
    assert finding.batch is not None
    assert finding.batch.id == only


def test_a_proof_beside_an_archived_candidate_is_still_a_proof(site):
    site.faults({"kind": "archived", "times": 1})
    row = intent(site)
    create(site, new_token())
    mine = create(site, row.id)
    finding = found(site, row)
    assert (finding.verdict, finding.batch and finding.batch.id) == ("found", mine)


def test_a_batch_made_more_than_a_day_after_the_create_call_is_no_candidate(slow):
    row = intent(slow)
    slow.clock(advance_s=25 * 3600)
    create(slow, new_token())
    assert found(slow, row).verdict == "absent"


def test_batches_of_another_size_of_the_ledger_or_from_before_are_no_candidates(slow):
    row = intent(slow)
    create(slow, new_token(), count=4)
    known = create(slow, new_token())
    assert found(slow, row, {known}).verdict == "absent"
    assert found(slow, row).verdict == "unproven"
    slow.clock(advance_s=60)
    assert found(slow, intent(slow)).verdict == "absent"


def test_a_clock_that_rounds_down_hides_no_batch(slow):
    """The intent's time is the server's Date in whole seconds; created_at may lie before it."""
    row = intent(slow, ago_s=-2)
    create(slow, row.id)
    assert found(slow, row).verdict == "unproven"


def test_a_list_that_cannot_be_read_raises_instead_of_saying_absent(site):
    site.faults({"kind": "error", "route": "list", "status": 500, "skip": 1, "times": 5})
    with pytest.raises(ServerFault):
        found(site, intent(site))


def test_foreign_custom_ids_are_not_ours(site):
    row = intent(site, count=1)
    content = b'{"requests":[{"custom_id":"mine-1","params":' + PARAMS + b"}]}"
    site.client().create_batch(MemoryPayload([content]))
    assert found(site, row).verdict == "absent"
