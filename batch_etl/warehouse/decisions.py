"""What people decided on records in review: kept in files, shown in the table.

    <home>/reviews/<endpoint>/<pipeline>/<time>-<random>.parquet

One file for each time that somebody applies decisions; none is ever changed. What a requeue's model
answers (``batch-etl review requeue``) is kept as its decision, in the same way. They are files, and
no table of the warehouse alone, because the warehouse is what can be made again from files, and a
person's work cannot be. ``_batch_etl.decisions`` is a copy of the files, filled by every load.

A decision shows in the table as the record's answer, with ``_decided_by`` and ``_decided_at``, and
the record counts as answered; ``_outcome``, ``_reason``, ``_text`` and the cost go on telling what
the model did. It holds

- while the record is in review: an answer that the model gives later goes before it;
- for the question it was given to: the same request, or the same record under a changed task;
- while the output schema is the same: else its columns may mean something else.

What no longer holds is back in review, and holds again if all that comes back. The newest decision
on a record counts; one without an answer withdraws those before it. A decision made for another
partition serves where the record there is the same and has none of its own.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import duckdb
import pyarrow as pa
from upath import UPath

from batch_etl.errors import WarehouseError
from batch_etl.files import ParquetSink
from batch_etl.warehouse.answers import Answers
from batch_etl.warehouse.bookkeeping import SCHEMA, LoadedTable
from batch_etl.warehouse.columns import TableSpec
from batch_etl.warehouse.partition import one
from batch_etl.warehouse.sql import comma, identifier, json_object, literal

Connection = duckdb.DuckDBPyConnection

_FILE = pa.schema(
    [
        ("record_id", pa.string()),
        ("partition", pa.string()),
        ("request_key", pa.string()),
        ("record", pa.string()),
        ("schema_digest", pa.string()),
        ("answer", pa.string()),
        ("decided_by", pa.string()),
        ("decided_at", pa.timestamp("us", "UTC")),
    ]
)

_NEWEST = (
    f"(SELECT * FROM {SCHEMA}.decisions WHERE endpoint = ? AND pipeline = ? QUALIFY row_number() "
    "OVER (PARTITION BY partition, record_id ORDER BY decided_at DESC, file DESC) = 1)"
)


@dataclass(frozen=True)
class Standing:
    """How one row of a table stands: what a decision on it starts from."""

    record_id: str
    partition: str | None
    state: str
    request_key: str | None
    record: str
    """The record's columns as JSON."""
    answer: str
    """The answer's columns as a JSON object by property name; null where there is none."""
    decided_by: str | None
    decided_at: datetime | None


@dataclass(frozen=True)
class Decision:
    """``answer``: the record's answer as JSON, as a result has it; None withdraws."""

    on: Standing
    answer: str | None


def folder_of(reviews: Path, spec: TableSpec, endpoint: str) -> Path:
    return reviews / quote(endpoint, safe="") / spec.owner


