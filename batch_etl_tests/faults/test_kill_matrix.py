"""Killed before or after any effect and run again, the end is that of an undisturbed run.

Here each point is cut once, first and later attempts and both databases by turns; the whole matrix
is ``make kill-matrix``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from batch_etl.effects import EFFECTS
from batch_etl_tests.acceptance.processes import ROOT
from batch_etl_tests.batches.postgres import programs
from batch_etl_tests.conftest import prerequisite

pytestmark = pytest.mark.acceptance

PATIENCE_S = 1800


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """From a process of its own: it forks hundreds, and starts threads."""
    prerequisite(programs(), "PostgreSQL (apt-get install postgresql)")
    command = [sys.executable, "-m", "batch_etl_tests.faults.kill_matrix", "--cover", "--json"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.stdout, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_a_run_killed_at_any_point_ends_as_an_undisturbed_one_does(report: dict[str, Any]) -> None:
    assert report["problems"] == []


def test_each_point_of_each_effect_is_cut(report: dict[str, Any]) -> None:
    assert report["not_passed"] == []
    assert report["points"] == 2 * len(EFFECTS)
    assert report["cases"] >= report["points"]
    ran = " ".join(report["by_scenario"])
    assert all(name in ran for name in ("first on", "retry on", "SQLite", "PostgreSQL"))
