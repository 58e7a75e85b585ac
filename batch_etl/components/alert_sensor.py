"""The sensor that looks for what is worth an alert, and sends it.

Each tick: look, note what is new in the ledger, send what is due (``batches.alerts`` says how each
event is told once). A tick where nothing has happened costs a few queries: of Dagster, which runs
have failed since the tick before; of the ledger, which batches are open, and what has finished. The
budgets, whose sums are over all batches, are looked at when something has changed. The API is not
asked.

The cursor holds the time of the last whole look, and the ledger's last event then. A sensor that
has never looked begins an hour ago: what is older is no news.
"""

from __future__ import annotations

import datetime as dt
import json
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg
from dagster import DagsterEventType

from batch_etl.batches import alerts as outbox
from batch_etl.batches import attention
from batch_etl.batches.alerts import Alert
from batch_etl.batches.budget import Budget, Limit, day_budget, limits
from batch_etl.batches.ledger import Ledger
from batch_etl.components import alert_events as events
from batch_etl.components.alert_events import FailedRun
from batch_etl.components.alert_urls import Place, places, send, service
from batch_etl.components.alerts import Alerts
from batch_etl.components.deferred import RANGE_TAGS, TRANSFORM_TAG, WAITING
from batch_etl.components.steps import LOADED
from batch_etl.environment import ALERTS_SETTING
from batch_etl.errors import ConfigError
from batch_etl.resources import EndpointResource, LedgerResource, StorageResource
from batch_etl.strict import did_you_mean

_FIRST_LOOK = dt.timedelta(hours=1)
_LONGEST_LOOK = dt.timedelta(days=7)
_OVERLAP = dt.timedelta(minutes=5)
"""Clocks differ, and a row is written a little after the time it tells."""

_SENDING_S = 20.0
"""After so long a tick begins to send nothing more: Dagster ends it after 60 seconds."""

_ALERTS_PER_MESSAGE = 10
_RUNS_PER_LOOK = 200
_WILL_RETRY = "dagster/will_retry"
_SENSOR_NAME = "dagster/sensor_name"
_WRAPPERS = ("Failure", "DagsterExecutionStepExecutionError")
"""What Dagster, and our steps, put around the error that was raised."""


@dataclass(frozen=True)
class Cursor:
    """When the last whole look was, the ledger's last event then, and since the look before."""

    at: dt.datetime | None = None
    event: int = -1
    settled: bool = False
    """Nothing had changed since the look before. Events are numbered before they are committed, so
    that one may show late, behind another."""

    @classmethod
    def read(cls, text: str | None) -> Cursor:
        """The cursor as Dagster keeps it; one that cannot be read is as none."""
        try:
            values = json.loads(text or "")
            at = dt.datetime.fromisoformat(values["at"])
            return cls(at, int(values["event"]), bool(values["settled"]))
        except (ValueError, KeyError, TypeError):
            return cls()

    def write(self) -> str:
        at = self.at.isoformat() if self.at else None
        return json.dumps({"at": at, "event": self.event, "settled": self.settled})

    def since(self, now: dt.datetime) -> dt.datetime:
        """From when on something is news."""
        if self.at is None:
            return now - _FIRST_LOOK
        return max(self.at - _OVERLAP, now - _LONGEST_LOOK)


