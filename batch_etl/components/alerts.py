"""The ``alerts`` block of ``Monitoring``: what somebody is told of, and from which threshold on.

Whom to tell is no matter of YAML: the URLs hold tokens and passwords, and come from the environment
(``BATCH_ETL_ALERT_URLS``) alone.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import pydantic

from batch_etl.components.checks import Share
from batch_etl.strict import Strict

Kind = Literal["failed_run", "slow_batch", "stuck_batch", "failure_rate", "budget", "expiring"]

KINDS: tuple[Kind, ...] = get_args(Kind)

Hours = Annotated[float, pydantic.Field(gt=0, le=24 * 29)]


class Alerts(Strict):
    """What is worth an alert, sent once an event to each URL of the environment."""

    kinds: list[Kind] = pydantic.Field(
        default=list(KINDS), description="What is told of; completion is asked for by its own key."
    )
    slow_factor: Annotated[float, pydantic.Field(ge=1, le=100)] = pydantic.Field(
        default=1.5,
        description="A batch is slow when it is open so many times longer than 95 of 100 were.",
    )
    stuck_hours: Hours = pydantic.Field(
        default=12.0, description="A batch is stuck when it is open for longer, whatever is usual."
    )
    max_review_share: Share = pydantic.Field(
        default=0.1, description="Share of a run's records in review above which it is told of."
    )
    spike_factor: Annotated[float, pydantic.Field(ge=1, le=1000)] = pydantic.Field(
        default=3.0, description="Also where the share is so many times that of the runs before."
    )
    budget_share: Annotated[float, pydantic.Field(gt=0, le=1)] = pydantic.Field(
        default=0.8, description="Share of a budget that is committed from which it is told of."
    )
    expiring_hours: Annotated[float, pydantic.Field(gt=0, lt=24)] = pydantic.Field(
        default=4.0, description="How long before its end after 24 hours an open batch is told of."
    )
    results_days: Annotated[float, pydantic.Field(gt=0, lt=28)] = pydantic.Field(
        default=5.0,
        description="How long before the API forgets results (29 days) uncollected ones are.",
    )
    completion: Literal["all"] | list[str] = pydantic.Field(
        default_factory=list[str],
        description="Pipelines whose finished runs are told of, or `all`.",
    )
    interval_s: Annotated[int, pydantic.Field(ge=5, le=3600)] = pydantic.Field(
        default=60, description="Seconds between two looks."
    )

    def completes(self, pipeline: str) -> bool:
        """Whether the pipeline's finished runs are told of."""
        return self.completion == "all" or pipeline in self.completion
