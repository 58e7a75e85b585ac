"""The ``partitions`` block of a pipeline, and what it is in Dagster and in a source."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Literal, Self

import dagster as dg
import pydantic

from batch_etl.sources import PartitionSlice
from batch_etl.strict import Strict

_WINDOWS: dict[str, type[dg.TimeWindowPartitionsDefinition]] = {
    "hourly": dg.HourlyPartitionsDefinition,
    "daily": dg.DailyPartitionsDefinition,
    "weekly": dg.WeeklyPartitionsDefinition,
    "monthly": dg.MonthlyPartitionsDefinition,
}


class Partitions(Strict):
    """How a pipeline's records are cut: by time, or by a fixed list of keys."""

    type: Literal["hourly", "daily", "weekly", "monthly", "static"]
    start: dt.datetime | None = pydantic.Field(
        default=None, description="First partition, inclusive (hourly to monthly)."
    )
    end: dt.datetime | None = pydantic.Field(
        default=None, description="End, exclusive; without it partitions go on with time."
    )
    timezone: str = pydantic.Field(default="UTC", description="Of the windows' limits.")
    keys: list[str] | None = pydantic.Field(default=None, description="All keys (static).")

    @pydantic.model_validator(mode="after")
    def _has_what_its_type_needs(self) -> Self:
        if self.type == "static":
            if not self.keys or len(set(self.keys)) < len(self.keys):
                raise ValueError("`type: static` needs `keys`: a list of different names")
        elif self.start is None:
            raise ValueError(f"`type: {self.type}` needs `start`")
        elif self.end is not None and self.end <= self.start:
            raise ValueError(f"`end` ({self.end}) is not after `start` ({self.start})")
        return self

    def definition(self) -> dg.PartitionsDefinition[str]:
        if self.type == "static":
            return dg.StaticPartitionsDefinition(self.keys or [])
        return _WINDOWS[self.type](
            start_date=_naive(self.start or dt.datetime(2020, 1, 1, tzinfo=dt.UTC)),
            end_date=_naive(self.end) if self.end else None,
            timezone=self.timezone,
        )


def _naive(time: dt.datetime) -> dt.datetime:
    """Dagster takes the limits as times of the partitions' own time zone."""
    return time.replace(tzinfo=None)


def slices(definition: dg.PartitionsDefinition[str], keys: Iterable[str]) -> list[PartitionSlice]:
    """The partitions as a source knows them: time windows, or keys by their text."""
    if isinstance(definition, dg.TimeWindowPartitionsDefinition):
        windows = [(key, definition.time_window_for_partition_key(key)) for key in keys]
        return [PartitionSlice(key, window.start, window.end) for key, window in windows]
    return [PartitionSlice(key) for key in keys]
