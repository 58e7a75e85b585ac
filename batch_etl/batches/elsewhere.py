"""What the endpoint's other transforms have bought, or are buying: no request is bought by two.

Two transforms that are open at the same time (two partitions of one pipeline, two pipelines that
share a prompt) may hold equal requests. Each request belongs to the batch that was planned first;
the other transform waits for that batch and then finds its answer, as if it had come later.

    snapshot   before planning: the keys that others have answered, and those in their open batches
    claim      a batch is added to the ledger only by one who has seen every batch planned before
               it; who has not, takes out what those hold, and claims again
    await      the batches that hold what was left out are noted with the transform, which goes on
               when they are done

What others have *answered* is answered for good under this transform's retry policy
(``history.py``). What they have asked in vain and this policy asks again is *resumable*: nobody
pays its first attempt a second time, and whoever comes first buys the next one.

A transform that nobody advances any more does not hold others up: what it has at the API is looked
for and collected by the one that waits, and what it only planned is dropped after a while (it plans
that again, should it go on).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence

from batch_etl.batches.answers import Answers
from batch_etl.batches.exchange import Exchange
from batch_etl.batches.history import History
from batch_etl.batches.keys import U64, KeySet, Mask, halves
from batch_etl.batches.ledger import BatchRow, Lease, TransformRow
from batch_etl.batches.lifecycle import OPEN_BATCH
from batch_etl.batches.manifest import manifest_keys
from batch_etl.batches.request import Renderer
from batch_etl.batches.retry import Policy
from batch_etl.batches.transform import Partition, Transform
from batch_etl.batches.unchanged import EarlierPlans, Unchanged

_ABANDONED = dt.timedelta(minutes=10)
"""A batch that was planned so long ago and not sent, and whose transform nobody holds."""

_HELD_WAIT_S = 2.0

_RECENT_TRANSFORMS = 200
"""Among so many, newest first, is looked for those that planned the same partitions."""


class Elsewhere:
    """A snapshot of the other transforms' keys, which grows by what :meth:`learn` is told."""

    def __init__(
        self,
        exchange: Exchange,
        transform_id: str,
        policy: Policy,
        answers: Answers | None = None,
    ) -> None:
        """``answers`` is where all answers are read; None: as they were bought."""
        self._exchange = exchange
        self._mine = transform_id
        self._buying: dict[str, str] = {}
        self.seen: set[str] = set()
        bought = exchange.home.answers(exchange.endpoint.name) if answers is None else answers
        self.history = History(bought, policy)
        self.buying = KeySet()
        self.awaited = KeySet()
        self.late = 0
        """How many requests were taken out because they have failed elsewhere since the snapshot;
        they are resumed later."""
        self._failed_since = KeySet()
        self._plans: EarlierPlans | None = None
        self._take(exchange.ledger.batches(endpoint=exchange.endpoint.name))

    @property
    def answered(self) -> KeySet:
        return self.history.answered

    @property
    def resumable(self) -> KeySet:
        return self.history.resumable

    def before(
        self, transform: Transform, partition: Partition, renderer: Renderer
    ) -> Unchanged | None:
        """What another transform has planned of the partition's records that have not changed."""
        return self.plans(transform).find(transform, partition, renderer, self.answered)

    def plans(self, transform: Transform) -> EarlierPlans:
        """Of the pipeline's other transforms."""
        if self._plans is None:
            rows = self._exchange.ledger.transforms(
                pipeline=transform.pipeline,
                endpoint=self._exchange.endpoint.name,
                limit=_RECENT_TRANSFORMS,
            )
            others = [row for row in rows if row.id != self._mine]
            self._plans = EarlierPlans(self._exchange.home, others)
        return self._plans

    def learn(self, tokens: Sequence[str]) -> None:
        """Take in batches that were planned after the snapshot."""
        for failed in self._take(self._exchange.ledger.batches(ids=tokens)):
            self._failed_since.add(failed)

    def _take(self, rows: Iterable[BatchRow]) -> list[U64]:
        """Returns what was asked in vain by these batches."""
        others = [row for row in rows if row.transform_id != self._mine]
        self.seen |= {row.id for row in others}
        waiting = [row for row in others if row.status in OPEN_BATCH]
        self._buying |= {row.id: row.transform_id for row in waiting}
        self.buying.add(KeySet(self._keys(row.id) for row in waiting).all())
        collected = [row for row in others if row.status == "collected"]
        return [self.history.add(row.id, row.attempt) for row in collected]

    def _keys(self, token: str) -> U64:
        folder = self._exchange.home.transform(self._buying[token])
        return halves(manifest_keys(folder, token))[0]

    def taken(self, prefixes: U64) -> Mask:
        """For each key, whether another has answered it or is buying it; the latter are awaited.

        So is one that another has bought in vain since the snapshot: its next attempt is another.
        """
        answered = self.answered.contains(prefixes)
        buying = self.buying.contains(prefixes) & ~answered
        self.awaited.add(prefixes[buying])
        failed = self._failed_since.contains(prefixes) & ~answered & ~buying
        self.late += int(failed.sum())
        return answered | buying | failed

    def holders(self) -> list[str]:
        """The open batches that hold any of the awaited keys."""
        if not len(self.awaited):
            return []
        return [token for token in self._buying if self.awaited.contains(self._keys(token)).any()]


def awaiting(exchange: Exchange, lease: Lease, row: TransformRow) -> float | None:
    """Seconds to wait while a batch that ``row`` awaits is open; None when none is any more."""
    if not row.awaits:
        return None
    rows = exchange.ledger.batches(ids=row.awaits)
    waiting = [batch for batch in rows if batch.status in OPEN_BATCH]
    if not waiting:
        exchange.ledger.await_batches(lease, ())
        return None
    hints = [_tend(exchange, owner) for owner in sorted({batch.transform_id for batch in waiting})]
    return max(hints)


def _tend(exchange: Exchange, transform_id: str) -> float:
    """Do what is due at the API for a transform that nobody holds; seconds to wait."""
    with exchange.ledger.holding(transform_id) as lease:
        if lease is None:
            return _HELD_WAIT_S
        exchange.reconcile(lease, if_absent="planned")
        hint_s = exchange.poll(lease, exchange.ledger.transform(transform_id))
        _drop_abandoned(exchange, lease)
    return max(hint_s, 1.0)


def _drop_abandoned(exchange: Exchange, lease: Lease) -> None:
    ledger = exchange.ledger
    before = dt.datetime.now(dt.UTC) - _ABANDONED
    planned = ledger.batches(transform_id=lease.transform_id, statuses=["planned"])
    old = [batch for batch in planned if batch.planned_at < before]
    if old and ledger.transform(lease.transform_id).status == "open":
        ledger.move_transform(lease, "open", "planning")  # first: a kill may follow
    for batch in old:
        detail = {"why": "planned long ago and never sent; another transform needs its requests"}
        ledger.move_batch(lease, batch.id, "planned", "dropped", detail)
