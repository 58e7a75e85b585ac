"""The resources of this project, as the environment says, and how its runs are executed."""

from __future__ import annotations

import dagster as dg

from batch_etl import environment
from batch_etl.components.executor import chain_or_processes_executor
from batch_etl.resources import from_settings


@dg.definitions
def resources() -> dg.Definitions:
    return dg.Definitions(
        resources=from_settings(environment.read()), executor=chain_or_processes_executor
    )
