"""The ready pipelines as their folders have them: name, YAML and sample records.

Files are read with the standard library alone, not with our own reader.
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
from batch_etl.components.partitions import Partitions, slices
from batch_etl.sources.duckdb_file import DuckdbSource

DEFS = Path(batch_etl.__file__).parent / "defs"


def _with(component: str) -> list[str]:
    """The folders whose YAML has such a component."""
    line = f"type: batch_etl.components.{component}\n"
    found = DEFS.glob("*/defs.yaml")
    return sorted(path.parent.name for path in found if line in path.read_text("utf-8"))


READY = _with("BatchPipeline")
EVALUATIONS = _with("Evaluation")


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
    """The sample records: those of its text files, or what its query answers."""
    source = attributes(pipeline)["source"]
    if source.get("type") == "duckdb":
        return list(_asked(pipeline))
    path = source.get("path", "")
    patterns = [path] if isinstance(path, str) else path
    files = sorted(file for one in patterns if one for file in (DEFS / pipeline).glob(one))
    return [record for file in files for record in _read(file)]


def _asked(pipeline: str) -> Iterator[dict[str, Any]]:
    block = attributes(pipeline)
    source = DuckdbSource.load(block["source"], "source").anchored(DEFS / pipeline)
    definition = Partitions.load(block["partitions"], "partitions").definition()
    for portion in source.read(slices(definition, definition.get_partition_keys())):
        yield from portion.batch.to_pylist()


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
