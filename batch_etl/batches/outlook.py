"""The outlook: what advancing a transform would do and cost, told without doing any of it.

The same pass over the records as planning makes (``plan.measure``), the same reuse, the same
estimate and the same budgets; nothing is written, and nothing is asked of the API but to count
tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from batch_etl.batches.budget import Reservation, Standing, overdrawn, refusal
from batch_etl.batches.changes import Compared, Earlier, asked_before, id_hashes, task_changes
from batch_etl.batches.elsewhere import Elsewhere
from batch_etl.batches.estimate import Estimate
from batch_etl.batches.exchange import Exchange
from batch_etl.batches.keys import KeySet, halves
from batch_etl.batches.ledger import TransformRow
from batch_etl.batches.lifecycle import OPEN_BATCH
from batch_etl.batches.manifest import manifest_keys
from batch_etl.batches.plan import Measured, measure
from batch_etl.batches.request import Rendered
from batch_etl.batches.retry import Policy
from batch_etl.batches.spending import Spending
from batch_etl.batches.transform import Transform

_RECENT_TRANSFORMS = 200

Fate = Literal["continued", "collected first", "cancelled first"]
"""What a run would do with an open transform: the same one, one of other records or partitions, or
one whose task was another."""


@dataclass(frozen=True)
class OpenTransform:
    """A transform of the pipeline that is not done, over some of the same partitions."""

    row: TransformRow
    fate: Fate
    requests: int
    """In batches that are open."""


@dataclass(frozen=True)
class Outlook:
    """What would be sent, why, and at what price."""

    endpoint: str
    measured: Measured
    compared: Compared
    last: TransformRow | None
    """The transform with whose task this one's is compared."""
    task_changes: tuple[str, ...]
    open: tuple[OpenTransform, ...]
    estimate: Estimate
    budgets: tuple[Standing, ...]
    refusal: str | None
    """How a budget would refuse it."""


def look(exchange: Exchange, transform: Transform, records_digest: str) -> Outlook:
    """Raises ``RenderError`` and ``SourceError`` as a run would."""
    spending = Spending(exchange)
    endpoint = exchange.endpoint.name
    rows = exchange.ledger.transforms(pipeline=transform.pipeline, endpoint=endpoint)
    opened = [_fate(exchange, row, transform, records_digest) for row in rows]
    found = tuple(one for one in opened if one is not None)
    own = next((one.row for one in found if one.fate == "continued"), None)
    measured, compared = _measured(exchange, transform, own)
    estimate = spending.estimate(transform, measured)[1]
    limits = spending.limits(transform)
    budgets = tuple(exchange.ledger.standings(endpoint, limits, own.id if own else None))
    last = asked_before(rows[:_RECENT_TRANSFORMS], transform.scope, own.created_at if own else None)
    changes = task_changes(last.task, transform.task.definition) if last else []
    return Outlook(
        endpoint=endpoint,
        measured=measured,
        compared=compared,
        last=last,
        task_changes=tuple(changes),
        open=found,
        estimate=estimate,
        budgets=budgets,
        refusal=_refusal(transform.pipeline, estimate, budgets),
    )


def _fate(
    exchange: Exchange, row: TransformRow, transform: Transform, records_digest: str
) -> OpenTransform | None:
    if row.status not in ("planning", "open") or not set(row.scope) & set(transform.scope):
        return None
    batches = exchange.ledger.batches(transform_id=row.id, statuses=sorted(OPEN_BATCH))
    requests = sum(batch.requests for batch in batches)
    same_task = row.fingerprint == transform.task.fingerprint
    if same_task and (row.scope, row.records_digest) == (transform.scope, records_digest):
        return OpenTransform(row, "continued", requests)
    return OpenTransform(row, "collected first" if same_task else "cancelled first", requests)


def _measured(
    exchange: Exchange, transform: Transform, own: TransformRow | None
) -> tuple[Measured, Compared]:
    """One pass: what would be sent, and how the records stand to their earlier results."""
    compared = Compared()
    earlier: dict[int, Earlier] = {}
    name = exchange.endpoint.name

    def observe(ordinal: int, rendered: Rendered) -> None:
        if ordinal not in earlier:
            earlier.clear()
            key = transform.scope[ordinal]
            earlier[ordinal] = Earlier(exchange.home.results(name, transform.pipeline, key))
        ids = id_hashes(rendered.record_ids)
        earlier[ordinal].compare(ids, halves(rendered.keys)[0], compared)

    own_id = own.id if own else ""
    answers = exchange.answers(own_id, transform)
    elsewhere = Elsewhere(exchange, own_id, Policy.of(transform.task), answers)
    measured = measure(transform, elsewhere, _in_flight(exchange, own), observe)
    return measured, compared


def _in_flight(exchange: Exchange, own: TransformRow | None) -> KeySet:
    if own is None:
        return KeySet()
    folder = exchange.home.transform(own.id)
    batches = exchange.ledger.batches(transform_id=own.id)
    sent = [batch.id for batch in batches if batch.status != "dropped"]
    return KeySet(halves(manifest_keys(folder, token))[0] for token in sent)


def _refusal(pipeline: str, estimate: Estimate, budgets: tuple[Standing, ...]) -> str | None:
    if not budgets:
        return None
    if estimate.cost_pico_usd is None:
        return f"the price of {estimate.claude_model!r} is not known, so no budget can hold"
    over = overdrawn(budgets, estimate.cost_pico_usd)
    if over is None:
        return None
    limits = tuple(standing.limit for standing in budgets)
    wanted = Reservation(pipeline, estimate.cost_pico_usd, estimate.what, limits)
    return refusal(wanted, over)
