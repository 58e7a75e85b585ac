"""The short form of the soak: a dozen scenarios of seeded chaos. The long one is ``make soak``."""

from __future__ import annotations

import subprocess
import sys

import pytest

from batch_etl_tests.acceptance.processes import ROOT
from batch_etl_tests.faults.soak import SHORT

pytestmark = pytest.mark.acceptance

PATIENCE_S = 1800


def test_whatever_goes_wrong_nothing_is_paid_twice_and_nothing_is_lost() -> None:
    command = [sys.executable, "-m", "batch_etl_tests.faults.soak"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert f"{len(SHORT)} scenarios" in done.stdout
    assert done.stdout.strip().endswith("0 failed")
