"""The views of what was sent to one endpoint: batches, transforms, their cost by day. Pure.

They show the ledger's history (``history``), joined, in seconds and dollars.
"""

from __future__ import annotations

from batch_etl.warehouse.bookkeeping import SCHEMA
from batch_etl.warehouse.sql import literal
from batch_etl.warehouse.view import View, ViewColumn


def history_views(endpoint: str) -> tuple[View, ...]:
    """What was sent to one endpoint: batches, transforms, and their cost by day."""
    return _batches(endpoint), _transforms(endpoint), _cost_by_day(endpoint)


def _cost_says(endpoint: str) -> str:
    if endpoint == "emulator":
        return "Dollars that it would have cost at the batch price: the emulator is free."
    return "Dollars paid, at the batch price; NULL if a price is not known."


_JOINED = (
    f"FROM {SCHEMA}.batches b JOIN {SCHEMA}.transforms t ON t.id = b.transform_id "
    "WHERE b.endpoint = {0}"
)
_COUNTS = "TRY_CAST({0}::JSON AS MAP(VARCHAR, BIGINT))"


_OF_TRANSFORMS = (
    "SELECT transform_id, count(submitted_at) AS batches, "
    "(sum(requests) FILTER (submitted_at IS NOT NULL AND attempt = 1))::BIGINT AS sent, "
    "CASE WHEN NOT bool_or(status = 'collected' AND cost_usd IS NULL) "
    "THEN coalesce(sum(cost_usd) FILTER (status = 'collected'), 0) END AS cost_usd "
    f"FROM {SCHEMA}.batches GROUP BY transform_id"
)
"""SQL: what each transform sent and what that cost: NULL where a collected batch has no price."""


def _seconds(since: str, until: str) -> str:
    return f"round(epoch({until}) - epoch({since}), 3)"


def _batches(endpoint: str) -> View:
    def same(name: str, says: str) -> ViewColumn:
        return ViewColumn(name, f"b.{name}", says)

    return View(
        "batches",
        "Every Message Batch: what it carried, how long it took, how its requests ended, what it "
        "cost. As of the last load.",
        (
            same("batch_id", "The API's name of the batch; NULL if it was not sent yet."),
            ViewColumn("pipeline", "t.pipeline", "Pipeline that sent it."),
            ViewColumn("model", "b.claude_model", "Model that was asked."),
            same("endpoint", "Endpoint that it was sent to."),
            same(
                "status",
                "planned, submitting, submitted, collected; dropped: not sent, or given up and its "
                "requests asked again; lost: given up, its requests are Missing.",
            ),
            same("attempt", "Attempt that its requests are: 1, 2, 3."),
            same("requests", "Requests in it."),
            same("payload_bytes", "Size of the call that created it."),
            ViewColumn("outcomes", _COUNTS.format("b.outcomes"), "How many requests ended how."),
            ViewColumn(
                "succeeded",
                f"coalesce({_COUNTS.format('b.outcomes')}['Succeeded'], "
                "CASE WHEN b.outcomes IS NOT NULL THEN 0 END)",
                "Requests with a usable answer.",
            ),
            same("submitted_at", "When the API took it (UTC)."),
            same("ended_at", "When the API had ended it (UTC)."),
            same("collected_at", "When its results were here (UTC)."),
            ViewColumn(
                "processing_s",
                _seconds("b.submitted_at", "b.ended_at"),
                "Seconds that the API took for it.",
            ),
            ViewColumn(
                "total_s",
                _seconds("b.planned_at", "b.collected_at"),
                "Seconds from planning it to having its results.",
            ),
            same("input_tokens", "Input tokens billed at the full input price."),
            same("output_tokens", "Output tokens billed."),
            same("cache_read_tokens", "Input tokens read from the cache."),
            same("cache_write_tokens", "Input tokens written to the cache."),
            same("cost_usd", _cost_says(endpoint)),
            same("standard_cost_usd", "What single calls would have cost."),
            ViewColumn("task_version", "t.task_version", "As `_task_version` in the tables."),
            ViewColumn("transform", "b.transform_id", "The transform it belongs to."),
        ),
        _JOINED.format(literal(endpoint)),
    )


