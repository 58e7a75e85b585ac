"""What commands load: what Dagster's processes load, but for what the UI alone shows."""

from __future__ import annotations

from typing import Any

import dagster as dg

from batch_etl.commands import project
from batch_etl.definitions import defs


def contents(definitions: dg.Definitions) -> dict[str, Any]:
    """The names of all that there is."""
    whole = definitions.get_repository_def()
    return {
        "assets": sorted(key.to_user_string() for key in whole.asset_graph.get_all_asset_keys()),
        "checks": sorted(map(str, whole.asset_graph.asset_check_keys)),
        "jobs": sorted(job.name for job in whole.get_all_jobs()),
        "schedules": sorted(one.name for one in whole.schedule_defs),
        "sensors": sorted(one.name for one in whole.sensor_defs),
        "resources": sorted(whole.get_top_level_resources()),
    }


def test_commands_load_what_dagster_loads():
    expected = contents(defs())
    assert len(expected["assets"]) > 30
    assert contents(project.definitions(None)) == expected
