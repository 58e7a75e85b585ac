"""``batch-etl review``: look at the review queue, export it, and apply what a person decided.

``apply`` takes all filled lines of a sheet or none: every line is judged first (``review_judge``),
and each wrong line is named.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from batch_etl.commands.review_judge import Judged, Sheet
from batch_etl.commands.review_sheet import read_sheet, write_sheet
from batch_etl.commands.tables import all_tables, table_named, warehouse_at
from batch_etl.errors import BatchEtlError
from batch_etl.warehouse import LoadedTable, standings
from batch_etl.warehouse.review import Queue, columns_of, counted, rows_of

_PROBLEMS_SHOWN = 20
_REASON_SHOWN = 100


def list_queue(
    home: Path | None, pipeline: str | None, endpoint: str | None, limit: int, *, as_json: bool
) -> None:
    """Print how much is in review, and of one pipeline the first records."""
    warehouse, settings = warehouse_at(home)
    with warehouse.read_only() as connection:
        if pipeline is None:
            found = [(t, counted(connection, t)) for t in all_tables(connection, endpoint)]
            records: list[dict[str, Any]] = []
        else:
            table = table_named(connection, pipeline, endpoint, settings)
            found = [(table, counted(connection, table))]
            names = [column.name for column in columns_of(table)]
            rows = rows_of(connection, table, decided=False, limit=limit)
            records = [dict(zip(names, row, strict=True)) for row in rows]
    if as_json:
        listed = [_described(table, queue) for table, queue in found]
        click.echo(json.dumps(listed if pipeline is None else {**listed[0], "first": records}))
        return
    for table, queue in found:
        click.echo(_sentence(table, queue))
        for record in records:
            click.echo(_record(table, record))


def _described(table: LoadedTable, queue: Queue) -> dict[str, Any]:
    return {
        "pipeline": table.pipeline,
        "endpoint": table.endpoint,
        "table": table.qualified_name,
        "records": queue.rows,
        "review": queue.open,
        "outcomes": queue.outcomes,
        "decided": queue.decided,
    }


def _sentence(table: LoadedTable, queue: Queue) -> str:
    outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in queue.outcomes.items())
    decided = f"; {queue.decided:,} decided" if queue.decided else ""
    why = f" ({outcomes})" if outcomes else ""
    return f"{table.qualified_name}: {queue.open:,} of {queue.rows:,} in review{why}{decided}"


def _record(table: LoadedTable, record: dict[str, Any]) -> str:
    reason = "".join(c if c.isprintable() else " " for c in record["_reason"] or "")
    shown = reason if len(reason) <= _REASON_SHOWN else f"{reason[:_REASON_SHOWN]}..."
    where = f" {record['_partition']}" if record["_partition"] else ""
    return f"  {record[table.id_column.name]}{where}  {record['_outcome']}: {shown}"


def export_queue(
    home: Path | None, pipeline: str, to: Path, endpoint: str | None, *, decided: bool
) -> None:
    """Write the queue as a sheet to fill in."""
    if to.suffix.casefold() != ".csv":
        raise BatchEtlError(f"{to}: a sheet is a CSV file, so its name must end in .csv")
    warehouse, settings = warehouse_at(home)
    with warehouse.read_only() as connection:
        table = table_named(connection, pipeline, endpoint, settings)
        names = [column.name for column in columns_of(table)]
        count = write_sheet(to, names, rows_of(connection, table, decided=decided))
    to_fill = ", ".join(column.name for column in table.answer_columns)
    click.echo(f"{table.qualified_name}: {count:,} records in {to}; fill in {to_fill}")


def apply_sheet(
    home: Path | None, pipeline: str, sheet: Path, endpoint: str | None, by: str | None
) -> None:
    """Judge all lines, then keep and show all decisions; nothing if one line is wrong."""
    warehouse, settings = warehouse_at(home)
    with warehouse.read_only() as connection:
        table = table_named(connection, pipeline, endpoint, settings)
        lines = list(read_sheet(sheet, _needed(table)))
        ids = {line.cells.get(table.id_column.name, "") for line in lines}
        now = standings(connection, table, sorted(ids))
    judged = Sheet(table, now).judge(lines)
    _refuse(sheet, judged.problems)
    who = (by or getpass.getuser()).strip()
    if judged.decisions:
        kept = warehouse.decide(table, judged.decisions, who)
        warehouse.publish()
        click.echo(_applied(table, judged, who, kept))
    else:
        click.echo(
            f"{table.qualified_name}: nothing to apply: {judged.unchanged:,} decided as they "
            f"were, {judged.left_open:,} left open"
        )


def _needed(table: LoadedTable) -> list[str]:
    names = [table.id_column, *table.answer_columns]
    return [*(column.name for column in names), "_partition"]


def _refuse(sheet: Path, problems: Sequence[str]) -> None:
    if not problems:
        return
    more = len(problems) - _PROBLEMS_SHOWN
    raise BatchEtlError(
        "\n".join(
            [
                f"{sheet}: {len(problems)} line(s) cannot be applied, so nothing was:",
                *(f"  {problem}" for problem in problems[:_PROBLEMS_SHOWN]),
                *([f"  and {more} more"] if more > 0 else []),
            ]
        )
    )


def _applied(table: LoadedTable, judged: Judged, by: str, kept: Path) -> str:
    withdrawn = sum(decision.answer is None for decision in judged.decisions)
    decided = len(judged.decisions) - withdrawn
    facts = [f"{decided:,} decided by {by}", f"{withdrawn:,} withdrawn" if withdrawn else ""]
    facts += [f"{judged.unchanged:,} as they were" if judged.unchanged else ""]
    facts += [f"{judged.left_open:,} left open"]
    return f"{table.qualified_name}: {', '.join(filter(None, facts))}\n  kept in {kept}"
