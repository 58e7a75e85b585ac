"""What an emulator is started with, and the pace at which its batches move.

``Settings`` is fixed for the life of the process. ``Pace`` can be changed while it runs
(``POST /_emulator/pace``) and is kept with the state, so a restart goes on at the last pace.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

DAY_S = 86_400
EXPIRES_AFTER_S = DAY_S
ARCHIVED_AFTER_S = 29 * DAY_S
"""Results are kept for 29 days from a batch's creation, not from its end."""


class Pace(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long things take, in seconds of the emulator's clock.

    ``end_s``: from create to end. ``cancel_s``: from cancel to end. ``retry_after_s``: the hint on
    a poll of an open batch (the real API says 10). ``gradual``: counts move while a batch is open
    instead of all staying in ``processing`` until its end, as the documentation has it.
    """

    end_s: float = 2.0
    cancel_s: float = 0.5
    retry_after_s: float = 10.0
    gradual: bool = False


@dataclass(frozen=True)
class Settings:
    """Settings of one emulator.

    ``api_key``: the only key accepted; any non-empty one when None. ``seed``: of answers, order
    and fault selection. ``strict_version``: where a breach of the 2026-10-21 parameter rules
    fails, in its ``line`` (as other parameters do) or the whole ``create``: the real API's choice
    is not documented. ``upstream_tries``: of a request that the upstream is too busy or too broken
    to answer.
    """

    state: Path
    api_key: str | None = field(default=None, repr=False)
    seed: int = 0
    pace: Pace | None = None
    max_requests: int = 100_000
    max_body_bytes: int = 256_000_000
    strict_version: Literal["create", "line"] = "line"
    upstream_url: str | None = None
    upstream_key: str | None = field(default=None, repr=False)
    upstream_concurrency: int = 8
    upstream_tries: int = 5
