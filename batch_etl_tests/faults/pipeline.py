"""A whole pipeline before a real emulator, from its CSV to the published table.

It is what the three assets of a pipeline do (extract, transform, load), without Dagster around it,
so that a process can do it in a fraction of a second and be killed anywhere in it.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from batch_etl.batches.runner import Runner
from batch_etl.batches.transform import Transform
from batch_etl.sources import FilesSource, PartitionSlice, extract
from batch_etl.warehouse import PartitionLoad, TableSpec, Warehouse
from batch_etl_tests.batches.engine import SENTIMENT, Site, until_done

Record = dict[str, str]
"""``id``, ``text`` and, where the pipeline has partitions, ``day``."""

VOLATILE = ("_batch_id", "_answered_at", "_loaded_at")
"""Columns that no two runs have in common."""


def csv_of(site: Site, pipeline: str | None = None) -> Path:
    return site.root.parent / f"{pipeline or site.pipeline}.csv"


def write_csv(site: Site, records: Sequence[Record], pipeline: str | None = None) -> None:
    """The pipeline's source."""
    with csv_of(site, pipeline).open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, ["id", "text", "day"])
        table.writeheader()
        table.writerows(records)


def days(site: Site, pipeline: str | None = None) -> list[str]:
    """The partitions that the source has, in order."""
    with csv_of(site, pipeline).open(newline="", encoding="utf-8") as file:
        return sorted({row["day"] for row in csv.DictReader(file)})


def extracted(site: Site, pipeline: str | None = None, **task: Any) -> Transform:
    """Read the source; the transform over its records."""
    name, keys = pipeline or site.pipeline, days(site, pipeline)
    path = str(csv_of(site, pipeline))
    source = FilesSource(path=path, id="id", partition_column="day", on_duplicate="first")
    extract(source, [PartitionSlice(key) for key in keys], lambda key: site.home.records(name, key))
    return site.transform(None, pipeline=name, keys=keys, **task)


def loaded(site: Site, transform: Transform) -> None:
    """Load the transform's results and publish the table."""
    home, name = site.home, transform.pipeline
    spec = TableSpec(name, "id", output_schema=SENTIMENT)
    loads = [
        PartitionLoad(key, home.records(name, key), home.results(site.endpoint, name, key))
        for key in transform.scope
    ]
    house = Warehouse(home.warehouse_working, home.warehouse)
    house.load(spec, site.endpoint, loads)
    house.publish()


def run(site: Site, pipeline: str | None = None, **task: Any) -> None:
    """From the source to the table."""
    transform = extracted(site, pipeline, **task)
    site.run(transform)
    loaded(site, transform)


def advanced(site: Site, transform: Transform, runner: Runner | None = None) -> str:
    """One step of a transform, and no more; its id."""
    runner = runner or site.runner()
    identity = runner.open(transform)
    runner.advance(identity, transform)
    return identity


def finished(site: Site, transform: Transform) -> None:
    """The transform's steps to its end."""
    runner = site.runner()
    until_done(runner, runner.open(transform), transform)


def table(site: Site, pipeline: str | None = None) -> list[dict[str, Any]]:
    """The published table, without what no two runs have in common, ordered by id."""
    query = f"SELECT * EXCLUDE ({', '.join(VOLATILE)}) FROM emulator.{pipeline or site.pipeline}"
    with duckdb.connect(str(site.home.warehouse), read_only=True) as house:
        found = house.execute(f"{query} ORDER BY _partition, id")
        names = [column[0] for column in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
