"""What the fault tests share: the engine's PostgreSQL server."""

from __future__ import annotations

from batch_etl_tests.batches.conftest import postgres

__all__ = ["postgres"]
