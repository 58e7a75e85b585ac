"""What all tests share: an environment without anybody's settings, and an emulator in a thread."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from batch_etl.emulator.server import running
from batch_etl.environment import SETTINGS
from batch_etl_tests.emulator.driver import Driver

FOREIGN = ("DAGSTER_HOME", "DAGSTER_PG_URL", "BATCH_ETL_DEFS")
"""Variables that are no settings of ours, and would change what a test sees."""


def pytest_configure(config: pytest.Config) -> None:
    """Dagster calls what pydantic has deprecated: ``parse_obj_as``, ``__fields__`` and others."""
    config.addinivalue_line("filterwarnings", "ignore::pydantic.PydanticDeprecatedSince20")


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have a key and a home; no test may see them."""
    for name in (*SETTINGS, *FOREIGN):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A BATCH_ETL_HOME of the test's own."""
    folder = tmp_path / "home"
    monkeypatch.setenv("BATCH_ETL_HOME", str(folder))
    return folder


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    """An emulator of the test's own, chosen in the environment; batches end at once."""
    with running() as url, Driver(url) as driver:
        monkeypatch.setenv("BATCH_ETL_ENDPOINT", "emulator")
        monkeypatch.setenv("BATCH_ETL_EMULATOR_URL", url)
        yield driver


def prerequisite(met: object, what: str) -> None:
    """Skip without ``what``; with BATCH_ETL_TESTS_NEVER_SKIP set that is a failure."""
    if met:
        return
    if os.environ.get("BATCH_ETL_TESTS_NEVER_SKIP"):
        pytest.fail(f"{what} is missing, and BATCH_ETL_TESTS_NEVER_SKIP is set")
    pytest.skip(f"{what} is missing")
