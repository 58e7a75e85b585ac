"""What Dagster shows of a materialization: the standard keys, and the facts people look for."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import dagster as dg

from batch_etl.batches.finish import PartitionResult
from batch_etl.batches.pricing import usd
from batch_etl.batches.runner import Summary
from batch_etl.batches.tables import hit_rate
from batch_etl.batches.task import Task
from batch_etl.components.verdicts import latency_hours
from batch_etl.files import Home
from batch_etl.sources import Extracted
from batch_etl.warehouse import LoadReport, PartitionReport

_COUNTS = (
    *("records", "new", "changed", "sent", "reused", "shared", "unsendable"),
    *("resumed", "again", "repaired", "more_tokens", "stronger_model"),
)


def of_records(extracted: Extracted) -> dict[str, Any]:
    columns = [
        dg.TableColumn(field.name, str(field.type), constraints=_constraints(field.nullable))
        for field in extracted.schema
    ]
    return {
        "dagster/row_count": extracted.rows,
        "dagster/uri": str(extracted.path),
        "dagster/column_schema": dg.TableSchema(columns=columns),
        "size_bytes": extracted.size_bytes,
        "duplicates_dropped": extracted.duplicates_dropped,
    }


def _constraints(nullable: bool) -> dg.TableColumnConstraints:
    return dg.TableColumnConstraints(nullable=nullable)


def of_partition(result: PartitionResult, endpoint: str, task: Task) -> dict[str, Any]:
    answered = result.outcomes.get("Succeeded", 0)
    return {
        "dagster/row_count": result.records,
        "dagster/uri": str(result.path),
        "answered": answered,
        "review": result.records - answered,
        "outcomes": result.outcomes,
        "cost_usd": _money(result.cost_pico_usd),
        "endpoint": endpoint,
        "claude_model": task.claude_model,
        "task_version": task.version,
    }


def of_transform(summary: Summary, endpoint: str) -> dict[str, Any]:
    """What the run's whole transform came to, the same on each of its partitions.

    Money is of the batches that this transform itself sent: what was reused was paid before.
    """
    facts = {
        "id": summary.transform_id,
        **{name: summary.counts.get(name, 0) for name in _COUNTS},
        "retried": sum(batch.requests for batch in summary.batches if batch.attempt > 1),
        "task_changes": dg.MetadataValue.md(_listed(summary.task_changes)),
        "batches": len(summary.batches),
        "batch_list": dg.MetadataValue.md(_batch_list(summary)),
        "cost_usd": _money(summary.cost_pico_usd),
        "cost_usd_at_standard_price": _money(summary.standard_pico_usd),
        "cost_is": "emulated: would have cost" if endpoint == "emulator" else "billed",
        "input_tokens": sum(batch.input_tokens or 0 for batch in summary.batches),
        "output_tokens": sum(batch.output_tokens or 0 for batch in summary.batches),
        "cache_read_tokens": sum(batch.cache_read_tokens or 0 for batch in summary.batches),
        "cache_write_tokens": sum(batch.cache_write_tokens or 0 for batch in summary.batches),
        "cache_hit_rate": hit_rate(summary.batches) or 0.0,
        "latency_hours": round(latency_hours(summary.batches) or 0.0, 4),
        **_reserved(summary),
    }
    return {f"transform/{name}": fact for name, fact in facts.items()}


def of_reuse(cost_usd: Decimal | None) -> dict[str, Any]:
    """What the answers that were reused had cost this pipeline when it bought them."""
    unknown = dg.MetadataValue.text("unknown: no price for a model")
    saved = unknown if cost_usd is None else dg.MetadataValue.float(float(cost_usd))
    return {"transform/saved_by_reuse_usd": saved}


def of_sample(markdown: str | None) -> dict[str, Any]:
    return {"sample": dg.MetadataValue.md(markdown)} if markdown else {}


def _listed(changes: Sequence[str]) -> str:
    return "\n".join(f"- {change}".replace("\n", "\n  ") for change in changes) or "none"


def _reserved(summary: Summary) -> dict[str, Any]:
    """What the budgets had set aside for the batches, to be compared with what they cost."""
    reserved = [batch.reserved_pico_usd for batch in summary.batches]
    known = [amount for amount in reserved if amount is not None]
    return {"reserved_usd": _money(sum(known))} if known else {}


def _batch_list(summary: Summary) -> str:
    if not summary.batches:
        return "none: every record was answered before"
    table = ["| batch | attempt | requests | cost |", "|---|---|---|---|"]
    for batch in summary.batches:
        cells = (
            f"`{batch.batch_id}`",
            batch.attempt,
            batch.requests,
            _dollars(batch.cost_pico_usd),
        )
        table.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(table)


def _dollars(pico_usd: int | None) -> str:
    return "unknown" if pico_usd is None else f"${usd(pico_usd):,.6f}"


def _money(pico_usd: int | None) -> dg.MetadataValue[Any]:
    """Dollars as a number that Dagster can plot; the exact amount is in the ledger."""
    if pico_usd is None:
        return dg.MetadataValue.text("unknown: no price for this model")
    return dg.MetadataValue.float(float(Decimal(usd(pico_usd))))


def of_loaded(partition: PartitionReport) -> dict[str, Any]:
    return {
        "dagster/partition_row_count": partition.rows,
        "unchanged": partition.unchanged,
        "decided": partition.decided,
    }


def of_table(report: LoadReport, home: Home) -> dict[str, Any]:
    columns = [
        dg.TableColumn(column.name, column.type, description=column.description)
        for column in report.table.columns
    ]
    return {
        "dagster/row_count": report.table.rows,
        "dagster/table_name": report.table.qualified_name,
        "dagster/uri": f"{home.warehouse}",
        "dagster/column_schema": dg.TableSchema(columns=columns),
        "unchanged": report.unchanged,
        "schema_changes": dg.MetadataValue.md(
            "\n".join(f"- {change}" for change in report.changes) or "none"
        ),
    }
