"""To wait for what another process or thread does."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(done: Callable[[], object]) -> None:
    """Until it is so; it is a failure after two minutes."""
    deadline = time.monotonic() + 120
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)
