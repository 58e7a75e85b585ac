"""The definitions of the folder given to ``batch-etl dev --defs``, for Dagster's processes."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg

from batch_etl.commands import project


@dg.definitions
def defs() -> dg.Definitions:
    return project.definitions(Path(os.environ[project.DEFS_FOLDER]))
