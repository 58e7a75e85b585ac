from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from batch_etl_tests.components.make import Project, project


@pytest.fixture
def mine(home: Path) -> Iterator[Project]:
    """An empty project whose state lies in the test's home."""
    with project(home) as empty:
        yield empty


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """A Dagster instance in files, as a daemon's."""
    with dg.instance_for_test(temp_dir=str(tmp_path)) as made:
        yield made