def schema_digest(spec: TableSpec) -> str:
    """Equal for output schemas that allow the same answers, whatever words describe them."""
    text = json.dumps(_unannotated(spec.output_schema), sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _unannotated(node: Any, *, names: bool = False) -> Any:
    """A schema without annotations; ``names``: the keys of ``node`` are names of properties."""
    if isinstance(node, list | tuple):
        return [_unannotated(part) for part in cast("Sequence[Any]", node)]
    if not isinstance(node, Mapping):
        return node
    return {
        key: _unannotated(part, names=not names and key in ("properties", "$defs"))
        for key, part in cast("Mapping[str, Any]", node).items()
        if names or key not in ("title", "description", "examples", "$comment")
    }


def record_json(table: LoadedTable) -> str:
    """SQL: the record's columns of a row as JSON text."""
    parts = {column.source: identifier(column.name) for column in table.record_columns}
    return f"{json_object(parts)}::VARCHAR"


def answer_json(table: LoadedTable) -> str:
    """SQL: the answer's columns of a row as JSON text, by property name."""
    parts = {column.source: identifier(column.name) for column in table.answer_columns}
    return f"{json_object(parts)}::VARCHAR"


def standings(
    connection: Connection, table: LoadedTable, ids: Sequence[str]
) -> dict[tuple[str, str | None], Standing]:
    """The rows of these records, by id and partition; what is not there is left out."""
    id_text = f"{identifier(table.id_column.name)}::VARCHAR"
    rows = connection.execute(
        f"SELECT {id_text}, _partition, _state, _request_key, {record_json(table)}, "
        f"{answer_json(table)}, _decided_by, _decided_at FROM {table.sql} "
        f"WHERE {id_text} IN (SELECT unnest(?::VARCHAR[]))",
        [list(ids)],
    ).fetchall()
    found = [Standing(*row) for row in rows]
    return {(standing.record_id, standing.partition): standing for standing in found}


def check_unmoved(
    connection: Connection, table: LoadedTable, decisions: Sequence[Decision]
) -> None:
    """Raise WarehouseError if a row is not as it was when its decision was made."""
    now = standings(connection, table, [decision.on.record_id for decision in decisions])
    moved = [d.on for d in decisions if now.get((d.on.record_id, d.on.partition)) != d.on]
    if moved:
        raise WarehouseError(
            f"table {table.qualified_name}: {len(moved)} of {len(decisions)} records, the first "
            f"{moved[0].record_id!r}, changed while the decisions were being applied; nothing was "
            "written. Apply them again."
        )


def write(folder: Path, table: LoadedTable, decisions: Sequence[Decision], decided_by: str) -> Path:
    """One new file with these decisions, made now."""
    now = datetime.now(UTC)
    digest = schema_digest(table.spec)
    rows = [
        {
            "record_id": decision.on.record_id,
            "partition": decision.on.partition,
            "request_key": decision.on.request_key,
            "record": decision.on.record,
            "schema_digest": digest,
            "answer": decision.answer,
            "decided_by": decided_by,
            "decided_at": now,
        }
        for decision in decisions
    ]
    path = folder / f"{now:%Y%m%dT%H%M%S%fZ}-{uuid.uuid4().hex[:8]}.parquet"
    with ParquetSink(UPath(path), _FILE) as sink:
        for batch in pa.Table.from_pylist(rows, _FILE).to_batches():
            sink.write(batch)
    return path


@dataclass(frozen=True)
class Decided:
    """The decisions on one table's records, inside a transaction on the working file."""

    connection: Connection
    table: LoadedTable
    folder: Path

    @property
    def _whose(self) -> list[str]:
        return [self.table.endpoint, self.table.pipeline]

    def take_new_files(self) -> int:
        """Copy the files that are not in ``_batch_etl.decisions`` yet; returns how many.

        The records they speak of are put back into review, to be decided anew by :meth:`show`.
        """
        known = self._files()
        new = [path for path in sorted(self.folder.glob("*.parquet")) if path.name not in known]
        for path in new:
            self._take(path)
        return len(new)

    def _files(self) -> set[str]:
        rows = self.connection.execute(
            f"SELECT DISTINCT file FROM {SCHEMA}.decisions WHERE endpoint = ? AND pipeline = ?",
            self._whose,
        ).fetchall()
        return {name for (name,) in rows}

    def _take(self, path: Path) -> None:
        try:
            self.connection.execute(
                f"INSERT INTO {SCHEMA}.decisions SELECT ?, ?, ?, {comma(_FILE.names)} "
                f"FROM read_parquet({literal(str(path))})",
                [*self._whose, path.name],
            )
        except duckdb.Error as error:
            raise WarehouseError(
                f"{path} holds no decisions that can be read ({error}); restore it from a backup, "
                "or move it away."
            ) from error
        empty = comma([f"{identifier(c.name)} = NULL" for c in self.table.answer_columns])
        self.connection.execute(
            f"UPDATE {self.table.sql} SET {empty}, _state = 'review', _decided_by = NULL, "
            f"_decided_at = NULL WHERE _decided_by IS NOT NULL "
            f"AND {identifier(self.table.id_column.name)}::VARCHAR IN "
            f"(SELECT record_id FROM {SCHEMA}.decisions WHERE file = ?)",
            [path.name],
        )

    def show(self) -> int:
        """Give the records in review the decisions that hold; returns how many have got one."""
        if not self._files():  # nobody ever decided: there is nothing to look for
            return 0
        answers = Answers.of(self.table.spec, self.table.columns)
        columns = self.table.answer_columns
        id_name = identifier(self.table.id_column.name)
        values = comma([f"{answers.value(c)} AS v{number}" for number, c in enumerate(columns)])
        sets = comma([f"{identifier(c.name)} = s.v{number}" for number, c in enumerate(columns)])
        return one(
            self.connection,
            f"UPDATE {self.table.sql} t SET {sets}, _state = 'answered', "
            "_decided_by = s.by, _decided_at = s.at FROM "
            f"(SELECT p.id, p.part, p.by, p.at, {values} FROM "
            f"(SELECT *, {answers.parsed} AS answer FROM {self._holding()}) p) s "
            f"WHERE t.{id_name} = s.id AND t._partition IS NOT DISTINCT FROM s.part "
            "AND t._state = 'review'",
            [*self._whose, schema_digest(self.table.spec)],
        )[0]

    def _holding(self) -> str:
        """SQL: each row in review that has a decision, with its answer as ``output``."""
        id_name = identifier(self.table.id_column.name)
        return (
            f"(SELECT r.id, r.part, d.answer AS output, d.decided_by AS by, d.decided_at AS at "
            f"FROM (SELECT {id_name} AS id, _partition AS part, _request_key AS key, "
            f"{record_json(self.table)} AS record FROM {self.table.sql} WHERE _state = 'review') r "
            f"JOIN {_NEWEST} d ON d.record_id = r.id::VARCHAR "
            "AND (d.request_key = r.key OR d.record = r.record) "
            "QUALIFY row_number() OVER (PARTITION BY r.id, r.part ORDER BY "
            "(d.partition IS NOT DISTINCT FROM r.part) DESC, d.decided_at DESC) = 1 "
            "AND d.answer IS NOT NULL AND d.schema_digest = ?)"
        )

    def by_partition(self) -> dict[str | None, int]:
        """How many records of each partition show a decision."""
        rows = self.connection.execute(
            f"SELECT _partition, count(*) FROM {self.table.sql} "
            "WHERE _decided_by IS NOT NULL GROUP BY _partition"
        ).fetchall()
        return dict(rows)
