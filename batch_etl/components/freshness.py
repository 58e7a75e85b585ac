"""The ``freshness`` block of a pipeline: until when its table must have been loaded.

Two of Dagster's own policies, on the table asset, which its daemon watches:

    cron, within_hours         by each deadline, loaded no longer than so many hours before it
    fail_hours, warn_hours     loaded in the last so many hours, whatever the time of day

A policy looks at the asset's last load of any partition.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Self

import dagster as dg
import pydantic
from dagster._check import CheckError

from batch_etl.components.cron import Cron, TimeZone
from batch_etl.strict import Strict

Hours = Annotated[float, pydantic.Field(gt=0, le=24 * 366)]


class Freshness(Strict):
    """How old the table's last load may be."""

    cron: Cron | None = pydantic.Field(
        default=None, description="Deadlines: the table has been loaded by then."
    )
    within_hours: Hours | None = pydantic.Field(
        default=None, description="With `cron`: how long before the deadline at most."
    )
    timezone: TimeZone = pydantic.Field(default="UTC", description="Of the cron.")
    fail_hours: Hours | None = pydantic.Field(
        default=None, description="Without `cron`: a load older than this is a failure."
    )
    warn_hours: Hours | None = pydantic.Field(
        default=None, description="With `fail_hours`: a load older than this is a warning."
    )

    @pydantic.model_validator(mode="after")
    def _is_one_of_the_two(self) -> Self:
        if (self.cron is None) == (self.fail_hours is None):
            raise ValueError("say either `cron` with `within_hours`, or `fail_hours`")
        if (self.cron is None) != (self.within_hours is None):
            raise ValueError("`cron` and `within_hours` go together")
        if self.warn_hours is not None and self.fail_hours is None:
            raise ValueError("`warn_hours` goes with `fail_hours`")
        try:
            self.policy()
        except CheckError as error:
            said = str(error).partition("Description: ")[2] or str(error)
            raise ValueError(_in_our_words(said)) from None
        return self

    def policy(self) -> dg.FreshnessPolicy:
        """Dagster's. Raises its ``CheckError`` for times that it does not take."""
        if self.cron is not None and self.within_hours is not None:
            within = dt.timedelta(hours=self.within_hours)
            return dg.FreshnessPolicy.cron(self.cron, within, self.timezone)
        assert self.fail_hours is not None  # noqa: S101
        warn = dt.timedelta(hours=self.warn_hours) if self.warn_hours else None
        return dg.FreshnessPolicy.time_window(dt.timedelta(hours=self.fail_hours), warn)


def _in_our_words(said: str) -> str:
    names = {
        "lower_bound_delta": "within_hours",
        "deadline_cron": "cron",
        "fail_window": "fail_hours",
        "warn_window": "warn_hours",
    }
    for theirs, ours in names.items():
        said = said.replace(theirs, ours)
    return said
