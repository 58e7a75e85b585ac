"""The one way a transform moves on: ``advance``.

``advance(id, transform)`` looks at the ledger, does all that is due, and says how far things are.
It can be called again at any time, after any interruption, by any process: a loop calls it until
the transform is done, a sensor calls it once in a while, a run after a crash calls it first.

    plan       records -> payloads that nobody has paid for (planning.py, plan.py)
    submit     planned -> submitting is committed, then ONE POST, then -> submitted
    reconcile  a batch left in submitting may or may not exist: it is looked for, never sent blindly
    poll       only processing_status "ended" is believed
    collect    results -> answers, one outcome a request (collect.py)
    retry      outcomes worth it go into further batches of the same transform (attempts.py)
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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute

from batch_etl import arrow
from batch_etl.batches.attempts import Attempts
from batch_etl.batches.changes import asked_before, task_changes
from batch_etl.batches.elsewhere import awaiting
from batch_etl.batches.errors import LeaseLost
from batch_etl.batches.exchange import Exchange
from batch_etl.batches.finish import AnswerFile, Lineage, PartitionResult, Target, finish
from batch_etl.batches.ledger import BatchRow, Lease, TransformRow
from batch_etl.batches.lifecycle import OPEN_BATCH
from batch_etl.batches.models import check_model, warn_model
from batch_etl.batches.outlook import Outlook, look
from batch_etl.batches.planning import Planning
from batch_etl.batches.retry import Policy
from batch_etl.batches.transform import Partition, Transform
from batch_etl.errors import ConfigError
from batch_etl.files import RECORDS_FACT, content_digest, facts_of, read_batches, read_table

pc: Any = pyarrow.compute  # its functions are made at import; a type checker sees none

log = logging.getLogger("batch_etl.runner")

_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 60.0
_HELD_WAIT_S = 5.0
_RECENT_TRANSFORMS = 200
"""Among so many the last one of the same partitions is looked for, to say what has changed."""


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
    unsent: int = 0
    """Batches that are planned, or may not have reached the API."""
    awaits: int = 0
    """Batches of other transforms that hold requests of this one."""
    submitted_at: dt.datetime | None = None
    """When the newest open batch was created at the API."""

    @property
    def done(self) -> bool:
        return self.status == "done"

    @property
    def parked(self) -> bool:
        """Whether nothing can be done before a batch at the API has ended."""
        waits = self.batches_open > 0 or self.awaits > 0
        return waits and not self.unsent and not self.held_by_other


@dataclass(frozen=True)
class Summary:
    """What a finished transform came to: its records, its partitions and its money."""

    transform_id: str
    counts: dict[str, int]
    """records, new, changed, sent, reused, resumed, shared, unsendable; and what the requests of
    later attempts were: again, repaired, more_tokens, stronger_model."""
    partitions: tuple[PartitionResult, ...]
    batches: tuple[BatchRow, ...]
    task_changes: tuple[str, ...] = ()
    """What the task says otherwise than at the last transform of these partitions."""

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
        arrow.without_pandas()
        self._exchange = exchange
        self._home = exchange.home
        self._ledger = exchange.ledger
        self._endpoint = exchange.endpoint.name
        self._planning = Planning(exchange)
        self._attempts = Attempts(exchange, self._planning)
        self._waited_s: dict[str, float] = {}

    @property
    def exchange(self) -> Exchange:
        return self._exchange

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

    def outlook(self, transform: Transform) -> Outlook:
        """What advancing the transform would send and cost; nothing is changed."""
        _check_model(transform)
        return look(self._exchange, transform, _records_digest(transform))

    def advance(self, transform_id: str, transform: Transform) -> Progress:
        """Do all that is due. Raises ``ApiError`` of a failed call; what is done stays done."""
        with self._ledger.holding(transform_id) as lease:
            if lease is None:
                return self._progress(transform_id, _HELD_WAIT_S, held_by_other=True)
            wait_s = self._advance(lease, transform)
        return self._progress(transform_id, wait_s)

    def is_finished(self, transform: Transform) -> bool:
        """Whether the results on disk are of the records on disk, in all partitions.

        They are not where another run has extracted a partition anew since this one was planned.
        """
        return all(
            target.path.exists()
            and facts_of(target.path).get(RECORDS_FACT)
            in (None, content_digest(str(partition.records)))
            for target, partition in zip(
                self._targets(transform), transform.partitions, strict=True
            )
        )

    def taken_over_by(self, transform_id: str) -> TransformRow | None:
        """The newest later transform of any of the partitions, if it is of the same task and was
        not cancelled: what a superseded one goes on as.
        """
        row = self._ledger.transform(transform_id)
        for other in self._ledger.transforms(pipeline=row.pipeline, endpoint=self._endpoint):
            later = (other.created_at, other.id) > (row.created_at, row.id)
            if later and set(other.scope) & set(row.scope):
                same = other.fingerprint == row.fingerprint and other.status != "superseded"
                return other if same else None
        return None

    def cancel(self, transform_id: str) -> Progress:
        """Bring an open transform to its end without its records' answers.

        What was not sent is dropped, open batches are cancelled (requests that did not run cost
        nothing), what they had answered is collected and kept for later runs. To be called again
        until ``batches_open`` is 0; the transform is ``superseded`` then.
        """
        with self._ledger.holding(transform_id) as lease:
            if lease is None:
                return self._progress(transform_id, _HELD_WAIT_S, held_by_other=True)
            waits = self._end(lease, cancel=True)
        return self._progress(transform_id, max(waits, default=0.0))

    def resolve(self, name: str, *, buy_again: bool) -> TransformRow:
        """Decide what becomes of a batch that the API cannot tell of; returns its transform.

        ``name`` is the vendor's id or our token. ``buy_again``: its requests are planned again by
        the next run; else they are Missing. Raises ``ConfigError`` where nothing is to be decided.
        """
        rows = self._ledger.batches(endpoint=self._endpoint)
        found = [row for row in rows if name in (row.id, row.batch_id)]
        if not found:
            raise ConfigError(f"the ledger has no batch {name!r} of endpoint {self._endpoint!r}")
        (row,) = found
        if row.status not in ("submitting", "submitted"):
            raise ConfigError(f"batch {name} needs no decision: it is {row.status}")
        with self._ledger.holding(row.transform_id) as lease:
            if lease is None:
                raise LeaseLost(row.transform_id)
            transform = self._ledger.transform(row.transform_id)
            if buy_again and transform.status == "open":
                self._ledger.move_transform(lease, "open", "planning")  # first: a kill may follow
            self._exchange.resolve(lease, row, "dropped" if buy_again else "lost")
        return transform

    def _advance(self, lease: Lease, transform: Transform) -> float:
        row = self._ledger.transform(lease.transform_id)
        if row.status in ("done", "superseded"):
            return 0.0
        others_wait_s = self._end_older(row)
        if others_wait_s is not None:
            return others_wait_s
        blocked_s = self._planning.settle(lease, transform)
        awaiting_s = awaiting(self._exchange, lease, row)
        if blocked_s is None:
            blocked_s = awaiting_s
        if blocked_s is None and self._ledger.transform(row.id).status == "planning":
            blocked_s = self._planning.plan(lease, transform)
        hint_s = self._exchange.poll(lease, row)
        if transform.delete_collected:
            self._exchange.delete_collected(lease, transform.pipeline)
        if self._batches(row.id, OPEN_BATCH) or blocked_s is not None:
            return self._wait_s(row.id, hint_s if blocked_s is None else blocked_s)
        if self._attempts.next(lease, transform):
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
            unsent=sum(batch.status != "submitted" for batch in waiting),
            awaits=len(row.awaits),
            submitted_at=max(
                (batch.submitted_at for batch in waiting if batch.submitted_at), default=None
            ),
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
            with self._ledger.holding(other.id) as lease:
                if lease is None:
                    waits.append(_HELD_WAIT_S)
                else:
                    cancel = other.fingerprint != row.fingerprint
                    waits += self._end(lease, cancel=cancel)
        return max(waits) if waits else None

    def _end(self, lease: Lease, *, cancel: bool) -> list[float]:
        """Seconds to wait while it has open batches; none when there are none, or it has ended."""
        other = self._ledger.transform(lease.transform_id)  # as it is since the lease is held
        if other.status not in ("planning", "open"):
            return []
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

    # finish -------------------------------------------------------------------------------------

    def _finish(self, lease: Lease, transform: Transform) -> None:
        results = finish(
            self._targets(transform),
            self._home.transform(lease.transform_id),
            self._exchange.answers(lease.transform_id, transform),
            self._answer_files(lease.transform_id),
            Lineage(transform.task.version, self._endpoint),
            policy=Policy.of(transform.task),
        )
        row = self._ledger.transform(lease.transform_id)
        outcomes = Summary(row.id, {}, tuple(results), ()).outcomes
        counts = {**row.counts, **self._attempts.counts(lease), **outcomes}
        self._ledger.move_transform(lease, "open", "done", counts=counts)

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
            for batch in [*own, *earlier]
        ]

    def summary(self, transform_id: str, transform: Transform) -> Summary:
        """What a finished transform came to, read back from its results."""
        row = self._ledger.transform(transform_id)
        partitions = tuple(
            _result(target) for target in self._targets(transform) if target.path.exists()
        )
        batches = tuple(self._batches(transform_id, ["collected"]))
        changes = self._task_changes(row)
        return Summary(transform_id, dict(row.counts), partitions, batches, changes)

    def _task_changes(self, row: TransformRow) -> tuple[str, ...]:
        rows = self._ledger.transforms(
            pipeline=row.pipeline, endpoint=self._endpoint, limit=_RECENT_TRANSFORMS
        )
        before = asked_before(rows, row.scope, row.created_at)
        return tuple(task_changes(before.task, row.task)) if before else ()


def _result(target: Target) -> PartitionResult:
    table = read_table(target.path, ["outcome", "cost_usd"])
    outcomes = table.column("outcome").cast(pa.string())
    counts = {entry["values"]: entry["counts"] for entry in outcomes.value_counts().to_pylist()}
    return PartitionResult(target.key, target.path, len(outcomes), counts, _cost(table))


def _cost(table: pa.Table) -> int | None:
    """The sum of a results file's costs; None where one is not known."""
    if table.column("cost_usd").null_count:
        return None
    total = pc.sum(table.column("cost_usd")).as_py()
    return int(total.scaleb(12)) if total is not None else 0


