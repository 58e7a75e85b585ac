"""Cron expressions and time zones as users write them, refused with what is wrong."""

from __future__ import annotations

import difflib
import zoneinfo
from typing import Annotated

import dagster as dg
import pydantic

_EXAMPLES = "write minute, hour, day, month and weekday, as in '30 2 * * *', or @daily"


def _known_cron(text: str) -> str:
    try:
        dg.ScheduleDefinition(name="asked", job_name="asked", cron_schedule=text)
    except dg.DagsterInvalidDefinitionError:
        raise ValueError(f"{text!r} is no cron expression; {_EXAMPLES}") from None
    return text


def _known_zone(name: str) -> str:
    try:
        zoneinfo.ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        near = difflib.get_close_matches(name, sorted(zoneinfo.available_timezones()), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "; write it as Europe/Berlin or UTC"
        raise ValueError(f"unknown time zone {name!r}{hint}") from None
    return name


Cron = Annotated[str, pydantic.AfterValidator(_known_cron)]
"""Five fields, or @hourly, @daily, @weekly, @monthly: what Dagster's daemon takes."""

TimeZone = Annotated[str, pydantic.AfterValidator(_known_zone)]
"""An IANA name."""
