"""From records to batches at the API: planned, claimed, sent, and found again after a fall.

``plan`` makes one pass over the records. Each payload is claimed (``elsewhere.py``: no other
transform buys any of its requests) and sent as soon as it is full. ``settle`` comes first in every
step: it decides what a create that was never answered came to, and sends what was planned and not
sent. Both can be cut short anywhere and called again.
"""

from __future__ import annotations

from batch_etl import memory
from batch_etl.batches import priming
from batch_etl.batches.answers import Answers
from batch_etl.batches.changes import compare_plans
from batch_etl.batches.elsewhere import Elsewhere
from batch_etl.batches.exchange import Exchange
from batch_etl.batches.keys import KeySet, halves
from batch_etl.batches.ledger import BatchRow, Lease
from batch_etl.batches.manifest import (
    PlannedBatch,
    keys_of,
    manifest_keys,
    read_manifest,
    render_again,
)
from batch_etl.batches.plan import PlanCounts, plan, plan_path
from batch_etl.batches.request import new_token
from batch_etl.batches.retry import Policy
from batch_etl.batches.spending import Spending
from batch_etl.batches.transform import Transform
from batch_etl.batches.unchanged import EarlierPlans, Keeping

_FIRST_WAIT_S = 1.0


class Planning:
    """The planning and sending of one endpoint's transforms."""

    def __init__(self, exchange: Exchange) -> None:
        memory.lean_pool()
        self._exchange = exchange
        self._home = exchange.home
        self._ledger = exchange.ledger
        self._spending = Spending(exchange)

    # plan ---------------------------------------------------------------------------------------

    def plan(self, lease: Lease, transform: Transform) -> float | None:
        """Plan all records, sending each payload once full.

        Seconds to wait where that is not all: a payload could not be sent yet, or some requests
        are being bought by another transform, whose batches are noted as awaited.
        """
        counts = PlanCounts()
        policy, answers = Policy.of(transform.task), self._answers(lease, transform)
        elsewhere = Elsewhere(self._exchange, lease.transform_id, policy, answers)
        folder = self._home.transform(lease.transform_id)
        in_flight = self._in_flight(lease)
        blocked_s: float | None = None
        due = priming.stage(transform, self.sent(lease), elsewhere, in_flight)
        if due == "waiting":
            return _FIRST_WAIT_S
        keeping = Keeping(transform, folder)
        with self._spending.reserving(lease, transform, elsewhere, in_flight):
            for batch in plan(priming.cut(transform, due), folder, elsewhere, in_flight, counts):
                claimed = self.claim(lease, transform, batch, 1, elsewhere)
                if claimed is not None and blocked_s is None:
                    blocked_s = self._exchange.submit(lease, claimed, transform.task.betas)
                if claimed is not None and due == "primer":
                    return blocked_s or _FIRST_WAIT_S
                del batch, claimed
                memory.release()
        memory.release()  # the last payload was the pass's until it ended
        plans = elsewhere.plans(transform)
        keeping.keep(plans)
        awaited = elsewhere.holders()
        self._ledger.await_batches(lease, awaited)
        if awaited:
            return blocked_s or _FIRST_WAIT_S
        tally = self._tally(lease, counts, elsewhere.late)
        tally |= self._compared(lease, transform, plans)
        self._ledger.move_transform(lease, "planning", "open", counts=tally)
        return blocked_s

    def _compared(self, lease: Lease, transform: Transform, plans: EarlierPlans) -> dict[str, int]:
        """How the records stand to the results that their partitions have from before."""
        folder, endpoint = self._home.transform(lease.transform_id), self._exchange.endpoint.name
        partitions = [
            (
                plan_path(folder, at),
                self._home.results(endpoint, transform.pipeline, partition.key),
                plans.of_results(partition),
            )
            for at, partition in enumerate(transform.partitions)
        ]
        return compare_plans(partitions).counts

    def _tally(self, lease: Lease, counts: PlanCounts, late: int) -> dict[str, int]:
        sent = sum(batch.requests for batch in self.sent(lease) if batch.attempt == 1)
        return {
            "records": counts.records,
            "sent": sent,
            "reused": counts.reused,
            "resumed": counts.resumed + late,
            "shared": counts.shared + counts.sent - sent - late,
            "unsendable": counts.unsendable,
        }

    def claim(
        self,
        lease: Lease,
        transform: Transform,
        batch: PlannedBatch,
        attempt: int,
        elsewhere: Elsewhere,
        *,
        claude_model: str | None = None,
    ) -> PlannedBatch | None:
        """Add a batch to the ledger, without what others have come to hold; None if that is all.

        ``claude_model`` is whom all of its requests ask, where that is not the task's own model.
        """
        model = claude_model or transform.task.claude_model
        while True:
            taken = elsewhere.taken(halves(keys_of(batch.manifest))[0])  # learned since it was full
            if taken.all():
                return None
            if taken.any():
                bought = self._answers(lease, transform)
                batch = render_again(transform, new_token(), batch.without(taken), bought)
            unseen = self._exchange.add(
                lease,
                batch,
                attempt,
                model,
                elsewhere.seen,
                reservation=self._spending.of_batch(lease, transform, batch, attempt),
            )
            if not unseen:
                return batch
            elsewhere.learn(unseen)

    def sent(self, lease: Lease) -> list[BatchRow]:
        """The transform's batches whose requests need not be planned again."""
        batches = self._ledger.batches(transform_id=lease.transform_id)
        return [batch for batch in batches if batch.status != "dropped"]

    def _answers(self, lease: Lease, transform: Transform) -> Answers:
        return self._exchange.answers(lease.transform_id, transform)

    def _in_flight(self, lease: Lease) -> KeySet:
        folder = self._home.transform(lease.transform_id)
        return KeySet(halves(manifest_keys(folder, batch.id))[0] for batch in self.sent(lease))

    # settle -------------------------------------------------------------------------------------

    def settle(self, lease: Lease, transform: Transform) -> float | None:
        """Find what was sent and not noted, send what was planned; seconds to wait if blocked."""
        folder = self._home.transform(lease.transform_id)
        decided = self._exchange.reconcile(lease, if_absent="planned")
        self._unpack(lease, transform)
        for row in self._ledger.batches(transform_id=lease.transform_id, statuses=["planned"]):
            manifest = read_manifest(folder, row.id)
            again = render_again(transform, row.id, manifest, self._answers(lease, transform))
            blocked_s = self._exchange.submit(lease, again, transform.task.betas)
            if blocked_s is not None:
                return blocked_s
        return None if decided else _FIRST_WAIT_S

    def _unpack(self, lease: Lease, transform: Transform) -> None:
        """Drop planned batches over the limits of now, and have their records planned again.

        Limits are no part of what is asked, so they may have been lowered since: because the
        server, or something before it, would not take batches of that size.
        """
        limits = transform.task.packing
        planned = self._ledger.batches(transform_id=lease.transform_id, statuses=["planned"])
        over = [
            row
            for row in planned
            if row.requests > limits.max_requests or row.payload_bytes > limits.max_bytes
        ]
        first = any(row.attempt == 1 for row in over)  # attempts.py plans the later ones again
        if first and self._ledger.transform(lease.transform_id).status == "open":
            self._ledger.move_transform(lease, "open", "planning")  # first: a kill may follow
        for row in over:
            detail = {"why": "over the limits of a batch, which were lowered"}
            self._ledger.move_batch(lease, row.id, "planned", "dropped", detail)
