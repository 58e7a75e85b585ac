"""Dagster's entry: everything in ``batch_etl/defs``."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from batch_etl import memory


@dg.definitions
def defs() -> dg.Definitions:
    with memory.uncollected():
        return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
