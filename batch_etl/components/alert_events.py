"""From what the ledger says to alerts: what is an event, what it is called, what is told. Pure.

An event's name says what happened to what, so that the same is named the same at every look. A
message says what, where and what to do next. It holds names, ids, counts, dollars and times; never
an error's own words, an answer or a record, which may be anything. Emulated dollars are called so.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from batch_etl.batches.alerts import Alert, Level
from batch_etl.batches.attention import OpenBatch
from batch_etl.batches.budget import Standing, dollars
from batch_etl.batches.outcome import KINDS
from batch_etl.batches.tables import BatchRow, TransformRow
from batch_etl.batches.watching import spoken
from batch_etl.components.alerts import Alerts

RESULTS_KEPT = dt.timedelta(days=29)
"""From a batch's creation, the API keeps its results for so long (Anthropic's documentation)."""

_ENOUGH_BATCHES = 20
"""Fewer ended batches say nothing of what is slow."""

_LEAST_SLOW_S = 600.0
"""What takes less is not slow, whatever is usual."""

_ENOUGH_RECORDS = 10
"""Of fewer records a share says little."""

_ENOUGH_PAST = 100
"""Fewer earlier records are no past to compare with."""

_RARELY = 3.1
"""Standard deviations that chance passes once in a thousand times."""

_SHOWN = 80


@dataclass(frozen=True)
class FailedRun:
    """A Dagster run that failed and will not be tried again by Dagster."""

    run_id: str
    pipelines: tuple[str, ...]
    partitions: str | None
    failures: tuple[str, ...]
    """``step: kind of error``, never the error's message."""
    asked_for: str | None = None
    """The transform and day, where a sensor asks for the run again and again."""


def failed_run(run: FailedRun) -> Alert:
    failed = "; ".join(run.failures) or "no step failed: its process ended"
    where = f"pipeline {', '.join(run.pipelines)}"
    if run.partitions:
        where += f", partition {_plain(run.partitions)}"
    return _alert(
        "failed_run",
        run.asked_for or run.run_id,
        "failure",
        f"run of {', '.join(run.pipelines)} failed",
        f"Run {run.run_id} failed ({failed}).",
        f"Where: {where}.",
        f"Next: read the error in Dagster's UI (Runs, {run.run_id[:8]}); start it again when its "
        "cause is mended. What was bought is not bought again.",
    )


# batches ------------------------------------------------------------------------------------------


def slow_batch(
    one: OpenBatch, took_s: Sequence[float], factor: float, now: dt.datetime
) -> Alert | None:
    """``took_s``: how long the pipeline's earlier batches took."""
    if one.batch.status != "submitted" or len(took_s) < _ENOUGH_BATCHES:
        return None
    p95_s = float(np.quantile(took_s, 0.95))
    open_s = (now - one.since).total_seconds()
    if open_s <= max(p95_s * factor, _LEAST_SLOW_S):
        return None
    return _of_batch(
        "slow_batch",
        one,
        "warning",
        "a batch is slow",
        f"It is open for {spoken(open_s)}; 95 of 100 batches before it took up to {spoken(p95_s)}.",
        "Next: nothing has to be done, the API ends each batch within 24 hours. `batch-etl cancel "
        f"{one.transform.pipeline}` ends it now, free of charge for what has not run.",
    )


def stuck_batch(one: OpenBatch, hours: float, now: dt.datetime) -> Alert | None:
    open_s = (now - one.since).total_seconds()
    if open_s <= hours * 3600:
        return None
    if one.batch.status == "submitted":
        next_step = (
            "Next: see whether a run of the pipeline is waiting for it (Runs in Dagster's UI); if "
            "none is, materialize it: that takes up what has ended."
        )
    else:
        next_step = (
            "Next: it was never taken by the API, and no run goes on with it: materialize the "
            "pipeline, which finds out and sends what is missing."
        )
    return _of_batch(
        "stuck_batch",
        one,
        "warning",
        "a batch is stuck",
        f"It is {one.batch.status} for {spoken(open_s)}, longer than {hours:g} h.",
        next_step,
    )


