"""Spending: a plan's estimate is reserved before its first batch, and moves to its batches.

    before planning    the records are measured (plan.py), their requests priced (estimate.py) and
                       the whole reserved; a budget that has not so much left refuses it, and
                       nothing is sent
    with each batch    its part moves from the transform to it
    a later attempt    each batch is priced and reserved as it is planned, request by request: a
                       repair or a stronger model costs other than what it follows
    at the end         what is in no batch is given back

Without a budget nothing is measured and nothing counted: a run makes the calls it needs.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec

from batch_etl.batches.budget import Limit, Reservation, limits
from batch_etl.batches.errors import PriceUnknown
from batch_etl.batches.estimate import Estimate, Forecast, Kind, forecast
from batch_etl.batches.exchange import Exchange
from batch_etl.batches.keys import KeySet
from batch_etl.batches.ledger import Lease
from batch_etl.batches.manifest import PlannedBatch
from batch_etl.batches.packing import entries, params_bytes
from batch_etl.batches.plan import Measured, Others, measure
from batch_etl.batches.transform import Transform

_SAMPLE = 20


class Spending:
    """The reservations of one endpoint's transforms."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._ledger = exchange.ledger
        self._endpoint = exchange.endpoint.name
        self._forecasts: dict[str, Forecast] = {}

    def limits(self, transform: Transform) -> tuple[Limit, ...]:
        """The budgets that hold for the transform."""
        return limits(transform.pipeline, transform.budget, self._exchange.day_budget_usd)

    @contextmanager
    def reserving(
        self, lease: Lease, transform: Transform, others: Others, in_flight: KeySet
    ) -> Generator[None]:
        """Reserve what the plan may send, before the body; give back what is left, after it.

        Raises ``BudgetExceeded`` and ``PriceUnknown``.
        """
        held = self.limits(transform)
        if not held:
            yield
            return
        predicted, estimate = self.estimate(transform, measure(transform, others, in_flight))
        self._forecasts[lease.transform_id] = predicted
        reservation = _reservation(transform.pipeline, [estimate], held)
        self._ledger.reserve(lease, self._endpoint, reservation)
        try:
            yield
        finally:
            self._ledger.release_reserved(lease)

    def estimate(self, transform: Transform, measured: Measured) -> tuple[Forecast, Estimate]:
        """What a measured plan costs."""
        task = transform.task
        kind = Kind(
            claude_model=task.claude_model,
            max_tokens=task.max_tokens,
            requests=measured.requests,
            params_bytes=measured.params_bytes,
            largest_bytes=measured.largest_bytes,
            sample=measured.sample,
        )
        predicted = self._forecast(kind, transform)
        return predicted, predicted.of(kind.requests, kind.params_bytes)

    def of_batch(
        self, lease: Lease, transform: Transform, batch: PlannedBatch, attempt: int
    ) -> Reservation | None:
        """A planned batch's part of what is reserved, or its own; None without a budget."""
        held = self.limits(transform)
        if not held:
            return None
        predicted = self._forecasts.get(lease.transform_id)
        if attempt > 1 or predicted is None:
            return _reservation(transform.pipeline, self._one_by_one(transform, batch), held)
        cost = predicted.cost(batch.payload.count, params_bytes(batch.payload))
        if cost is None:
            raise PriceUnknown(transform.pipeline, predicted.claude_model, held[0].name)
        what = predicted.of(batch.payload.count, params_bytes(batch.payload)).what
        return Reservation(transform.pipeline, math.floor(cost), what, held)

    def _one_by_one(self, transform: Transform, batch: PlannedBatch) -> list[Estimate]:
        kinds = _kinds(batch)
        return [self._forecast(k, transform).of(k.requests, k.params_bytes) for k in kinds]

    def _forecast(self, kind: Kind, transform: Transform) -> Forecast:
        own = kind.max_tokens <= transform.task.max_tokens
        model = kind.claude_model
        history = self._ledger.written(transform.pipeline, self._endpoint, model) if own else []
        return forecast(
            kind,
            transform.task,
            client=self._exchange.client,
            prices=self._exchange.prices,
            written=history,
            at=dt.datetime.now(dt.UTC),
        )


def _reservation(
    pipeline: str, estimates: Iterable[Estimate], held: tuple[Limit, ...]
) -> Reservation:
    """Raises ``PriceUnknown``."""
    total, words = 0, list[str]()
    for estimate in estimates:
        if estimate.cost_pico_usd is None:
            raise PriceUnknown(pipeline, estimate.claude_model, held[0].name)
        total += estimate.cost_pico_usd
        words.append(estimate.what)
    return Reservation(pipeline, total, " and ".join(words), held)


# the requests of a payload ----------------------------------------------------------------------


class _Params(msgspec.Struct):
    model: str
    max_tokens: int


@dataclass
class _Pile:
    requests: int = 0
    params_bytes: int = 0
    largest_bytes: int = 0
    sample: list[bytes] = field(default_factory=list[bytes])

    def add(self, params: bytes) -> None:
        self.requests += 1
        self.params_bytes += len(params)
        self.largest_bytes = max(self.largest_bytes, len(params))
        if len(self.sample) < _SAMPLE:
            self.sample.append(params)


def _kinds(batch: PlannedBatch) -> Iterator[Kind]:
    """A batch's requests by what they ask of whom."""
    piles: dict[tuple[str, int], _Pile] = {}
    read = msgspec.json.Decoder(_Params)
    for params in entries(batch.payload):
        asked = read.decode(params)
        piles.setdefault((asked.model, asked.max_tokens), _Pile()).add(params)
    for (model, max_tokens), pile in sorted(piles.items()):
        yield Kind(
            model, max_tokens, pile.requests, pile.params_bytes, pile.largest_bytes, pile.sample
        )
