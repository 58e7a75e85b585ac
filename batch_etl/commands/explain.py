"""``batch-etl explain``: what a run would send and cost, before it does.

The source is read afresh into a temporary folder. No state is written, and nothing is sent but a
sample's count_tokens. Without a ledger yet, an empty one in the temporary folder takes its place.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batch_etl.commands import emulator, project, queue
from batch_etl.commands.run import chosen_partitions
from batch_etl.commands.status import shown_scope

if TYPE_CHECKING:
    from batch_etl.batches.outlook import OpenTransform, Outlook
    from batch_etl.components.steps import Pipeline
    from batch_etl.environment import Settings

_FATES = {
    "continued": "is continued",
    "collected first": "is collected first, and its answers reused",
    "cancelled first": "is cancelled first (its task was another); what it had bought is kept",
}


def explain(
    pipeline: str,
    home: Path | None,
    partitions: Sequence[str],
    all_partitions: bool,
    defs: Path | None,
    *,
    as_json: bool,
) -> None:
    """Print what a run of these partitions would do; always exits with 0 if that could be told."""
    settings = project.settings_at(home)
    settings.require_endpoint()
    with (
        tempfile.TemporaryDirectory(prefix="batch_etl_explain_") as temporary,
        emulator.if_needed(replace(settings, home=Path(temporary))),
    ):
        settings = project.settings_at(None)
        definitions = project.definitions(defs)
        if queue.is_queue(pipeline):
            keys = queue.to_look_at(settings, pipeline, partitions, all_partitions)
        else:
            keys = chosen_partitions(definitions, pipeline, partitions, all_partitions)
        found = _look(pipeline, keys, settings, Path(temporary))
    if as_json:
        click.echo(json.dumps(_facts(pipeline, keys, found), default=str))
    else:
        _print(pipeline, keys, found)


def _look(name: str, keys: Sequence[str | None], settings: Settings, temporary: Path) -> Outlook:
    from batch_etl.components.steps import LOADED
    from batch_etl.files import Home
    from batch_etl.resources import runner_of

    own: Pipeline = LOADED[name]
    scratch = Home.at(str(temporary))
    with queue.readable(own, settings) as readable:
        _bound(readable, settings).extract(scratch, keys)
    transform = own.transform(scratch, keys)
    with runner_of(_with_ledger(settings, temporary)) as runner:
        return runner.outlook(transform)


def _bound(pipeline: Pipeline, settings: Settings) -> Pipeline:
    """The pipeline with a source that reads another one's table, if that is its source."""
    from batch_etl.components import chaining, upstream
    from batch_etl.files import Home
    from batch_etl.resources import WarehouseResource, endpoint_of

    upstream.refuse_outside_a_run(pipeline)
    endpoint = endpoint_of(settings, settings.api_key, settings.auth_token).name()
    warehouse = WarehouseResource().open(Home.at(str(settings.home)))
    return chaining.readable(pipeline, warehouse, endpoint)


def _with_ledger(settings: Settings, temporary: Path) -> Settings:
    """The settings with a ledger that there is: opening it shall make no file in the home."""
    path = settings.home / "ledger.db"
    if settings.ledger_url is not None:
        return settings
    if not path.exists():
        path = temporary / "ledger.db"
    return replace(settings, ledger_url=f"sqlite:///{path}")


# as JSON ----------------------------------------------------------------------------------------


def _facts(pipeline: str, keys: Sequence[str | None], found: Outlook) -> dict[str, Any]:
    estimate = found.estimate
    return {
        "pipeline": pipeline,
        "partitions": list(keys),
        "endpoint": found.endpoint,
        **_counts(found),
        "unsendable_why": dict(found.measured.problems),
        "compared_with": found.last.id if found.last else None,
        "task_changes": list(found.task_changes),
        "open": [
            {"transform": one.row.id, "fate": one.fate, "requests_open": one.requests}
            for one in found.open
        ],
        "estimate": {
            "claude_model": estimate.claude_model,
            "requests": estimate.requests,
            "input_tokens": estimate.input_tokens,
            "output_tokens": estimate.output_tokens,
            "cost_usd": _usd(estimate.cost_pico_usd),
            "bound_usd": _usd(estimate.bound_pico_usd),
            "input_basis": estimate.input_basis,
            "output_basis": estimate.output_basis,
            "price_basis": estimate.price_basis,
        },
        "budgets": [
            {
                "name": one.limit.name,
                "pipeline": one.limit.pipeline,
                "usd": _usd(one.limit.pico_usd),
                "spent_usd": _usd(one.spent_pico_usd),
                "reserved_usd": _usd(one.reserved_pico_usd),
                "left_usd": _usd(one.left_pico_usd),
                "unpriced_batches": one.unpriced,
            }
            for one in found.budgets
        ],
        "refusal": found.refusal,
    }


