"""The one way a transform moves on: ``advance``.

``advance(id, transform)`` looks at the ledger, does all that is due, and says how far things are.
It can be called again at any time, after any interruption, by any process: a loop calls it until
the transform is done, a sensor calls it once in a while, a run after a crash calls it first.

    plan       records -> payloads that nobody has paid for (plan.py)
    submit     planned -> submitting is committed, then ONE POST, then -> submitted
    reconcile  a batch left in submitting may or may not exist: it is looked for, never sent blindly
    poll       only processing_status "ended" is believed
    collect    results -> answers, one outcome a request (collect.py)
    retry      outcomes worth it go into one more batch of the same transform (retry.py)
    finish     records x outcomes -> results, one row a record (finish.py)

A transform is found again by what it asks: same pipeline, endpoint, partitions, task and records.
An older open one over any of the same partitions is brought to its end first: what it has not sent
is dropped, what it sent is collected (cancelled before, where the task changed: cancelled lines
cost nothing), and all it bought answers equal requests of the newer one.

A failed request is an outcome; a failed call or batch raises.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from batch_etl import memory
from batch_etl.batches.answers import answered_keys, read_answers
from batch_etl.batches.exchange import Exchange
from batch_etl.batches.finish import AnswerFile, Lineage, PartitionResult, Target, finish
from batch_etl.batches.keys import KeySet, from_arrow, halves
from batch_etl.batches.ledger import BatchRow, Lease, TransformRow
from batch_etl.batches.lifecycle import OPEN_BATCH
from batch_etl.batches.models import check_model, warn_model
from batch_etl.batches.outcome import BILLED
from batch_etl.batches.plan import (
    PlanCounts,
    Transform,
    manifest_keys,
    plan,
    read_manifest,
    render_again,
)
from batch_etl.batches.request import new_token
from batch_etl.batches.retry import worth_another_try
from batch_etl.errors import ConfigError

pc: Any = pyarrow.compute  # its functions are made at import; a type checker sees none

log = logging.getLogger("batch_etl.runner")

_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 60.0
_HELD_WAIT_S = 5.0


@dataclass(frozen=True)
class Progress:
    """How far a transform is; ``wait_s`` is how long to wait before the next ``advance``."""

    transform_id: str
    status: str
    attempt: int
    batches: int
    batches_open: int
    requests_open: int
    batch_ids: tuple[str, ...]
    """The vendor's ids of the batches that are open."""
    wait_s: float
    held_by_other: bool = False

    @property
    def done(self) -> bool:
        return self.status == "done"


@dataclass(frozen=True)
class Summary:
    """What a finished transform came to: its records, its partitions and its money."""

    transform_id: str
    counts: dict[str, int]
    """records, sent, reused, shared, unsendable."""
    partitions: tuple[PartitionResult, ...]
    batches: tuple[BatchRow, ...]

    @property
    def outcomes(self) -> dict[str, int]:
        total: dict[str, int] = {}
        for partition in self.partitions:
            for kind, n in partition.outcomes.items():
                total[kind] = total.get(kind, 0) + n
        return total

    @property
    def cost_pico_usd(self) -> int | None:
        """What the transform's batches cost; None when a price is unknown."""
        return _sum(batch.cost_pico_usd for batch in self.batches)

    @property
    def standard_pico_usd(self) -> int | None:
        """What the same tokens would have cost outside a batch."""
        return _sum(batch.standard_pico_usd for batch in self.batches)


