"""The ready pipelines as their folders have them: name, YAML and sample records, read without
Dagster.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

import batch_etl
from batch_etl.batches.task import Task

DEFS = Path(batch_etl.__file__).parent / "defs"
READY = sorted(
    path.parent.name
    for path in DEFS.glob("*/defs.yaml")
    if "components.BatchPipeline" in path.read_text("utf-8")
)


@cache
def attributes(pipeline: str) -> dict[str, Any]:
    """The pipeline's own block; the file may hold further ones of other kinds."""
    blocks = list(yaml.safe_load_all((DEFS / pipeline / "defs.yaml").read_text("utf-8")))
    return next(b["attributes"] for b in blocks if b["type"].endswith(".BatchPipeline"))


@cache
def task(pipeline: str) -> Task:
    return Task.load(attributes(pipeline)["task"], "task").anchored(DEFS / pipeline)


@cache
def schema(pipeline: str) -> dict[str, Any]:
    answer_schema = task(pipeline).answer_schema
    assert answer_schema is not None
    return answer_schema.resolved


@cache
def records(pipeline: str) -> list[dict[str, Any]]:
    """The sample records; none for a pipeline whose source is no text file."""
    path = attributes(pipeline)["source"].get("path", "")
    patterns = [path] if isinstance(path, str) else path
    files = sorted(file for one in patterns if one for file in (DEFS / pipeline).glob(one))
    return [record for file in files for record in _read(file)]


def _read(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8") as lines:
        if path.suffix == ".csv":
            for row in csv.DictReader(lines, strict=True):
                yield {name: cell or None for name, cell in row.items()}
        elif path.suffix == ".jsonl":
            yield from map(json.loads, lines.read().rstrip("\n").split("\n"))


def cells(value: Any) -> Iterator[Any]:
    """Every text, number and null in a record, however deep."""
    if isinstance(value, dict):
        for member in value.values():
            yield from cells(member)
    elif isinstance(value, list):
        for item in value:
            yield from cells(item)
    else:
        yield value
