from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from batch_etl_tests.components.make import Project, project


@pytest.fixture
def mine(home: Path) -> Iterator[Project]:
    """An empty project whose state lies in the test's home."""
    with project(home) as empty:
        yield empty