class Runner:
    """Advances transforms of one endpoint; all it knows is in the ledger and on disk."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._home = exchange.home
        self._ledger = exchange.ledger
        self._answers = exchange.home.answers(exchange.endpoint.name)
        self._endpoint = exchange.endpoint.name
        self._waited_s: dict[str, float] = {}

    @property
    def endpoint_name(self) -> str:
        return self._endpoint

    def has_open_batches(self, transform_id: str) -> bool:
        """Whether anything of this transform is, or may be, at the API."""
        return bool(self._batches(transform_id, ["submitting", "submitted"]))

    def open(self, transform: Transform) -> str:
        """The id of the open transform that asks just this, or of a new one.

        Raises ``RenderError`` when the prompt names a field that the records do not have, and
        ``SourceError`` when a partition's records are not there; nothing is written then.
        """
        _check_model(transform)
        for partition in transform.partitions:
            transform.renderer(partition)
        digest = _records_digest(transform)
        asks = (transform.scope, transform.task.fingerprint, digest)
        for row in self.open_transforms(transform.pipeline):
            if (row.scope, row.fingerprint, row.records_digest) == asks:
                return row.id
        return self._ledger.create_transform(
            pipeline=transform.pipeline,
            endpoint=self._endpoint,
            scope=transform.scope,
            fingerprint=transform.task.fingerprint,
            records_digest=digest,
            task=transform.task.definition,
        )

    def advance(self, transform_id: str, transform: Transform) -> Progress:
        """Do all that is due. Raises ``ApiError`` of a failed call; what is done stays done."""
        lease = self._ledger.acquire(transform_id)
        if lease is None:
            return self._progress(transform_id, _HELD_WAIT_S, held_by_other=True)
        try:
            with self._ledger.keeping(lease):
                wait_s = self._advance(lease, transform)
        finally:
            self._ledger.release(lease)
        return self._progress(transform_id, wait_s)

    def cancel(self, transform_id: str) -> Progress:
        """Bring an open transform to its end without its records' answers.

        What was not sent is dropped, open batches are cancelled (requests that did not run cost
        nothing), what they had answered is collected and kept for later runs. To be called again
        until ``batches_open`` is 0; the transform is ``superseded`` then.
        """
        lease = self._ledger.acquire(transform_id)
        if lease is None:
            return self._progress(transform_id, _HELD_WAIT_S, held_by_other=True)
        row = self._ledger.transform(transform_id)
        try:
            with self._ledger.keeping(lease):
                is_open = row.status in ("planning", "open")
                waits = self._end(lease, row, cancel=True) if is_open else []
        finally:
            self._ledger.release(lease)
        return self._progress(transform_id, max(waits, default=0.0))

    def _advance(self, lease: Lease, transform: Transform) -> float:
        row = self._ledger.transform(lease.transform_id)
        if row.status in ("done", "superseded"):
            return 0.0
        others_wait_s = self._end_older(row)
        if others_wait_s is not None:
            return others_wait_s
        blocked_s = self._settle(lease, transform)
        if blocked_s is None and self._ledger.transform(row.id).status == "planning":
            blocked_s = self._plan(lease, transform)
        hint_s = self._exchange.poll(lease, row)
        if self._batches(row.id, OPEN_BATCH) or blocked_s is not None:
            return self._wait_s(row.id, hint_s if blocked_s is None else blocked_s)
        if self._retry(lease, transform):
            return _FIRST_WAIT_S
        self._finish(lease, transform)
        return 0.0

    def _progress(
        self, transform_id: str, wait_s: float, *, held_by_other: bool = False
    ) -> Progress:
        batches = self._batches(transform_id)
        waiting = [batch for batch in batches if batch.status in OPEN_BATCH]
        row = self._ledger.transform(transform_id)
        return Progress(
            transform_id=transform_id,
            status=row.status,
            attempt=max((batch.attempt for batch in batches), default=1),
            batches=len(batches),
            batches_open=len(waiting),
            requests_open=sum(batch.requests for batch in waiting),
            batch_ids=tuple(batch.batch_id for batch in waiting if batch.batch_id),
            wait_s=wait_s,
            held_by_other=held_by_other,
        )

    def _wait_s(self, transform_id: str, hint_s: float) -> float:
        """The server's hint at first, then growing by half, up to a minute."""
        grown = self._waited_s.get(transform_id, _FIRST_WAIT_S / 1.5) * 1.5
        self._waited_s[transform_id] = min(grown, _LONGEST_WAIT_S)
        return max(hint_s, self._waited_s[transform_id])

    def open_transforms(self, pipeline: str) -> list[TransformRow]:
        """The pipeline's transforms that are neither done nor superseded, newest first."""
        return self._ledger.transforms(
            pipeline=pipeline, endpoint=self._endpoint, statuses=["planning", "open"]
        )

    def _batches(self, transform_id: str, statuses: Iterable[str] | None = None) -> list[BatchRow]:
        wanted = list(statuses) if statuses is not None else None
        return self._ledger.batches(transform_id=transform_id, statuses=wanted)

    # older transforms over the same partitions --------------------------------------------------

    def _end_older(self, row: TransformRow) -> float | None:
        """Seconds to wait while an older one has open batches; None when there is none left."""
        waits: list[float] = []
        for other in self.open_transforms(row.pipeline):
            older = (other.created_at, other.id) < (row.created_at, row.id)
            if not older or not set(other.scope) & set(row.scope):
                continue
            lease = self._ledger.acquire(other.id)
            if lease is None:
                waits.append(_HELD_WAIT_S)
                continue
            try:
                waits += self._end(lease, other, cancel=other.fingerprint != row.fingerprint)
            finally:
                self._ledger.release(lease)
        return max(waits) if waits else None

    def _end(self, lease: Lease, other: TransformRow, *, cancel: bool) -> list[float]:
        for batch in self._batches(other.id, ["planned"]):
            self._ledger.move_batch(lease, batch.id, "planned", "dropped")
        self._exchange.reconcile(lease, if_absent="dropped")
        if cancel:
            for batch in self._batches(other.id, ["submitted"]):
                self._exchange.cancel(lease, batch)
        hint_s = self._exchange.poll(lease, other)
        if self._batches(other.id, OPEN_BATCH):
            return [self._wait_s(other.id, hint_s)]
        self._ledger.move_transform(lease, other.status, "superseded")
        return []

    # plan, settle, retry ------------------------------------------------------------------------

    def _plan(self, lease: Lease, transform: Transform) -> float | None:
        """Plan all records, sending each payload once full; seconds to wait if one is not in."""
        counts = PlanCounts()
        folder = self._home.transform(lease.transform_id)
        answered = answered_keys(self._answers, self._earlier(lease.transform_id))
        blocked_s: float | None = None
        for batch in plan(transform, folder, answered, self._in_flight(lease), counts):
            self._exchange.add(lease, batch, 1, transform.task.claude_model)
            if blocked_s is None:
                blocked_s = self._exchange.submit(lease, batch, transform.task.betas)
            del batch
            memory.release()
        sent = sum(batch.requests for batch in self._sent(lease) if batch.attempt == 1)
        tally = {
            "records": counts.records,
            "sent": sent,
            "reused": counts.reused,
            "shared": counts.shared + counts.sent - sent,
            "unsendable": counts.unsendable,
        }
        self._ledger.move_transform(lease, "planning", "open", counts=tally)
        return blocked_s

    def _earlier(self, transform_id: str) -> list[str]:
        """Collected batches of this endpoint, newest first, but for the transform's own."""
        batches = self._ledger.batches(endpoint=self._endpoint, statuses=["collected"])
        return [batch.id for batch in reversed(batches) if batch.transform_id != transform_id]

    def _sent(self, lease: Lease) -> list[BatchRow]:
        batches = self._batches(lease.transform_id)
        return [batch for batch in batches if batch.status not in ("dropped", "lost")]

    def _in_flight(self, lease: Lease) -> KeySet:
        folder = self._home.transform(lease.transform_id)
        return KeySet(halves(manifest_keys(folder, batch.id))[0] for batch in self._sent(lease))

    def _settle(self, lease: Lease, transform: Transform) -> float | None:
        """Find what was sent and not noted, send what was planned; seconds to wait if blocked."""
        folder = self._home.transform(lease.transform_id)
        if not self._exchange.reconcile(lease, if_absent="planned"):
            return _FIRST_WAIT_S
        self._unpack(lease, transform)
        for row in self._batches(lease.transform_id, ["planned"]):
            again = render_again(transform, row.id, read_manifest(folder, row.id))
            blocked_s = self._exchange.submit(lease, again, transform.task.betas)
            if blocked_s is not None:
                return blocked_s
        return None

    def _unpack(self, lease: Lease, transform: Transform) -> None:
        """Drop planned batches over the limits of now, and have their records planned again.

        Limits are no part of what is asked, so they may have been lowered since: because the
        server, or something before it, would not take batches of that size.
        """
        limits = transform.task.packing
        dropped = False
        for row in self._batches(lease.transform_id, ["planned"]):
            over = row.requests > limits.max_requests or row.payload_bytes > limits.max_bytes
            if over and row.attempt == 1:
                detail = {"why": "over the limits of a batch, which were lowered"}
                self._ledger.move_batch(lease, row.id, "planned", "dropped", detail)
                dropped = True
        if dropped and self._ledger.transform(lease.transform_id).status == "open":
            self._ledger.move_transform(lease, "open", "planning")

    def _retry(self, lease: Lease, transform: Transform) -> bool:
        """Plan another attempt of what is worth it; whether there was any."""
        sent = self._sent(lease)
        planned = False
        for batch in sent:
            if batch.attempt >= transform.task.max_attempts:
                continue
            manifest = self._again(lease, batch, [b for b in sent if b.attempt > batch.attempt])
            if manifest.num_rows:  # a part of a payload, so it fits one
                again = render_again(transform, new_token(), manifest)
                self._exchange.add(lease, again, batch.attempt + 1, transform.task.claude_model)
                planned = True
        if planned:
            self._settle(lease, transform)
        return planned

    def _again(self, lease: Lease, batch: BatchRow, later: list[BatchRow]) -> pa.Table:
        """The manifest's rows that are worth another try and in no later attempt yet."""
        folder = self._home.transform(lease.transform_id)
        tried = KeySet(halves(manifest_keys(folder, one.id))[0] for one in later)
        rows: list[int] = []
        for answers in read_answers(self._answers, batch.id):
            kinds = answers.column("outcome").to_pylist()
            errors = answers.column("error_type").to_pylist()
            done = tried.contains(halves(from_arrow(answers.column("request_key")))[0])
            own = answers.column("row").to_pylist()
            rows += [
                row
                for row, kind, error, again in zip(own, kinds, errors, done, strict=True)
                if worth_another_try(kind, error) and not again
            ]
        return read_manifest(folder, batch.id).take(pa.array(sorted(rows), pa.int64()))

    # finish -------------------------------------------------------------------------------------

    def _finish(self, lease: Lease, transform: Transform) -> None:
        results = finish(
            self._targets(transform),
            self._home.transform(lease.transform_id),
            self._answers,
            self._answer_files(lease.transform_id),
            Lineage(transform.task.version, self._endpoint),
        )
        row = self._ledger.transform(lease.transform_id)
        outcomes = Summary(row.id, {}, tuple(results), ()).outcomes
        self._ledger.move_transform(lease, "open", "done", counts={**row.counts, **outcomes})

    def _targets(self, transform: Transform) -> list[Target]:
        return [
            Target(i, key, self._home.results(self._endpoint, transform.pipeline, key))
            for i, key in enumerate(transform.scope)
        ]

    def _answer_files(self, transform_id: str) -> list[AnswerFile]:
        """The transform's own answers, latest attempt first, then earlier transforms' newest."""
        batches = self._ledger.batches(endpoint=self._endpoint, statuses=["collected"])
        own = [batch for batch in batches if batch.transform_id == transform_id]
        own.sort(key=lambda batch: -batch.attempt)
        earlier = [batch for batch in reversed(batches) if batch.transform_id != transform_id]
        row = self._ledger.transform(transform_id)
        reused = row.counts.get("reused", 0)
        ours = {one.id for one in self._ledger.transforms(pipeline=row.pipeline)}
        return [
            AnswerFile(
                token=batch.id,
                batch_id=batch.batch_id,
                attempt=batch.attempt,
                ended_at=batch.ended_at,
                own=batch.transform_id == transform_id,
                same_pipeline=batch.transform_id in ours,
            )
            for batch in [*own, *(earlier if reused else [])]
        ]

    def summary(self, transform_id: str, transform: Transform) -> Summary:
        """What a finished transform came to, read back from its results."""
        row = self._ledger.transform(transform_id)
        partitions = tuple(
            _result(target) for target in self._targets(transform) if target.path.exists()
        )
        batches = tuple(self._batches(transform_id, ["collected"]))
        return Summary(transform_id, dict(row.counts), partitions, batches)


