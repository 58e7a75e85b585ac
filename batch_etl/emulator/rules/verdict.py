"""The error of a line, and the terms that its create set. Pure."""

from __future__ import annotations

from dataclasses import dataclass

NEW_VERSION = "2026-10-21"


@dataclass(frozen=True)
class LineError:
    """The error of an errored line. ``at_execution``: it came up while running, so it has a
    request id. ``code``: of its details.
    """

    message: str
    type: str = "invalid_request_error"
    at_execution: bool = False
    code: str | None = None


@dataclass(frozen=True)
class Terms:
    """What the create's headers said for all lines: API version and betas."""

    version: str = "2023-06-01"
    betas: frozenset[str] = frozenset()
