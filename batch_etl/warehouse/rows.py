"""The rows that a partition's two files make, as SQL: a value for each column of the table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from batch_etl.warehouse.answers import Answers
from batch_etl.warehouse.columns import Column, lineage_sql
from batch_etl.warehouse.evolution import converted
from batch_etl.warehouse.partition import Files, is_another, records_sql

ROWS_PER_JOIN = 400_000
"""A join of more is held in memory that a load does not have, so it would be written to disk and
read again, which doubles the time. Results lie by batches, each of a stretch of records, so those
of other stretches are passed over quickly.
"""


@dataclass(frozen=True)
class Rows:
    """``record``: the names of the records file's columns, in order. ``wanted``: the columns as
    that file has them; ``columns``: the same with the table's own types.
    """

    files: Files
    record: list[str]
    wanted: Sequence[Column]
    columns: Sequence[Column]
    answers: Answers
    loaded_at: datetime

    def value(self, column: Column) -> str:
        """SQL: what fills the column, of the aliases that :meth:`sources` has."""
        if column.role == "lineage":
            return lineage_sql(column, self.files.partition, self.loaded_at.isoformat())
        if column.role == "answer":
            return self.answers.value(column)
        types = {wanted.name: wanted.type for wanted in self.wanted}
        sql = f"r.c{self.record.index(column.source)}"
        return converted(sql, types[column.name], column.type)

    def sources(self, results: str, count: int) -> Iterator[str]:
        """SQL: each of ``results`` as ``p``, with its record as ``r``, if it is that record's.

        Of many records (``count``) it is several sources, to be read one after the other.
        """
        joined = (
            f"FROM {self.answers.read(results)} p "
            f"JOIN {records_sql(self.files, len(self.record))} ON r.k = p.record_row "
            f"WHERE NOT {is_another(self.record, self.wanted[0])}"
        )
        if count <= ROWS_PER_JOIN:
            yield joined
            return
        step = math.ceil(count / math.ceil(count / ROWS_PER_JOIN))
        for first in range(0, count, step):
            between = f"BETWEEN {first} AND {first + step - 1}"
            yield f"{joined} AND p.record_row {between} AND r.k {between}"
