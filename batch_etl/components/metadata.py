"""What Dagster shows of a materialization: the standard keys, and the facts people look for."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import dagster as dg

from batch_etl.batches.finish import PartitionResult
from batch_etl.batches.pricing import usd
from batch_etl.batches.runner import Summary
from batch_etl.batches.task import Task
from batch_etl.files import Home
from batch_etl.sources import Extracted
from batch_etl.warehouse import LoadReport, PartitionReport

_COUNTS = ("records", "sent", "reused", "shared", "unsendable")


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
        "batches": len(summary.batches),
        "batch_list": dg.MetadataValue.md(_batch_list(summary)),
        "cost_usd": _money(summary.cost_pico_usd),
        "cost_usd_at_standard_price": _money(summary.standard_pico_usd),
        "cost_is": "emulated: would have cost" if endpoint == "emulator" else "billed",
        "input_tokens": sum(batch.input_tokens or 0 for batch in summary.batches),
        "output_tokens": sum(batch.output_tokens or 0 for batch in summary.batches),
    }
    return {f"transform/{name}": fact for name, fact in facts.items()}


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
