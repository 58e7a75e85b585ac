"""The ``Monitoring`` component: what looks after all pipelines of a code location.

One block of YAML for a project, beside its pipelines'.
"""

# No postponed annotations here: Dagster reads those of components as they are.
from typing import Annotated

import dagster as dg
import pydantic

from batch_etl import environment
from batch_etl.components import report
from batch_etl.components.alert_sensor import alerts_sensor
from batch_etl.components.alerts import Alerts
from batch_etl.components.deferred import results_sensor
from batch_etl.components.report import Report
from batch_etl.components.strict_component import StrictComponent


class Monitoring(StrictComponent):
    """Over all pipelines: results of deferred ones, what is worth an alert, and a report."""

    results_interval_s: Annotated[int, pydantic.Field(ge=5, le=3600)] = pydantic.Field(
        default=30, description="Seconds between two looks at the batches of deferred pipelines."
    )

    alerts: Alerts = pydantic.Field(
        default=Alerts(), description="What is told of at the URLs of the environment."
    )

    report: Report = pydantic.Field(
        default=Report(), description="The page of cost, volume, quality and latency."
    )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:  # noqa: ARG002
        urls = environment.read().alert_urls
        sensors = [results_sensor(self.results_interval_s), alerts_sensor(self.alerts, urls)]
        return dg.Definitions.merge(
            dg.Definitions(sensors=sensors), report.definitions(self.report)
        )
