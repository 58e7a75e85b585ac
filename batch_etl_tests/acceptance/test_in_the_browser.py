"""Dagster's UI in a real browser, on ``batch-etl dev`` as real processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from batch_etl_tests.conftest import prerequisite

pytestmark = pytest.mark.acceptance


def test_a_person_launches_backfills_terminates_and_sees_what_came_of_it(tmp_path: Path) -> None:
    try:
        from batch_etl_tests.acceptance.ui_tour import tour
    except ImportError as error:
        prerequisite(None, f"Playwright ({error})")
        raise
    from batch_etl_tests.acceptance.dev_site import dev_site

    with dev_site(tmp_path) as site:
        tour(site, tmp_path)
    pictures = {path.stem for path in tmp_path.glob("*.png")}
    launched = {"launch-backfill", "backfill", "waiting"}
    assert pictures == {"graph", "group", *launched, "results", "table"}
