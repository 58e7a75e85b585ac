"""A queue on SQLite and on PostgreSQL in turn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from batch_etl.queue import Queue
from batch_etl_tests.batches.conftest import new_url, postgres, url

__all__ = ["new_url", "postgres", "url"]


@pytest.fixture
def queue(url: str) -> Iterator[Queue]:
    with closing(Queue(url)) as opened:
        yield opened
