"""``batch-etl evaluate``: run an evaluation's variants, score them, and say whether its gates hold.

For a CI of prompts: the exit code is 1 when a gate of severity ``error`` failed, or the run did.
With ``--approve`` the correct answers of the variant in use become the known good ones, in the file
that the YAML names; it is for a person to look at the difference and commit it.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batch_etl.commands.run import STEPS, Report, cost, materialize, running
from batch_etl.errors import ConfigError
from batch_etl.evaluation import KnownGood, Metric
from batch_etl.evaluation.metrics import sheet
from batch_etl.files import Home
from batch_etl.strict import did_you_mean
from batch_etl.warehouse import Warehouse, schema_of
from batch_etl.warehouse.sql import qualified

if TYPE_CHECKING:
    import dagster as dg


def evaluate(
    name: str, home: Path | None, defs: Path | None, *, approve: bool, as_json: bool
) -> None:
    """Run, score and tell; exits with 1 when a gate does not hold."""
    with running(home, defs) as (settings, definitions, instance):
        scored = _scored(definitions, name)
        report, result = run_evaluation(definitions, instance, name)
    gates = _gates(result)
    passed = report.success and all(gate["passed"] or not gate["error"] for gate in gates)
    place = Home.at(settings.home)
    house = Warehouse(place.warehouse_working, place.warehouse)
    metrics = _rows(house, report, f"{name}_metrics") if result.success or gates else []
    if as_json:
        told = {**asdict(report), "success": passed, "gates": gates, "metrics": metrics}
        click.echo(json.dumps(told))
    else:
        _tell(report, gates, metrics)
    if approve and passed:
        _approve(scored, house, report, name)
    if not passed:
        sys.exit(1)


def run_evaluation(
    definitions: dg.Definitions, instance: dg.DagsterInstance, name: str
) -> tuple[Report, dg.ExecuteInProcessResult]:
    """Run all variants and their scores as one run; the report is of all answers."""
    report = Report(name)
    assets = _assets(definitions, name)
    return report, materialize(definitions, instance, assets, {}, report)


def variants_of(definitions: dg.Definitions, name: str) -> list[str]:
    """The pipelines that an evaluation compares."""
    return [dep.asset_key.path[0] for spec in _scored(definitions, name).specs for dep in spec.deps]


def evaluations(definitions: dg.Definitions) -> list[str]:
    """The names of all evaluations, in alphabetical order."""
    keys = definitions.resolve_asset_graph().get_all_asset_keys()
    return sorted(key.path[0] for key in keys if key.path[-1] == "scores" and len(key.path) == 2)


def _scored(definitions: dg.Definitions, name: str) -> dg.AssetsDefinition:
    import dagster as dg

    known = evaluations(definitions)
    if name not in known:
        raise ConfigError(f"there is no evaluation {name!r}{did_you_mean(name, known)}")
    return definitions.get_assets_def(dg.AssetKey([name, "scores"]))


def _assets(definitions: dg.Definitions, name: str) -> list[dg.AssetsDefinition]:
    """The scores and all that they are made from."""
    import dagster as dg

    pipelines = variants_of(definitions, name)
    keys = [dg.AssetKey([pipeline, step]) for pipeline in pipelines for step in STEPS]
    return [*map(definitions.get_assets_def, keys), _scored(definitions, name)]


def _gates(result: dg.ExecuteInProcessResult) -> list[dict[str, Any]]:
    """The checks of the scores, those of the variants' own tables left out."""
    return [
        {
            "gate": one.check_name,
            "passed": one.passed,
            "error": one.severity.value == "ERROR",
            "sentence": one.description,
        }
        for one in result.get_asset_check_evaluations()
        if one.asset_key.path[-1] == "scores"
    ]


def _rows(house: Warehouse, report: Report, table: str) -> list[dict[str, Any]]:
    sql = f"SELECT * FROM {qualified(schema_of(report.endpoint or ''), table)}"
    with house.read_only() as connection:
        found = connection.execute(sql)
        names = [column[0] for column in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def _tell(report: Report, gates: list[dict[str, Any]], metrics: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    if metrics:
        head, *rows = sheet([Metric(**row) for row in metrics])
        table = Table(*head, box=None, padding=(0, 2, 0, 0))
        for row in rows:
            table.add_row(*row)
        Console().print(table)
    for gate in gates:
        word = click.style("passed", "green") if gate["passed"] else click.style("FAILED", "red")
        click.echo(f"{word}  {gate['sentence']}")
    told = {gate["sentence"] for gate in gates}
    for error in report.errors:
        if error in told:
            continue
        click.secho(f"Error: {error}", fg="red", err=True)
    click.echo(
        f"{report.pipeline}: {report.records:,} answers, sent {report.sent:,}; {cost(report)}"
    )


def _approve(scored: dg.AssetsDefinition, house: Warehouse, report: Report, name: str) -> None:
    from batch_etl.components.scores import IN_USE, KNOWN_GOOD

    metadata = next(iter(scored.specs)).metadata
    if KNOWN_GOOD not in metadata:
        raise ConfigError(f"{name}: the YAML names no `known_good` file to write")
    path = Path(str(metadata[KNOWN_GOOD]))
    answers: dict[str, dict[str, Any]] = {}
    for row in _rows(house, report, f"{name}_cases"):
        if row["correct"] and row["variant"] == metadata[IN_USE]:
            answers.setdefault(row["record_id"], {})[row["field"]] = json.loads(row["actual"])
    KnownGood(answers).write(path)
    click.echo(f"approved {len(answers):,} records: {path}")
