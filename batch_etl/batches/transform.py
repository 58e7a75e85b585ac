"""The unit that a run advances: one task over the records of some partitions."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
from upath import UPath

from batch_etl.batches.budget import Budget
from batch_etl.batches.request import Renderer
from batch_etl.batches.task import Task
from batch_etl.errors import SourceError


@dataclass(frozen=True)
class Partition:
    """One partition's records on disk; ``key`` is None where the pipeline has no partitions."""

    key: str | None
    records: UPath


@dataclass(frozen=True)
class Transform:
    """One task applied to the records of one or more partitions."""

    pipeline: str
    task: Task
    id_column: str
    partitions: tuple[Partition, ...]
    delete_collected: bool = False
    """Delete each batch at the API once its results are here."""
    budget: Budget | None = None
    folder: Path = field(default_factory=Path)
    """What the paths of attachments are relative to."""

    @property
    def scope(self) -> tuple[str | None, ...]:
        return tuple(partition.key for partition in self.partitions)

    def renderer(self, partition: Partition) -> Renderer:
        """The task's renderer for one partition's columns."""
        if not partition.records.exists():
            raise SourceError(
                f"pipeline {self.pipeline!r}: {partition.records} does not exist; "
                f"materialize {self.pipeline}/records first"
            )
        names = pq.read_schema(str(partition.records)).names
        where = f"pipeline {self.pipeline!r}"
        return Renderer(self.task, self.id_column, names, where, self.folder)