def _counts(found: Outlook) -> dict[str, int]:
    counts = found.measured.counts
    return {
        "records": counts.records,
        "new": found.compared.new,
        "changed": found.compared.changed,
        "to_send": counts.sent,
        "reused": counts.reused,
        "shared": counts.shared,
        "resumed": counts.resumed,
        "awaited": found.measured.awaited,
        "unsendable": counts.unsendable,
    }


def _usd(pico_usd: int | None) -> float | None:
    return None if pico_usd is None else pico_usd / 1e12


# for people -------------------------------------------------------------------------------------


def _print(pipeline: str, keys: Sequence[str | None], found: Outlook) -> None:
    title = click.style(f"{pipeline}  {shown_scope(list(keys))}", bold=True)
    click.echo(f"{title}  {found.endpoint}, {found.estimate.claude_model}")
    for line in [*_of_records(found), *_of_task(found), *_of_open(found.open), *_of_money(found)]:
        click.echo(f"  {line}")
    click.echo("Nothing was sent.")


def _of_records(found: Outlook) -> list[str]:
    n = _counts(found)
    new = f"{n['new']:,} new, {n['changed']:,} changed since their last result"
    others = {
        "answered before": n["reused"],
        "equal to another or under way": n["shared"],
        "being bought by another run": n["awaited"],
    }
    rest = ", ".join(f"{count:,} {what}" for what, count in others.items() if count)
    lines = [
        f"records   {n['records']:,}: {new}",
        f"to send   {n['to_send']:,} request(s)" + (f"; {rest}" if rest else ""),
    ]
    if n["resumed"]:
        lines.append(f"again     {n['resumed']:,} failed before and go on with their next attempt")
    problems = found.measured.problems.most_common()
    return lines + [
        f"review    {times:,} record(s) cannot be sent: {why}" for why, times in problems
    ]


def _of_task(found: Outlook) -> list[str]:
    if found.last is None:
        return ["task      asked for the first time"]
    when = f"{found.last.created_at:%Y-%m-%d %H:%M} UTC"
    if not found.task_changes:
        return [f"task      as at the last run ({when})"]
    changes = [line for change in found.task_changes for line in change.splitlines()]
    return [f"task      changed since the last run ({when}):", *(f"  {line}" for line in changes)]


def _of_open(open_transforms: Sequence[OpenTransform]) -> list[str]:
    return [
        f"open      transform {one.row.id} ({one.requests:,} requests) {_FATES[one.fate]}"
        for one in open_transforms
    ]


def _of_money(found: Outlook) -> list[str]:
    from batch_etl.batches.budget import dollars

    estimate = found.estimate
    if not estimate.requests:
        lines = ["estimate  $0.00: nothing is sent"]
    elif estimate.cost_pico_usd is None or estimate.bound_pico_usd is None:
        lines = [f"estimate  unknown: no price for {estimate.claude_model}"]
    else:
        would = "would cost " if found.endpoint == "emulator" else ""
        cost, bound = dollars(estimate.cost_pico_usd), dollars(estimate.bound_pico_usd)
        most = "" if cost == bound else f", at most {bound}"
        lines = [f"estimate  {would}{cost}{most}: {estimate.what}"]
    if estimate.requests:
        bases = (
            ("input", estimate.input_basis),
            ("output", estimate.output_basis),
            ("price", estimate.price_basis),
        )
        lines += [f"  {name:<7} {basis}" for name, basis in bases]
    for one in found.budgets:
        whose = "all pipelines" if one.limit.pipeline is None else f"per {one.limit.period}"
        lines.append(
            f"budget    {one.limit.name} {dollars(one.limit.pico_usd)} ({whose}): "
            f"{dollars(one.left_pico_usd)} left, {dollars(one.spent_pico_usd)} spent, "
            f"{dollars(one.reserved_pico_usd)} reserved{_unpriced(one.unpriced)}"
        )
    return [*lines, f"refused   {found.refusal}"] if found.refusal else lines


def _unpriced(batches: int) -> str:
    return f"; {batches} batch(es) without a known price are not in it" if batches else ""