def expiring_batch(one: OpenBatch, hours: float, now: dt.datetime) -> Alert | None:
    """Before the API ends it, after 24 hours."""
    expires_at = one.batch.expires_at
    if one.batch.status != "submitted" or expires_at is None:
        return None
    left_s = (expires_at - now).total_seconds()
    if not 0 < left_s <= hours * 3600:
        return None
    return _of_batch(
        "expiring",
        one,
        "warning",
        "a batch is about to expire",
        f"It expires at {_at(expires_at)} (in {spoken(left_s)}) with {one.batch.requests:,} "
        "requests; what has not run by then is not billed, and is sent again.",
        "Next: nothing has to be done. If that is too late, ask for fewer records at a time "
        "(`task.packing.max_requests`): smaller batches end sooner.",
    )


def vanishing_results(one: OpenBatch, days: float, now: dt.datetime) -> Alert | None:
    """Before the API forgets what was paid for."""
    if one.batch.status != "submitted":
        return None
    gone_at = one.since + RESULTS_KEPT
    left_s = (gone_at - now).total_seconds()
    if left_s > days * 86_400:
        return None
    pipeline = one.transform.pipeline
    told = f"in {spoken(left_s)}, at {_at(gone_at)}" if left_s > 0 else f"since {_at(gone_at)}"
    return _of_batch(
        "expiring",
        one,
        "failure",
        "results are about to be lost" if left_s > 0 else "results may be lost",
        f"Its results are not collected, and the API keeps them no longer than 29 days: they are "
        f"gone {told}. What they cost is paid already.",
        f"Next: materialize {pipeline} now, which collects them"
        + ("." if left_s > 0 else f"; if they are gone, `batch-etl resolve {one.batch.id}`."),
        suffix="results",
    )


def _of_batch(
    kind: str,
    one: OpenBatch,
    level: Level,
    title: str,
    *lines: str,
    suffix: str = "",
) -> Alert:
    row, batch = one.transform, one.batch
    where = (
        f"Where: pipeline {_where(row)}, batch {batch.batch_id or batch.id}, "
        f"{batch.requests:,} requests to {batch.claude_model}."
    )
    identity = f"{batch.id}:{suffix}" if suffix else batch.id
    what, next_step = lines
    return _alert(kind, identity, level, f"{row.pipeline}: {title}", what, where, next_step)


# finished transforms ------------------------------------------------------------------------------


def failure_rate(
    row: TransformRow, earlier: Sequence[TransformRow], alerts: Alerts
) -> Alert | None:
    """A share of records in review above the limit, or far above that of earlier transforms."""
    records, review = row.counts.get("records", 0), review_of(row)
    if records < _ENOUGH_RECORDS or not review:
        return None
    share = review / records
    why = ""
    if share > alerts.max_review_share:
        why = f"at most {alerts.max_review_share:.1%} are wanted"
    else:
        past = sum(one.counts.get("records", 0) for one in earlier)
        failed = sum(review_of(one) for one in earlier)
        if past >= _ENOUGH_PAST and _far_above(review, records, failed, past, alerts.spike_factor):
            why = f"it was {failed / past:.2%} in the {len(earlier)} before it"
    if not why:
        return None
    kinds = {kind: row.counts.get(kind, 0) for kind in KINDS if kind != "Succeeded"}
    told = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count)
    return _alert(
        "failure_rate",
        f"{row.endpoint}:{row.pipeline}:{_asked(row)}:{review}",
        "failure",
        f"{row.pipeline}: {share:.1%} of the records have no answer",
        f"{review:,} of {records:,} records are in review ({share:.1%}); {why}. {told}.",
        f"Where: pipeline {_where(row)}, transform {row.id}.",
        f"Next: `batch-etl review list {row.pipeline}` shows them with their reasons.",
    )


def _far_above(review: int, records: int, failed: int, past: int, factor: float) -> bool:
    """Whether so many are both ``factor`` times what was usual, and hardly chance."""
    usual = (failed + 1) / (past + 1)
    chance = records * usual + _RARELY * math.sqrt(records * usual * (1 - usual)) + 1
    return review >= factor * usual * records and review > chance


def review_of(row: TransformRow) -> int:
    """A done transform's records that have no answer."""
    return sum(row.counts.get(kind, 0) for kind in KINDS if kind != "Succeeded")