@dataclass(frozen=True)
class Watch:
    """What one tick looks at: the pipelines of the code location, and the thresholds."""

    alerts: Alerts
    pipelines: frozenset[str]
    budgets: Mapping[str, Budget | None]
    day_usd: str | None
    endpoint: str | None
    """Whose budgets are looked at; None: no endpoint is chosen."""

    def look(
        self, ledger: Ledger, instance: dg.DagsterInstance, cursor: Cursor, now: dt.datetime
    ) -> tuple[list[Alert], Cursor]:
        """All that is worth an alert now, and from where on the next look goes on."""
        last, since = attention.last_event(ledger), cursor.since(now)
        found = [*self._runs(instance, since), *self._batches(ledger, now)]
        found += self._finished(ledger, since)
        new_day = cursor.at is None or cursor.at.date() != now.date()
        same = last == cursor.event
        if new_day or not same or not cursor.settled:
            found += self._budgets(ledger, now)
        return [one for one in found if self._wanted(one)], Cursor(now, last, same)

    def _wanted(self, alert: Alert) -> bool:
        return alert.kind == "completion" or alert.kind in self.alerts.kinds

    def _runs(self, instance: dg.DagsterInstance, since: dt.datetime) -> Iterator[Alert]:
        if "failed_run" not in self.alerts.kinds:
            return
        failures = [dg.DagsterRunStatus.FAILURE]
        wanted = dg.RunsFilter(statuses=failures, updated_after=since)
        for record in instance.get_run_records(wanted, limit=_RUNS_PER_LOOK):
            run = record.dagster_run
            mine = self.pipelines & _pipelines_of(instance, run)
            if mine and run.tags.get(_WILL_RETRY) != "true":
                yield events.failed_run(_failed(instance, run, mine))

    def _batches(self, ledger: Ledger, now: dt.datetime) -> Iterator[Alert]:
        took: dict[tuple[str, str], Sequence[float]] = {}
        for one in attention.open_batches(ledger, self.pipelines):
            key = (one.transform.pipeline, one.batch.endpoint)
            if key not in took:
                took[key] = attention.took_s(ledger, *key)
            found = (
                events.slow_batch(one, took[key], self.alerts.slow_factor, now),
                events.stuck_batch(one, self.alerts.stuck_hours, now),
                events.expiring_batch(one, self.alerts.expiring_hours, now),
                events.vanishing_results(one, self.alerts.results_days, now),
            )
            yield from (alert for alert in found if alert is not None)

    def _finished(self, ledger: Ledger, since: dt.datetime) -> Iterator[Alert]:
        for row in attention.finished(ledger, self.pipelines, since):
            if "failure_rate" in self.alerts.kinds:
                alert = events.failure_rate(row, attention.before(ledger, row), self.alerts)
                if alert is not None:
                    yield alert
            if self.alerts.completes(row.pipeline):
                yield events.completion(row, ledger.batches(transform_id=row.id))

    def _budgets(self, ledger: Ledger, now: dt.datetime) -> Iterator[Alert]:
        if self.endpoint is None or "budget" not in self.alerts.kinds:
            return
        held = {
            (limit.pipeline, limit.name): limit
            for name in sorted(self.pipelines)
            for limit in limits(name, self.budgets.get(name), day_budget(self.day_usd))
            if limit.period != "run"
        }
        asked: list[Limit] = list(held.values())
        for standing in ledger.standings(self.endpoint, asked) if asked else ():
            alert = events.budget(standing, self.endpoint, self.alerts.budget_share, now)
            if alert is not None:
                yield alert


def alerts_sensor(alerts: Alerts, urls: Sequence[str]) -> dg.SensorDefinition:
    """The sensor; it runs from the start where there are URLs to send to."""
    told = places(urls)

    @dg.sensor(
        name="alerts",
        minimum_interval_seconds=alerts.interval_s,
        default_status=(dg.DefaultSensorStatus.RUNNING if told else dg.DefaultSensorStatus.STOPPED),
        description=f"Tells of failures, delays and budgets, once each ({ALERTS_SETTING}).",
    )
    def alerts_(
        context: dg.SensorEvaluationContext,
        storage: StorageResource,
        ledger: LedgerResource,
        endpoint: EndpointResource,
    ) -> dg.SkipReason:
        if not told:
            return dg.SkipReason(f"{ALERTS_SETTING} names no URL to send alerts to")
        watch = _watch(context, alerts, ledger, endpoint)
        home, now = storage.at(), dt.datetime.now(dt.UTC)
        where = f"batch_etl on {socket.gethostname()}, {home.root}"
        with ledger.open(home) as opened:
            cursor = Cursor.read(context.cursor)
            found, after = watch.look(opened, context.instance, cursor, now)
            new = outbox.note(opened, found, [place.digest for place in told])
            context.update_cursor(after.write())
            report = deliver(opened, told, where)
        trouble = [*_unknown(alerts, watch.pipelines), *report.trouble]
        for line in trouble:
            context.log.warning(line)
        return dg.SkipReason("; ".join([f"{new} new, {report.sent} sent", *trouble]))

    return alerts_


def _watch(
    context: dg.SensorEvaluationContext,
    alerts: Alerts,
    ledger: LedgerResource,
    endpoint: EndpointResource,
) -> Watch:
    pipelines = _pipelines(context)
    try:
        name = endpoint.name()
    except ConfigError:
        name = None
    loaded = {one: LOADED.get(one) for one in pipelines}
    budgets = {one: pipeline.budget if pipeline else None for one, pipeline in loaded.items()}
    return Watch(alerts, pipelines, budgets, ledger.budget_day_usd, name)


