"""The ``partitions`` block of a pipeline, and what it is in Dagster and in a source."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, Self

import dagster as dg
import pydantic

from batch_etl.components.cron import TimeZone
from batch_etl.sources import Cut, PartitionSlice
from batch_etl.strict import Strict

_WINDOWS: dict[str, Callable[..., dg.PartitionsDefinition[str]]] = {
    "hourly": dg.HourlyPartitionsDefinition,
    "daily": dg.DailyPartitionsDefinition,
    "weekly": dg.WeeklyPartitionsDefinition,
    "monthly": dg.MonthlyPartitionsDefinition,
}


class Partitions(Strict):
    """How a pipeline's records are cut: by time, or by a fixed list of keys."""

    type: Literal["hourly", "daily", "weekly", "monthly", "static"]
    start: pydantic.NaiveDatetime | None = pydantic.Field(
        default=None, description="First partition, inclusive (hourly to monthly)."
    )
    end: pydantic.NaiveDatetime | None = pydantic.Field(
        default=None, description="End, exclusive; without it partitions go on with time."
    )
    timezone: TimeZone = pydantic.Field(default="UTC", description="Of the windows' limits.")
    keys: list[str] | None = pydantic.Field(default=None, description="All keys (static).")
    backfill: Literal["one_run", "run_per_partition"] = pydantic.Field(
        default="one_run",
        description="A backfill as one run with full batches, or as a run and batches of its own "
        "for each partition.",
    )

    @pydantic.model_validator(mode="after")
    def _has_what_its_type_needs(self) -> Self:
        if self.type == "static":
            if not self.keys or len(set(self.keys)) < len(self.keys):
                raise ValueError("`type: static` needs `keys`: a list of different names")
            if self.start or self.end:
                raise ValueError("`start` and `end` are for time; `type: static` has only `keys`")
        elif self.keys is not None:
            raise ValueError(f"`keys` are for `type: static`; `type: {self.type}` needs `start`")
        elif self.start is None:
            raise ValueError(f"`type: {self.type}` needs `start`")
        elif self.end is not None and self.end <= self.start:
            raise ValueError(f"`end` ({self.end}) is not after `start` ({self.start})")
        return self

    @property
    def cut(self) -> Cut:
        """What the source must be able to tell its records apart by."""
        return "keys" if self.type == "static" else "time"

    @property
    def backfill_policy(self) -> dg.BackfillPolicy:
        alone = self.backfill == "run_per_partition"
        return dg.BackfillPolicy.multi_run(1) if alone else dg.BackfillPolicy.single_run()

    def definition(self) -> dg.PartitionsDefinition[str]:
        if self.type == "static":
            return dg.StaticPartitionsDefinition(self.keys or [])
        assert self.start is not None  # noqa: S101
        return _WINDOWS[self.type](start_date=self.start, end_date=self.end, timezone=self.timezone)


def slices(definition: dg.PartitionsDefinition[str], keys: Iterable[str]) -> list[PartitionSlice]:
    """The partitions as a source knows them: time windows, or keys by their text."""
    if isinstance(definition, dg.TimeWindowPartitionsDefinition):
        windows = [(key, definition.time_window_for_partition_key(key)) for key in keys]
        return [PartitionSlice(key, window.start, window.end) for key, window in windows]
    return [PartitionSlice(key) for key in keys]
