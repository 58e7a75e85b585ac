"""What the emulator remembers, in one SQLite file: batches, counters, and the settings that can
change.

A row of ``batches`` is the whole life of a batch: times in microseconds, its counts once it has
ended, and its ``conditions`` (the faults that were in force when it was created). Rows stay after
a delete (``deleted_us``), because a deleted batch's lines were bought all the same. Request lines
and results are files (``spool``, ``processing``).

One connection serves all threads under a lock: every statement here is short. WAL and
synchronous=NORMAL: a commit survives the death of the process.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import msgspec

from batch_etl.emulator.clock import Clock
from batch_etl.emulator.settings import ARCHIVED_AFTER_S, EXPIRES_AFTER_S, Pace

Status = Literal["in_progress", "canceling", "ended"]
Rest = Literal["expired", "canceled"]

SCHEMA = """
create table if not exists batches (
    seq integer primary key autoincrement,
    id text not null unique,
    status text not null,
    total integer not null,
    created_us integer not null,
    due_us integer,
    cancel_us integer,
    ended_us integer,
    deleted_us integer,
    finished real not null default 1.0,
    rest text not null default 'expired',
    succeeded integer not null default 0,
    errored integer not null default 0,
    canceled integer not null default 0,
    expired integer not null default 0,
    billed integer not null default 0,
    received text not null,
    conditions text not null
);
create index if not exists open_batches on batches (due_us) where status != 'ended';
create table if not exists settings (name text primary key, value text not null);
create table if not exists counters (
    name text not null, label text not null, count integer not null, primary key (name, label)
) without rowid;
"""


@dataclass(frozen=True)
class Batch:
    """A row of ``batches``.

    ``due_us``: when it ends by the pace (None: when its answers are there). ``finished``: the
    share of its lines that is done by then; the ``rest`` are expired or canceled. ``received``:
    the headers of its create, as JSON.
    """

    seq: int
    id: str
    status: Status
    total: int
    created_us: int
    due_us: int | None
    cancel_us: int | None
    ended_us: int | None
    deleted_us: int | None
    finished: float
    rest: Rest
    succeeded: int
    errored: int
    canceled: int
    expired: int
    billed: int
    received: str
    conditions: str

    @property
    def expires_us(self) -> int:
        return self.created_us + EXPIRES_AFTER_S * 1_000_000

    @property
    def archive_us(self) -> int:
        return self.created_us + ARCHIVED_AFTER_S * 1_000_000


def _claimed(folder: Path) -> int:
    """Hold the folder for this emulator alone, until the descriptor is closed. Raises OSError."""
    claim = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(claim)
        raise OSError(
            f"another emulator is using {folder}; stop it or take another folder"
        ) from None
    return claim


COLUMNS = ", ".join(field.name for field in fields(Batch))


class State:
    """The table, the clock and the pace; safe to call from any thread."""

    def __init__(self, folder: Path, pace: Pace | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._claim = _claimed(folder)
        self._lock = threading.RLock()
        self._database = sqlite3.connect(
            folder / "emulator.db", check_same_thread=False, isolation_level=None
        )
        self._database.execute("pragma journal_mode = wal")
        self._database.execute("pragma synchronous = normal")
        self._database.executescript(SCHEMA)
        self.clock = msgspec.json.decode(self.setting("clock") or "{}", type=Clock)
        self.pace = pace or msgspec.json.decode(self.setting("pace") or "{}", type=Pace)
        self.put_setting("pace", self.pace)

    def close(self) -> None:
        with self._lock:
            self._database.close()
            os.close(self._claim)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, and nobody in between."""
        with self._lock:
            self._database.execute("begin immediate")
            try:
                yield
            except BaseException:
                self._database.execute("rollback")
                raise
            self._database.execute("commit")

    def _rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._database.execute(statement, values).fetchall()

    def _batches(self, rest: str, *values: Any) -> list[Batch]:
        return [Batch(*row) for row in self._rows(f"select {COLUMNS} from batches {rest}", *values)]

    # settings and counters

    def setting(self, name: str) -> str | None:
        rows = self._rows("select value from settings where name = ?", name)
        return rows[0][0] if rows else None

    def put_setting(self, name: str, value: Any) -> None:
        text = msgspec.json.encode(value).decode()
        self._rows("insert or replace into settings values (?, ?)", name, text)

    def save_clock(self) -> None:
        self.put_setting("clock", self.clock)

    def set_pace(self, pace: Pace) -> None:
        """From now on; batches in progress that are not held by a fault get their new end too."""
        self.pace = pace
        self.put_setting("pace", pace)
        self._rows(
            "update batches set due_us = min(created_us + ?, created_us + ?)"
            " where status = 'in_progress' and due_us is not null and finished = 1.0",
            int(pace.end_s * 1e6),
            EXPIRES_AFTER_S * 1_000_000,
        )

    def count(self, name: str, label: str) -> None:
        self._rows(
            "insert into counters values (?, ?, 1) on conflict do update set count = count + 1",
            name,
            label,
        )

    def counts(self, name: str) -> dict[str, int]:
        rows = self._rows("select label, count from counters where name = ? order by label", name)
        return dict(rows)

    # batches

    def add(self, **columns: Any) -> None:
        """Insert a new batch; its lines must already lie in its folder."""
        names = ", ".join(columns)
        marks = ", ".join("?" * len(columns))
        self._rows(
            f"insert into batches (status, {names}) values ('in_progress', {marks})",
            *columns.values(),
        )

    def find(self, batch_id: str) -> Batch | None:
        """The batch, unless it was deleted."""
        found = self._batches("where id = ? and deleted_us is null", batch_id)
        return found[0] if found else None

    def get(self, batch_id: str) -> Batch:
        """The batch that must be there. Raises KeyError."""
        batch = self.find(batch_id)
        if batch is None:
            raise KeyError(batch_id)
        return batch

    def page(self, after: Batch | None, before: Batch | None, limit: int) -> list[Batch]:
        """Newest first; up to ``limit`` older than ``after`` or (the nearest) newer than
        ``before``.
        """
        if before is not None:
            newer = "where deleted_us is null and seq > ? order by seq limit ?"
            return self._batches(newer, before.seq, limit)[::-1]
        top = after.seq if after is not None else 2**62
        older = "where deleted_us is null and seq < ? order by seq desc limit ?"
        return self._batches(older, top, limit)

    def unended(self) -> list[Batch]:
        return self._batches("where status != 'ended' order by seq")

    def due(self, now_us: int) -> list[Batch]:
        """Open batches whose end has come, or whose answers alone decide (``due_us`` null)."""
        return self._batches(
            "where status != 'ended' and (due_us <= ? or due_us is null) order by seq", now_us
        )

    def ended(self) -> list[Batch]:
        """Every ended batch, deleted ones too."""
        return self._batches("where status = 'ended' order by seq")

    def everything(self) -> list[Batch]:
        return self._batches("order by seq")

    def cancel(self, batch: Batch, now_us: int, due_us: int, finished: float) -> None:
        self._rows(
            "update batches set status = 'canceling', cancel_us = ?, due_us = ?, finished = ?,"
            " rest = 'canceled' where seq = ? and status = 'in_progress'",
            now_us,
            due_us,
            finished,
            batch.seq,
        )

    def hold_to(self, batch: Batch, due_us: int) -> None:
        """Give a batch that waits for answers its end: what is not there by then has expired."""
        self._rows(
            "update batches set due_us = ?, finished = 0.0 where seq = ? and due_us is null",
            due_us,
            batch.seq,
        )

    def end(self, batch: Batch, ended_us: int, counts: dict[str, int]) -> None:
        """End and bill, once: a second call changes nothing."""
        self._rows(
            "update batches set status = 'ended', ended_us = ?, succeeded = ?, errored = ?,"
            " canceled = ?, expired = ?, billed = ? where seq = ? and status != 'ended'",
            ended_us,
            *(counts[name] for name in ("succeeded", "errored", "canceled", "expired", "billed")),
            batch.seq,
        )

    def delete(self, batch: Batch, now_us: int) -> None:
        self._rows("update batches set deleted_us = ? where seq = ?", now_us, batch.seq)

    # where files lie

    def batch_folder(self, batch_id: str) -> Path:
        return self.folder / "batches" / batch_id

    def digests(self, batch: Batch, kind: str) -> Path:
        """16 bytes a line; kept when the batch is deleted, because the money is spent."""
        return self.folder / "digests" / f"{batch.seq}.{kind}"
