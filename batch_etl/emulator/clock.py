"""The emulator's clock: real time, moved forward or held still on request.

Everything that has a time in the API (created_at, expiry, archive, pace, the ``Date`` header) is
read off this clock, so a test can let 24 hours pass in no time.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec


class Clock(msgspec.Struct):
    """``offset_us`` is added to real time; when ``frozen_us`` is set the clock stands there."""

    offset_us: int = 0
    frozen_us: int | None = None

    def now_us(self) -> int:
        if self.frozen_us is not None:
            return self.frozen_us
        return time.time_ns() // 1000 + self.offset_us

    def go_to(self, at_us: int) -> None:
        if self.frozen_us is not None:
            self.frozen_us = at_us
        else:
            self.offset_us = at_us - time.time_ns() // 1000

    def freeze(self) -> None:
        self.frozen_us = self.now_us()

    def run(self) -> None:
        """Go on from where the clock stands."""
        at_us, self.frozen_us = self.now_us(), None
        self.go_to(at_us)

    def describe(self) -> dict[str, Any]:
        return {"offset_s": self.offset_us / 1e6, "frozen": self.frozen_us is not None}
