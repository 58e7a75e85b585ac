"""The ``Monitoring`` component: what looks after all pipelines of a code location.

One block of YAML for a project, beside its pipelines'.
"""

# No postponed annotations here: Dagster reads those of components as they are.
from typing import Annotated

import dagster as dg
import pydantic

from batch_etl.components.deferred import results_sensor
from batch_etl.components.strict_component import StrictComponent


class Monitoring(StrictComponent):
    """Sensors over all pipelines: results of deferred ones, and what is worth an alert."""

    results_interval_s: Annotated[int, pydantic.Field(ge=5, le=3600)] = pydantic.Field(
        default=30, description="Seconds between two looks at the batches of deferred pipelines."
    )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:  # noqa: ARG002
        return dg.Definitions(sensors=[results_sensor(self.results_interval_s)])