def _check_model(transform: Transform) -> None:
    """Raise ``ConfigError`` for a model that has been retired; warn of one that soon will be."""
    today = dt.datetime.now(dt.UTC).date()
    task = transform.task
    for model in (task.claude_model, *task.retry.stronger_models):
        for finding in check_model(model, today) if not task.allow_unknown_model else []:
            raise ConfigError(f"pipeline {transform.pipeline!r}: {finding}")
        for finding in warn_model(model, today):
            log.warning("pipeline %r: %s", transform.pipeline, finding)


def _file_stamps(transform: Transform, partition: Partition) -> Iterator[str]:
    """Of the files that a partition's records name: they are no part of its Parquet file."""
    content = transform.renderer(partition).content
    if content is not None and content.path_columns:
        yield from content.stamps(read_batches(partition.records, content.path_columns))


def _records_digest(transform: Transform) -> str:
    """Which records: each partition's key and the digest of its file."""
    digest = hashlib.sha256()
    for partition in transform.partitions:
        content = content_digest(str(partition.records))
        digest.update(f"{partition.key!r} {content}\n".encode())
        for file_stamp in _file_stamps(transform, partition):
            digest.update(f"{file_stamp}\n".encode())
    return digest.hexdigest()


def _sum(values: Iterable[int | None]) -> int | None:
    total = 0
    for value in values:
        if value is None:
            return None
        total += value
    return total