def _unknown(alerts: Alerts, pipelines: frozenset[str]) -> Iterator[str]:
    """A wrong name is told of, and keeps no other alert back."""
    for name in () if alerts.completion == "all" else alerts.completion:
        if name not in pipelines:
            near = did_you_mean(name, [*pipelines])
            yield f"alerts.completion: there is no pipeline {name!r}{near}"


def _pipelines(context: dg.SensorEvaluationContext) -> frozenset[str]:
    """Those of the sensor's code location."""
    assert context.repository_def is not None  # noqa: S101  Dagster sets it for every tick
    return frozenset(
        spec.key.path[0]
        for definition in context.repository_def.assets_defs_by_key.values()
        for spec in definition.specs
        if WAITING in spec.metadata
    )


# runs ---------------------------------------------------------------------------------------------


def _pipelines_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> frozenset[str]:
    """Whose assets a run was to make; of other assets, the first part of their keys."""
    keys = run.asset_selection
    if not keys:
        planned = DagsterEventType.ASSET_MATERIALIZATION_PLANNED
        records = instance.get_records_for_run(run.run_id, of_type=planned).records
        keys = {
            event.asset_key
            for record in records
            if (event := record.event_log_entry.dagster_event) is not None
            if event.asset_key is not None
        }
    return frozenset(key.path[0] for key in keys)


def _failed(instance: dg.DagsterInstance, run: dg.DagsterRun, mine: frozenset[str]) -> FailedRun:
    return FailedRun(
        run.run_id,
        tuple(sorted(mine)),
        _partitions(run.tags),
        tuple(_failures(instance, run.run_id)),
        _asked_for(run.tags),
    )


def _asked_for(tags: Mapping[str, str]) -> str | None:
    """A deferred run that fails is asked for again; it is told of once a day."""
    transform = tags.get(TRANSFORM_TAG)
    if transform is None or tags.get(_SENSOR_NAME) != "deferred_results":
        return None
    return f"{transform}:{dt.datetime.now(dt.UTC):%Y-%m-%d}"


def _partitions(tags: Mapping[str, str]) -> str | None:
    first, last = (tags.get(name) for name in RANGE_TAGS)
    if first and last and first != last:
        return f"{first} to {last}"
    return first or tags.get("dagster/partition")


def _failures(instance: dg.DagsterInstance, run_id: str) -> Iterator[str]:
    """Which steps failed, and the name of what was raised, never its words."""
    found = instance.get_records_for_run(run_id, of_type=DagsterEventType.STEP_FAILURE).records
    for record in found[:3]:
        event = record.event_log_entry.dagster_event
        if event is None or not event.is_step_failure:
            continue
        error = event.step_failure_data.error
        while error is not None and error.cause is not None and error.cls_name in _WRAPPERS:
            error = error.cause
        yield f"{event.step_key}: {error.cls_name if error and error.cls_name else 'failed'}"


# sending ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Delivery:
    """How many alerts were sent, and what is wrong with the others."""

    sent: int
    trouble: tuple[str, ...]


def deliver(ledger: Ledger, told: Sequence[Place], where: str) -> Delivery:
    """Send all that is due, for as long as a tick may take; alerts that wait go as one message."""
    began = time.monotonic()
    sent, trouble = 0, list(_abandoned(ledger, told))
    for place in told:
        while time.monotonic() - began < _SENDING_S:
            claimed = outbox.claim(ledger, place.digest, _ALERTS_PER_MESSAGE)
            if not claimed:
                break
            title, text = events.together(claimed, where)
            outcome = send(place, title, text, events.gravest(claimed))
            outbox.settle(ledger, place.digest, claimed, outcome or "refused")
            sent += len(claimed) if outcome == "sent" else 0
            if outcome != "sent":
                trouble.append(_told(place, outcome, len(claimed)))
                break
    return Delivery(sent, tuple(trouble))


def _abandoned(ledger: Ledger, told: Sequence[Place]) -> Iterator[str]:
    names = {place.digest: place.name for place in told}
    for digest, alert in outbox.abandoned(ledger, names):
        yield (
            f"a process ended while it sent {alert.title!r} to {names[digest]}; it may or may not "
            "have arrived, and is not sent again"
        )


def _told(place: Place, outcome: outbox.Outcome | None, alerts: int) -> str:
    if outcome is None:
        return (
            f"{place.name} is none that apprise can use; correct it (`batch-etl doctor` checks it)"
        )
    what = f"{alerts} alert(s) to {place.name} ({service(place)})"
    if outcome == "unsure":
        return f"{what}: no answer; they may have arrived, and are not sent again"
    return f"{what} were refused, or it could not be reached; they are sent again later"
