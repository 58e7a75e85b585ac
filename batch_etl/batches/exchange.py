"""What goes between the ledger and the API: submit, reconcile, poll, collect, cancel.

Every call to the API that costs or moves anything is made here, under a transform's lease, and its
result is in the ledger before the next one. The order is always: intent committed, one call, result
committed.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal

from batch_etl.batches.answers import Answers, Judged, Price, Source, Tokens
from batch_etl.batches.budget import Reservation
from batch_etl.batches.client import Client, Polled
from batch_etl.batches.collect import Collected, collect
from batch_etl.batches.conditions import Condition
from batch_etl.batches.errors import (
    AmbiguousCreate,
    ApiError,
    BatchGone,
    BudgetExceeded,
    CreateUndecided,
    Interrupted,
    NotFound,
    TimedOut,
)
from batch_etl.batches.judging import Judging
from batch_etl.batches.ledger import BatchRow, Lease, Ledger, TransformRow
from batch_etl.batches.manifest import PlannedBatch, manifest_path, read_manifest, write_manifest
from batch_etl.batches.outcome import MISSING
from batch_etl.batches.pricing import PriceList, UsageColumns, cost_pico_usd
from batch_etl.batches.reconcile import find_created
from batch_etl.batches.repeat import LONGEST_WAIT_S
from batch_etl.batches.task import schema_of
from batch_etl.batches.transform import Transform
from batch_etl.batches.wire import MessageBatch
from batch_etl.effects import effect
from batch_etl.errors import ConfigError
from batch_etl.files import Home

log = logging.getLogger("batch_etl.exchange")

_AMBIGUOUS = "create ambiguous"
_PAUSES_S = (2.0, 15.0)
"""Before results are read a second and a third time: what cut them off may pass."""
_RENEW_EVERY_S = 10.0
_RECENT_404_S = 30.0
"""A batch just created, or results just ended, may be unknown for a moment (SDK issue 1432)."""


@dataclass(frozen=True)
class Endpoint:
    """Whom to ask. ``name`` keeps answers, history and money of different endpoints apart."""

    name: str
    client: Client = field(repr=False)


@dataclass
class Exchange:
    """The calls of one endpoint, with the ledger's rows as their memory."""

    home: Home
    ledger: Ledger
    endpoint: Endpoint
    prices: PriceList
    grace_s: float = 60.0
    """How long a create whose reply was lost may take to show in the list."""
    day_budget_usd: Decimal | None = None
    """The budget of a day over all pipelines of the ledger."""
    _judging: dict[tuple[str, tuple[Condition, ...]], Judging] = field(
        default_factory=dict[tuple[str, tuple[Condition, ...]], Judging], repr=False
    )
    """The verdicts of the transform that is being advanced."""

    def answers(self, transform_id: str, transform: Transform) -> Answers:
        """What was bought at the endpoint, as the transform's conditions judge it."""
        folder = self.home.answers(self.endpoint.name)
        conditions = transform.task.must_meet
        if conditions is None:
            return folder
        whose = (transform_id, transform.task.conditions)
        if whose not in self._judging:
            plans = self.home.transform(transform_id)
            self._judging = {whose: Judging(transform, conditions, plans, folder)}
        return Judged(folder, self._judging[whose].verdict)

    @property
    def client(self) -> Client:
        return self.endpoint.client

    def add(
        self,
        lease: Lease,
        batch: PlannedBatch,
        attempt: int,
        claude_model: str,
        aware_of: Collection[str] | None = None,
        *,
        reservation: Reservation | None = None,
    ) -> list[str]:
        """Plan a batch: its manifest is on disk before the ledger knows of it.

        Nothing is added where other transforms have batches that the caller is not ``aware_of``
        (None: of all); these are returned. ``reservation`` is the batch's part of the budgets.
        """
        folder = self.home.transform(lease.transform_id)
        write_manifest(folder, batch)
        try:
            unseen = self.ledger.add_batch(
                lease,
                aware_of=aware_of,
                token=batch.token,
                endpoint=self.endpoint.name,
                attempt=attempt,
                requests=batch.payload.count,
                payload_bytes=batch.payload.size_bytes,
                claude_model=claude_model,
                reservation=reservation,
            )
        except BudgetExceeded:
            manifest_path(folder, batch.token).unlink()
            raise
        if unseen:
            with effect("manifest removed"):
                manifest_path(folder, batch.token).unlink()
        return unseen

    # submit -------------------------------------------------------------------------------------

    def submit(self, lease: Lease, batch: PlannedBatch, betas: tuple[str, ...]) -> float | None:
        """Send a planned batch once. None when it is in, else seconds to wait before going on.

        A definite refusal that may pass (429, 529) leaves the row ``planned``; anything ambiguous
        leaves it ``submitting``, for :meth:`reconcile`. Raises ``ApiError`` for a definite refusal
        that will not pass, and when the server cannot be reached before anything was sent.
        """
        intent_at = self.client.ping().server_time or _now()
        self.ledger.move_batch(lease, batch.token, "planned", "submitting", submitting_at=intent_at)
        try:
            created = self.client.create_batch(batch.payload, betas)
        except AmbiguousCreate as error:
            log.warning("batch %s may or may not have been created: %s", batch.token, error)
            self.ledger.note(lease, batch.token, _AMBIGUOUS, {"error": str(error)})
            return 1.0
        except ApiError as error:
            detail = {"error": str(error)}
            self.ledger.move_batch(lease, batch.token, "submitting", "planned", detail)
            if not error.transient:
                raise
            log.warning("batch %s was not taken: %s", batch.token, error)
            return min(getattr(error, "retry_after_s", None) or 5.0, LONGEST_WAIT_S)
        self._submitted(lease, batch.token, created.batch)
        return None

    def _submitted(self, lease: Lease, token: str, created: MessageBatch) -> None:
        log.info("batch %s is %s", token, created.id)
        self.ledger.move_batch(
            lease,
            token,
            "submitting",
            "submitted",
            {"batch_id": created.id},
            batch_id=created.id,
            submitted_at=created.created_at,
            expires_at=created.expires_at,
        )

    def reconcile(self, lease: Lease, *, if_absent: str) -> bool:
        """Decide each ``submitting`` row; False while one cannot be decided yet.

        ``if_absent`` is the status of a row whose batch was never created: planned or dropped.
        """
        decided = True
        for row in self.ledger.batches(transform_id=lease.transform_id, statuses=["submitting"]):
            finding = find_created(
                self.client, row, self.ledger.knows, self.grace_s, self._quiet_s(row)
            )
            if finding.verdict == "archived" and finding.batch is not None:
                raise CreateUndecided(row.id, row.requests, finding.batch.id)
            if finding.batch is not None:
                self._submitted(lease, row.id, finding.batch)
            elif finding.verdict == "absent":
                detail = {"looked_for": "not at the API"}
                self.ledger.move_batch(lease, row.id, "submitting", if_absent, detail)
            else:
                decided = False
        return decided

    def _quiet_s(self, row: BatchRow) -> float:
        """Seconds since the row's create call failed, where this was noted."""
        failed = [
            at
            for at, token, event, _ in self.ledger.events(row.transform_id)
            if token == row.id and event == _AMBIGUOUS
        ]
        return (_now() - failed[-1]).total_seconds() if failed else float("inf")

    def cancel(self, lease: Lease, row: BatchRow) -> None:
        """Ask the API to stop a submitted batch; what it has finished is kept and billed."""
        batch = self._retrieve(row).batch
        if batch.processing_status == "in_progress":
            self.client.cancel(batch.id)
            self.ledger.note(lease, row.id, "cancel asked", {"batch_id": batch.id})

    def resolve(self, lease: Lease, row: BatchRow, after: str) -> None:
        """Decide for a batch that the API cannot tell of: its requests are bought again or lost.

        What it may have cost stays committed either way: one of which nobody knows whether it was
        created counts as submitted when the batch that it may be was. Raises ``ConfigError`` while
        the API still has the batch: a run collects it then.
        """
        submitted_at = row.submitted_at
        if row.status == "submitting":
            maybe = self._undecided(row)
            if maybe is None:
                raise ConfigError(
                    f"batch {row.id} needs no decision: the next run finds out at the API whether "
                    "it was created"
                )
            submitted_at = maybe.created_at
        elif self._is_there(row):
            raise ConfigError(f"batch {row.batch_id} is at the API; the next run collects it")
        detail = {"why": "decided by a person"}
        self.ledger.move_batch(lease, row.id, row.status, after, detail, submitted_at=submitted_at)

    def _undecided(self, row: BatchRow) -> MessageBatch | None:
        finding = find_created(self.client, row, self.ledger.knows, self.grace_s)
        return finding.batch if finding.verdict == "archived" else None

    def _is_there(self, row: BatchRow) -> bool:
        try:
            return self._retrieve(row).batch.archived_at is None
        except BatchGone:
            return False

    def delete_collected(self, lease: Lease, pipeline: str) -> None:
        """Delete at the API what a pipeline has collected; what fails is tried by the next step.

        Results that lacked lines stay: they may be all that shows what ran.
        """
        for row in self.ledger.to_delete(pipeline, self.endpoint.name):
            if (row.outcomes or {}).get(MISSING.kind):
                continue
            try:
                self.client.delete(row.batch_id or "")
            except NotFound:
                log.info("batch %s was deleted before", row.batch_id)
            except ApiError as error:
                log.warning("batch %s could not be deleted: %s", row.batch_id, error)
                continue
            self.ledger.mark_deleted(lease, row.id)

    # poll and collect ---------------------------------------------------------------------------

    def poll(self, lease: Lease, transform: TransformRow) -> float:
        """Collect every batch that has ended; the server's hint when to look again, in seconds.

        Raises ``BatchGone`` for one that cannot be had any more, after all others.
        """
        hints = [0.0]
        gone: list[BatchGone] = []
        for row in self.ledger.batches(transform_id=transform.id, statuses=["submitted"]):
            try:
                hints.append(self._poll(lease, row, transform))
            except BatchGone as error:
                gone.append(error)
        if gone:
            raise gone[0]
        return max(hints)

    def _poll(self, lease: Lease, row: BatchRow, transform: TransformRow) -> float:
        polled = self._retrieve(row)
        self.ledger.renew(lease)
        if not polled.batch.ended:
            return min(polled.retry_after_s or 0.0, LONGEST_WAIT_S)
        if polled.batch.archived_at is not None:
            why = f"ended, and its results are not kept at the API since {polled.batch.archived_at}"
            raise BatchGone(polled.batch.id, row.requests, why)
        self._collect(lease, row, polled.batch, transform)
        return 0.0

    def _retrieve(self, row: BatchRow) -> Polled:
        """Raises ``BatchGone`` for a batch that the API does not know under this key."""
        name = row.batch_id or ""
        try:
            return self.client.retrieve(name, not_found_for_s=_RECENT_404_S)
        except NotFound:
            why = "is not at the API for this key: it was deleted, or is another workspace's"
            raise BatchGone(name, row.requests, why) from None

    def _collect(
        self, lease: Lease, row: BatchRow, ended: MessageBatch, transform: TransformRow
    ) -> None:
        collected = self._download(lease, row, ended, transform)
        totals = collected.totals
        self.ledger.move_batch(
            lease,
            row.id,
            "submitted",
            "collected",
            collected.counts,
            ended_at=ended.ended_at,
            collected_at=_now(),
            outcomes=collected.counts,
            input_tokens=totals.input_tokens,
            output_tokens=totals.output_tokens,
            cache_read_tokens=totals.cache_read_tokens,
            cache_write_tokens=totals.cache_write_tokens,
            cost_pico_usd=totals.cost_pico_usd,
            standard_pico_usd=totals.standard_pico_usd,
        )

    def _download(
        self, lease: Lease, row: BatchRow, ended: MessageBatch, transform: TransformRow
    ) -> Collected:
        """Read the results, again where the stream was cut or lines were missing."""
        manifest = read_manifest(self.home.transform(transform.id), row.id)
        source = Source.of(manifest, transform.scope)
        geo = transform.task["params"].get("inference_geo")
        for pause_s in (*_PAUSES_S, None):
            try:
                with self.client.results(ended.id, not_found_for_s=_RECENT_404_S) as chunks:
                    collected = collect(
                        self._renewing(lease, chunks),
                        token=row.id,
                        source=source,
                        schema=schema_of(transform.task),
                        price=self._price(row.claude_model, ended.created_at, geo),
                        folder=self.home.answers(self.endpoint.name),
                    )
            except (Interrupted, TimedOut):
                if pause_s is None:
                    raise
                log.warning("the results of %s were cut off; reading them again", ended.id)
            else:
                if not collected.missing or pause_s is None:
                    return collected
                log.warning("the results of %s lack lines; reading them again", ended.id)
            self.client.pause(pause_s)
            self.ledger.renew(lease)
        raise AssertionError("unreachable")  # pragma: no cover

    def _renewing(self, lease: Lease, chunks: Iterable[bytes]) -> Iterator[bytes]:
        renewed = _now()
        for chunk in chunks:
            if (_now() - renewed).total_seconds() > _RENEW_EVERY_S:
                self.ledger.renew(lease)
                renewed = _now()
            yield chunk

    def _price(self, asked_model: str, at: dt.datetime, geo: str | None) -> Price:
        """Prices of the batch's day, by the model that replied, else the one that was asked."""

        def price(model: str, tokens: Tokens) -> tuple[Tokens, Tokens] | None:
            columns = UsageColumns(*(tokens[:, i] for i in range(tokens.shape[1])))
            for name in (model, asked_model):
                batch = self.prices.batch_rates(name, at, inference_geo=geo)
                standard = self.prices.standard_rates(name, at, inference_geo=geo)
                if batch is not None and standard is not None:
                    return cost_pico_usd(batch, columns), cost_pico_usd(standard, columns)
            return None

        return price


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
