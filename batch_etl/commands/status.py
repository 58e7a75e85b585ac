"""``batch-etl status``: transforms and batches, as the ledger has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from batch_etl import environment
from batch_etl.commands.project import ledger, require_transforms, settings_at

_WAITING = ("planned", "submitting", "submitted")


def status(home: Path | None, pipeline: str | None, limit: int, *, as_json: bool) -> None:
    """Print the newest transforms with their batches; nothing is written."""
    settings = settings_at(home)
    found = _transforms(settings, pipeline, limit)
    if as_json:
        click.echo(json.dumps(found, default=str))
    elif not found:
        click.echo(f"no transforms yet in {_place(settings)}")
    else:
        _print(found)


def _place(settings: environment.Settings) -> str:
    return "the ledger" if settings.ledger_url else str(settings.home / "ledger.db")


def _transforms(
    settings: environment.Settings, pipeline: str | None, limit: int
) -> list[dict[str, Any]]:
    with ledger(settings) as opened:
        if pipeline is not None:
            require_transforms(opened, pipeline)
        if opened is None:
            return []
        rows = opened.transforms(pipeline=pipeline, limit=limit)
        return [_described(row, opened.batches(transform_id=row.id)) for row in rows]


def _described(row: Any, batches: list[Any]) -> dict[str, Any]:
    from batch_etl.batches.tables import hit_rate

    sent = sum(b.requests for b in batches if b.submitted_at is not None and b.attempt == 1)
    known = [batch.cost_pico_usd for batch in batches if batch.status == "collected"]
    cost = None if None in known else sum(known) / 1e12
    return {
        "transform": row.id,
        "pipeline": row.pipeline,
        "endpoint": row.endpoint,
        "partitions": list(row.scope),
        "status": row.status,
        "task_version": row.fingerprint[:12],
        "created_at": row.created_at.isoformat(),
        "counts": dict(row.counts) | {"sent": sent},
        "cost_usd": cost,
        "reserved_usd": _usd(row.reserved_pico_usd),
        "cache_hit_rate": hit_rate([b for b in batches if b.status == "collected"]),
        "batches": [
            {
                "batch_id": batch.batch_id,
                "token": batch.id,
                "attempt": batch.attempt,
                "status": batch.status,
                "requests": batch.requests,
                "submitted_at": batch.submitted_at,
                "ended_at": batch.ended_at,
                "outcomes": dict(batch.outcomes or {}),
                "cost_usd": _usd(batch.cost_pico_usd),
                "reserved_usd": _usd(batch.reserved_pico_usd),
            }
            for batch in batches
        ],
    }


def _usd(pico_usd: int | None) -> float | None:
    return None if pico_usd is None else pico_usd / 1e12


def _print(found: list[dict[str, Any]]) -> None:
    for one in found:
        mark = {"done": "green", "superseded": "bright_black"}.get(one["status"], "yellow")
        title = f"{one['pipeline']}  {shown_scope(one['partitions'])}"
        click.echo(f"{click.style(title, bold=True)}  {click.style(one['status'], fg=mark)}")
        click.echo(f"  {_facts(one)}")
        for batch in one["batches"]:
            if batch["status"] in _WAITING:
                click.echo(f"  {_waiting(batch)}")


def _facts(one: dict[str, Any]) -> str:
    counts = one["counts"]
    asked = ", ".join(
        f"{counts[name]:,} {name}" for name in ("records", "sent", "reused") if name in counts
    )
    cost = "cost unknown" if one["cost_usd"] is None else f"${one['cost_usd']:.6f}"
    would = "would have cost " if one["endpoint"] == "emulator" and one["cost_usd"] else ""
    sent = [batch for batch in one["batches"] if batch["submitted_at"] is not None]
    batches = f"{len(sent)} batch(es)"
    facts = [one["transform"], one["endpoint"], asked, batches, would + cost]
    return "  ".join(filter(None, facts))


def _waiting(batch: dict[str, Any]) -> str:
    name = batch["batch_id"] or batch["token"]
    return f"{name} {batch['status']}, {batch['requests']:,} requests, attempt {batch['attempt']}"


def shown_scope(partitions: list[str | None]) -> str:
    if partitions == [None]:
        return "all"
    if len(partitions) == 1:
        return str(partitions[0])
    return f"{partitions[0]} .. {partitions[-1]} ({len(partitions)})"