def _result(target: Target) -> PartitionResult:
    table = pq.read_table(str(target.path), columns=["outcome", "cost_usd"])
    outcomes = table.column("outcome").cast(pa.string())
    counts = {entry["values"]: entry["counts"] for entry in outcomes.value_counts().to_pylist()}
    return PartitionResult(target.key, target.path, len(outcomes), counts, _cost(table))


def _cost(table: pa.Table) -> int | None:
    """The sum of a results file's costs; None where an answer has none."""
    answered = pc.is_in(table.column("outcome").cast(pa.string()), pa.array(sorted(BILLED)))
    unknown = pc.and_(answered, pc.is_null(table.column("cost_usd")))
    if pc.any(unknown).as_py():
        return None
    total = pc.sum(table.column("cost_usd")).as_py()
    return int(total.scaleb(12)) if total is not None else 0


def _check_model(transform: Transform) -> None:
    """Raise ``ConfigError`` for a model that has been retired; warn of one that soon will be."""
    today = dt.datetime.now(dt.UTC).date()
    model = transform.task.claude_model
    for finding in check_model(model, today) if not transform.task.allow_unknown_model else []:
        raise ConfigError(f"pipeline {transform.pipeline!r}: {finding}")
    for finding in warn_model(model, today):
        log.warning("pipeline %r: %s", transform.pipeline, finding)


def _records_digest(transform: Transform) -> str:
    """Which records: each partition's key and the digest of its file."""
    digest = hashlib.sha256()
    for partition in transform.partitions:
        with open(str(partition.records), "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{partition.key!r} {content}\n".encode())
    return digest.hexdigest()


def _sum(values: Iterable[int | None]) -> int | None:
    total = 0
    for value in values:
        if value is None:
            return None
        total += value
    return total