def _asked(row: TransformRow) -> str:
    """The same records and the same task in the same partitions are the same question."""
    parts = (row.scope, row.fingerprint, row.records_digest)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def completion(row: TransformRow, batches: Sequence[BatchRow]) -> Alert:
    records, review = row.counts.get("records", 0), review_of(row)
    costs = [batch.cost_pico_usd for batch in batches if batch.status == "collected"]
    known = [cost for cost in costs if cost is not None]
    cost = money(sum(known), row.endpoint) if len(known) == len(costs) else "an unknown amount"
    took_s = (row.updated_at - row.created_at).total_seconds()
    return _alert(
        "completion",
        row.id,
        "info",
        f"{row.pipeline} is done",
        f"{records:,} records: {records - review:,} answered, {review:,} in review; "
        f"{len(costs)} batch(es), {cost}, {spoken(took_s)}.",
        f"Where: pipeline {_where(row)}, transform {row.id}.",
        f"Next: the table {row.pipeline}/table is loaded by the same run; "
        + (f"`batch-etl review list {row.pipeline}`." if review else "nothing to do."),
    )


# budgets ------------------------------------------------------------------------------------------


def budget(standing: Standing, endpoint: str, share: float, now: dt.datetime) -> Alert | None:
    limit = standing.limit
    committed = standing.spent_pico_usd + standing.reserved_pico_usd
    used = committed / limit.pico_usd
    if used < share:
        return None
    whose = "all pipelines" if limit.pipeline is None else f"pipeline {limit.pipeline}"
    day = f"{now:%Y-%m-%d}" if limit.period == "day" else ""
    until = " until midnight UTC" if limit.period == "day" else ""
    spent, reserved = standing.spent_pico_usd, standing.reserved_pico_usd
    return _alert(
        "budget",
        f"{endpoint}:{limit.pipeline or '*'}:{limit.name}:{limit.pico_usd}:{share:g}:{day}",
        "warning",
        f"{whose}: {used:.0%} of {limit.name} is committed",
        f"{money(spent, endpoint)} are spent and {dollars(reserved)} reserved, of "
        f"{dollars(limit.pico_usd)}{f' for {day}' if day else ''}. Over it nothing is sent{until}.",
        f"Where: {whose}, endpoint {_plain(endpoint)}.",
        f"Next: raise {limit.name}, or send less; `batch-etl explain` tells what a run would cost.",
    )


# words --------------------------------------------------------------------------------------------


def money(pico_usd: int, endpoint: str) -> str:
    """Dollars, called emulated where they are."""
    return f"{dollars(pico_usd)}{' (emulated: would have cost)' if endpoint == 'emulator' else ''}"


def _alert(kind: str, of: str, level: Level, title: str, *lines: str) -> Alert:
    return Alert(f"{kind}:{of}", kind, level, title, "\n".join(lines))


def _where(row: TransformRow) -> str:
    return f"{row.pipeline}{_partitions(row.scope)}, endpoint {_plain(row.endpoint)}"


def _partitions(scope: Sequence[str | None]) -> str:
    keys = [_plain(key) for key in scope if key is not None]
    if not keys:
        return ""
    return (
        f", partition {keys[0]}"
        if len(keys) == 1
        else (f", {len(keys)} partitions ({keys[0]} to {keys[-1]})")
    )


def _at(time: dt.datetime) -> str:
    return f"{time.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC"


def _plain(text: str) -> str:
    """A name that others chose, on one line and short."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"


_ICONS: Mapping[Level, str] = {"failure": "FAILED", "warning": "WARNING", "info": "INFO"}


def together(alerts: Sequence[Alert], where: str) -> tuple[str, str]:
    """Title and text of one message that tells of several alerts, the gravest first."""
    ordered = sorted(alerts, key=lambda one: list(_ICONS).index(one.level))
    if len(ordered) == 1:
        title = f"batch_etl: {ordered[0].title}"
        text = ordered[0].message
    else:
        title = f"batch_etl: {len(ordered)} alerts, first {ordered[0].title}"
        text = "\n\n".join(f"{_ICONS[one.level]} {one.title}\n{one.message}" for one in ordered)
    return title, f"{text}\n\n{where}"


def gravest(alerts: Sequence[Alert]) -> Level:
    return min((one.level for one in alerts), key=list(_ICONS).index)
