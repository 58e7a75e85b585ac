"""The ``report`` block of ``Monitoring``: the published report as an asset, and when it is made.

The asset ``monitoring/report`` reads the published DuckDB file and writes ``<home>/report.html``.
Which pipelines there are is the file's own affair, so the asset hangs on none of theirs: it is made
by its cron, by a click, or by ``batch-etl report``.
"""

# No postponed annotations here: Dagster reads those of the assets' functions as they are.
import datetime as dt
from typing import Annotated

import dagster as dg
import pydantic

from batch_etl.components.cron import Cron, TimeZone
from batch_etl.components.steps import explained
from batch_etl.resources import StorageResource, WarehouseResource
from batch_etl.strict import Strict
from batch_etl.warehouse.report import Figures
from batch_etl.warehouse.report_page import dollars, total, write

KEY = dg.AssetKey(["monitoring", "report"])


class Report(Strict):
    """A page of cost, volume, quality and latency over time, for everybody with a browser."""

    days: Annotated[int, pydantic.Field(ge=1, le=3660)] = pydantic.Field(
        default=90, description="How many days back its plots go."
    )
    cron: Cron | None = pydantic.Field(
        default=None, description="When it is made by itself: five cron fields, or @daily."
    )
    timezone: TimeZone = pydantic.Field(default="UTC", description="Of the cron.")


def definitions(report: Report) -> dg.Definitions:
    """The asset, and its job with a schedule that runs from the start where there is a cron."""
    asset = _asset(report.days)
    if report.cron is None:
        return dg.Definitions(assets=[asset])
    job = dg.define_asset_job("report_job", selection=[asset], description="Makes the report.")
    schedule = dg.ScheduleDefinition(
        name="report_schedule",
        job=job,
        cron_schedule=report.cron,
        execution_timezone=report.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    return dg.Definitions(assets=[asset], jobs=[job], schedules=[schedule])


def _asset(days: int) -> dg.AssetsDefinition:
    def report(
        context: dg.AssetExecutionContext, storage: StorageResource, warehouse: WarehouseResource
    ) -> None:
        home = storage.at()
        with explained(), warehouse.open(home).read_only() as connection:
            figures = write(connection, home.report, dt.datetime.now(dt.UTC), days)
        summary = dg.MetadataValue.md(_summary(figures))
        context.add_asset_metadata({"dagster/uri": str(home.report), "summary": summary})

    return dg.asset(
        report,
        key=KEY,
        group_name="monitoring",
        description="Cost, volume, quality and latency of all pipelines, as one HTML page.",
        kinds={"html"},
    )


def _summary(figures: Figures) -> str:
    """What the page says of each endpoint, in a line."""
    lines = ["| endpoint | records | in review | requests | dollars |", "|---|---|---|---|---|"]
    for one in figures.sections:
        cost = dollars(total(asked.cost_usd for asked in one.asked))
        cells = (
            one.endpoint,
            f"{sum(table.rows for table in one.tables):,}",
            f"{sum(table.review for table in one.tables):,}",
            f"{sum(asked.requests for asked in one.asked):,}",
            f"{cost} (emulated: would have cost)" if one.emulated else cost,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
