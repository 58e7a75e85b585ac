from __future__ import annotations

from collections.abc import Iterator

import anthropic
import pytest

from batch_etl.emulator.server import running
from batch_etl_tests.emulator.driver import Driver, sdk


@pytest.fixture(scope="session")
def shared_url() -> Iterator[str]:
    """One emulator for tests that do not mind other batches."""
    with running() as url:
        yield url


@pytest.fixture
def url() -> Iterator[str]:
    """An emulator of the test's own."""
    with running() as started:
        yield started


@pytest.fixture
def driver(url: str) -> Iterator[Driver]:
    with Driver(url) as driver:
        yield driver


@pytest.fixture
def shared(shared_url: str) -> Iterator[Driver]:
    with Driver(shared_url) as driver:
        yield driver


@pytest.fixture
def client(url: str) -> Iterator[anthropic.Anthropic]:
    with sdk(url) as client:
        yield client