def _transforms(endpoint: str) -> View:
    def same(name: str, says: str) -> ViewColumn:
        return ViewColumn(name, f"t.{name}", says)

    def count(name: str, says: str) -> ViewColumn:
        return ViewColumn(name, f"{_COUNTS.format('t.counts')}[{literal(name)}]", says)

    return View(
        "transforms",
        "Every transform: one task applied to the records of some partitions. As of the last load.",
        (
            ViewColumn("transform", "t.id", "Its id."),
            same("pipeline", "Pipeline."),
            same("endpoint", "Endpoint that was asked."),
            same(
                "partitions",
                "Partition keys; empty if the pipeline has none. Of a requeue: `review requeue`, a "
                "digest of what it asks, and the key.",
            ),
            same("task_version", "As `_task_version` in the tables."),
            same("status", "planning, open, done, or superseded: cancelled, or by a changed task."),
            count("records", "Records in its partitions."),
            ViewColumn("sent", "coalesce(b.sent, 0)", "Requests that it sent, as first attempts."),
            count("reused", "Records whose answer had been bought before."),
            ViewColumn("batches", "coalesce(b.batches, 0)", "Batches that it sent."),
            ViewColumn(
                "cost_usd",
                "CASE WHEN b.transform_id IS NULL THEN 0 ELSE b.cost_usd END",
                _cost_says(endpoint),
            ),
            same("created_at", "When it began (UTC)."),
            same("updated_at", "When its status last changed (UTC)."),
            ViewColumn(
                "duration_s",
                f"CASE WHEN t.status IN ('done', 'superseded') THEN "
                f"{_seconds('t.created_at', 't.updated_at')} END",
                "Seconds from its beginning to its end.",
            ),
        ),
        f"FROM {SCHEMA}.transforms t LEFT JOIN ({_OF_TRANSFORMS}) b "
        f"ON b.transform_id = t.id WHERE t.endpoint = {literal(endpoint)}",
    )


def _sum(column: str) -> str:
    """SQL: a sum that is NULL where one amount is not known."""
    return f"CASE WHEN count({column}) = count(*) THEN sum({column}) END"


def _cost_by_day(endpoint: str) -> View:
    def total(name: str, says: str) -> ViewColumn:
        return ViewColumn(name, f"sum(b.{name})::BIGINT", says)

    return View(
        "cost_by_day",
        "Cost by day, pipeline, model and endpoint, of the batches whose results are here.",
        (
            ViewColumn("day", "_day", "Day (UTC) on which the batches ended."),
            ViewColumn("pipeline", "t.pipeline", "Pipeline."),
            ViewColumn("model", "b.claude_model", "Model that was asked."),
            ViewColumn("endpoint", "b.endpoint", "Endpoint that was asked."),
            ViewColumn("batches", "count(*)", "Batches."),
            total("requests", "Requests."),
            total("input_tokens", "Input tokens billed at the full input price."),
            total("output_tokens", "Output tokens billed."),
            total("cache_read_tokens", "Input tokens read from the cache."),
            total("cache_write_tokens", "Input tokens written to the cache."),
            ViewColumn("cost_usd", _sum("b.cost_usd"), _cost_says(endpoint)),
            ViewColumn(
                "standard_cost_usd", _sum("b.standard_cost_usd"), "What single calls would cost."
            ),
        ),
        f"FROM (SELECT *, (coalesce(ended_at, collected_at) AT TIME ZONE 'UTC')::DATE AS _day "
        f"FROM {SCHEMA}.batches WHERE collected_at IS NOT NULL "
        f"AND endpoint = {literal(endpoint)}) b "
        f"JOIN {SCHEMA}.transforms t ON t.id = b.transform_id GROUP BY ALL",
    )
