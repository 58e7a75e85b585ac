"""Freshness policies, as Dagster has them on the table."""

from __future__ import annotations

import datetime as dt

import dagster as dg
import pytest

from batch_etl.components.freshness import Freshness
from batch_etl_tests.components.make import YAML, Project
from batch_etl_tests.components.test_checks import with_block


def test_a_window_is_dagsters_time_window() -> None:
    policy = Freshness(fail_hours=26, warn_hours=25).policy()
    assert policy == dg.FreshnessPolicy.time_window(dt.timedelta(hours=26), dt.timedelta(hours=25))


def test_a_deadline_is_dagsters_cron_policy() -> None:
    policy = Freshness(cron="0 9 * * *", within_hours=6, timezone="Europe/Berlin").policy()
    assert policy == dg.FreshnessPolicy.cron("0 9 * * *", dt.timedelta(hours=6), "Europe/Berlin")


@pytest.mark.parametrize(
    ("block", "policy"),
    [
        ("freshness: {fail_hours: 26}", dg.FreshnessPolicy.time_window(dt.timedelta(hours=26))),
        ("sample_rows: 1", None),
    ],
)
def test_the_policy_is_on_the_table_alone(
    mine: Project, block: str, policy: dg.FreshnessPolicy | None
) -> None:
    mine.write(with_block(YAML, block))
    graph = mine.load().resolve_asset_graph()
    policies = {
        step: graph.get(dg.AssetKey(["mine", step])).freshness_policy
        for step in ("records", "results", "table")
    }
    assert policies == {"records": None, "results": None, "table": policy}
