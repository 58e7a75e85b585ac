"""What the engine's tests share: an empty ledger's URL, on SQLite and on PostgreSQL in turn.

Hypothesis runs without deadlines: the machine may be shared, and no test here measures time.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from batch_etl_tests.batches import engine
from batch_etl_tests.batches.engine import Site
from batch_etl_tests.batches.postgres import Server, programs, running
from batch_etl_tests.conftest import prerequisite

settings.register_profile("engine", deadline=None)
settings.load_profile("engine")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server for the session's tests."""
    prerequisite(importlib.util.find_spec("psycopg2"), "psycopg2 (pip install psycopg2-binary)")
    found = programs()
    prerequisite(found, "PostgreSQL (apt-get install postgresql)")
    assert found is not None
    with running(found) as server:
        yield server


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with engine.site(tmp_path) as opened:
        yield opened


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Site]:
    """A site whose batches end only when the emulator's clock is moved."""
    with engine.site(tmp_path, end_s=3600.0) as opened:
        yield opened


@pytest.fixture(params=["sqlite", "postgresql"])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Makes URLs of empty ledgers; a test that asks for it runs on both databases."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgres").new_database
    numbers = itertools.count(1)
    return lambda: f"sqlite:///{tmp_path / f'ledger_{next(numbers)}.db'}"


@pytest.fixture
def url(new_url: Callable[[], str]) -> str:
    """The URL of an empty ledger; a test that asks for it runs on both databases."""
    return new_url()
