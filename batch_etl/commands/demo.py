"""``batch-etl demo``: the ready pipelines on the emulator, and where to look afterwards."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from batch_etl.commands import emulator, project
from batch_etl.commands.evaluate import evaluations, run_evaluation, variants_of
from batch_etl.commands.run import (
    Report,
    pipelines,
    progress_to_stderr,
    raise_if_failed,
    run_pipeline,
)

if TYPE_CHECKING:
    import dagster as dg

FIRST_LOOK = ("content_moderation", "feedback_analysis")
"""What is run without ``--all``: two weeks of posts and of feedback."""

_PACE = ("--pace", "1", "--retry-after-s", "1")


def demo(home: Path | None, only: Sequence[str], *, every: bool = False) -> None:
    """Materialize every partition of the sample pipelines and show the tables.

    ``every``: of all ready pipelines, and one line for each instead of some rows.
    """
    settings = project.settings_at(home)
    console = Console()
    console.print(
        "Running on the [bold]emulator[/bold]: its answers are made up by a program from the "
        "records' words. Nothing is sent to Anthropic and nothing is paid."
    )
    with (
        emulator.beside(settings.home, pace=_PACE) as url,
        emulator.told(url),
        progress_to_stderr(),
        project.instance(settings) as instance,
    ):
        definitions = project.definitions(None)
        tables: dict[str, list[str]] = {}
        reports: list[Report] = []
        for name in only or (in_order(definitions) if every else FIRST_LOOK):
            tables[name] = _tables_of(definitions, name)
            report = _run(definitions, instance, name)
            raise_if_failed(report)
            reports.append(report)
    if every:
        console.print(_summary_of_all(reports, _outcomes(settings.home, tables)))
    else:
        console.print(_summary(reports))
        _show_rows(console, settings.home, reports)
    console.print(_where_next(settings.home, reports[0]), soft_wrap=True)


def _run(definitions: dg.Definitions, instance: dg.DagsterInstance, name: str) -> Report:
    if name in evaluations(definitions):
        return run_evaluation(definitions, instance, name)[0]
    return run_pipeline(definitions, instance, name, (), _partitioned(definitions, name))


def _partitioned(definitions: dg.Definitions, name: str) -> bool:
    import dagster as dg

    asset = definitions.get_assets_def(dg.AssetKey([name, "results"]))
    return asset.partitions_def is not None


def in_order(definitions: dg.Definitions) -> list[str]:
    """All pipelines and evaluations, each after those whose tables it reads.

    The pipelines that an evaluation compares are its own, and not named beside it.
    """
    judged = evaluations(definitions)
    own = {variant for name in judged for variant in variants_of(definitions, name)}
    keys = definitions.resolve_asset_graph().toposorted_asset_keys
    places = {key.path[0]: place for place, key in enumerate(keys)}
    names = [*(name for name in pipelines(definitions) if name not in own), *judged]
    return sorted(names, key=lambda name: places[name])


def _tables_of(definitions: dg.Definitions, name: str) -> list[str]:
    """The tables with the answers of a pipeline, or of an evaluation's variants."""
    return variants_of(definitions, name) if name in evaluations(definitions) else [name]


_COUNTS = ("records", "answered", "review", "sent", "reused", "batches")
_COUNTS_OF_ALL = ("records", "sent", "batches")


def _summary(reports: Sequence[Report]) -> Table:
    table = _table_of("dollars", counts=_COUNTS)
    for report in reports:
        table.add_row(report.pipeline, *_figures([report], _COUNTS))
    return table


def _summary_of_all(reports: Sequence[Report], outcomes: Mapping[str, str]) -> Table:
    """A line a pipeline, with its outcomes in the place of their sums, and a line for all."""
    table = _table_of("dollars", counts=_COUNTS_OF_ALL)
    table.add_column("outcomes")
    for report in reports:
        figures = _figures([report], _COUNTS_OF_ALL)
        table.add_row(report.pipeline, *figures, outcomes[report.pipeline])
    table.add_section()
    table.add_row(f"{len(reports)} pipelines", *_figures(reports, _COUNTS_OF_ALL), "")
    return table


def _table_of(*more: str, counts: Sequence[str]) -> Table:
    title = "Every record has one outcome; money is what it would have cost"
    table = Table(title=title, box=SIMPLE_HEAD, padding=0)
    table.add_column("pipeline", no_wrap=True)
    for column in (*counts, *more):
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _figures(reports: Sequence[Report], columns: Sequence[str]) -> list[str]:
    counts = [sum(getattr(report, column) for report in reports) for column in columns]
    cost_usd = sum(report.cost_usd or 0 for report in reports)
    return [*(f"{count:,}" for count in counts), f"${cost_usd:.4f}"]


def _outcomes(home: Path, tables: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """By pipeline: how many records ended how, the most frequent first."""
    import duckdb

    found: dict[str, str] = {}
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as connection:
        for name, its in tables.items():
            rows = " UNION ALL ".join(f"SELECT _outcome FROM emulator.{table}" for table in its)
            counted = connection.sql(
                f"SELECT _outcome, count(*) FROM ({rows}) GROUP BY ALL ORDER BY 2 DESC, 1"
            )
            parts = [f"{count:,} {outcome}" for outcome, count in counted.fetchall()]
            found[name] = ", ".join(parts)
    return found


def _show_rows(console: Console, home: Path, reports: Sequence[Report]) -> None:
    """A few typed rows of each table, read as an analyst would."""
    import duckdb

    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as connection:
        for report in reports:
            relation = connection.sql(f"SELECT * FROM {report.table} LIMIT 0")
            own = [name for name in relation.columns if not name.startswith("_")]
            short = [
                name
                for name, kind in zip(relation.columns, relation.types, strict=True)
                if name in own and str(kind) in ("VARCHAR", "BIGINT", "BOOLEAN")
            ]
            shown = [own[0], *[name for name in short if name not in (own[0], "text")][-4:]]
            listed = ", ".join(f'"{name}"' for name in shown)
            rows = connection.sql(
                f"SELECT {listed} FROM {report.table} USING SAMPLE 5 (reservoir, 7)"
            )
            console.print(_rows(report.table or report.pipeline, shown, rows.fetchall()))


def _rows(title: str, names: Sequence[str], rows: Sequence[tuple[object, ...]]) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in names:
        table.add_column(name, max_width=18, no_wrap=True)
    for row in rows:
        table.add_row(*("" if value is None else " ".join(str(value).split()) for value in row))
    return table


def _where_next(home: Path, report: Report) -> str:
    """Commands that work as they are printed, in the folder in which the demo was started."""
    here = Path.cwd()
    command, python = (_from(here, Path(path)) for path in (sys.argv[0], sys.executable))
    at = "" if home == here / "data" else f" --home {_from(here, home)}"
    warehouse = _from(here, home / "warehouse.duckdb")
    return (
        f"\nThe tables are in [bold]{warehouse}[/bold]. Ask them:\n"
        f'  {python} -c "import duckdb; duckdb.connect({warehouse!r}, '
        f"read_only=True).sql('FROM {report.table} LIMIT 5').show()\"\n"
        f"What was sent and what it cost:   {command} status{at}\n"
        f"The Dagster UI with an emulator:  {command} dev{at}\n"
        f"On Claude:                        ANTHROPIC_API_KEY=... {command} run "
        f"{report.pipeline}{at} --partition KEY"
    )


def _from(here: Path, path: Path) -> str:
    """A path as one would type it in ``here``."""
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
