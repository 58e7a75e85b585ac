"""The ``Environment`` component: storage, ledger, endpoint and warehouse as the environment says.

In a project of your own: a ``defs.yaml`` with ``type: batch_etl.components.Environment``, once.
"""

from __future__ import annotations

import dagster as dg

from batch_etl import environment
from batch_etl.resources import from_settings


class Environment(dg.Component, dg.Model, dg.Resolvable):
    """The resources of all batch pipelines, set by BATCH_ETL_* and ANTHROPIC_* variables."""

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:  # noqa: ARG002
        return dg.Definitions(resources=from_settings(environment.read()))
