"""Opening the warehouse's files: one writer at a time, in this process and among processes.

DuckDB locks a database file for the process that writes it (facts: one writer excludes every other
process; many readers share). So a writer's connection here is short, is always closed, and waits
its turn: first for the other threads of this process (they would share one DuckDB instance), then
for other processes, with jitter, until ``lock_timeout_s``.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from batch_etl.errors import WarehouseError
from batch_etl.warehouse.sql import literal

_FIRST_WAIT_S = 0.02
_LONGEST_WAIT_S = 1.0

_writers: dict[Path, threading.Lock] = {}
_writers_guard = threading.Lock()


class WarehouseBusy(WarehouseError):
    """Another process or thread holds the file; the same call may succeed later."""

    transient = True


@dataclass(frozen=True)
class Settings:
    """What one writer may use. ``memory_mb`` bounds DuckDB's own; the rest spills to disk.

    One thread, because each thread of an insert fills row groups of its own, and those that are
    not full at its end are put together and compressed a second time: with two threads a load of
    300,000 rows takes half as much CPU again and no less time, and the file is larger.
    """

    memory_mb: int = 160
    threads: int = 1
    lock_timeout_s: float = 120.0


@contextmanager
def writing(path: Path, settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    """A read-write connection, closed at the end whatever happens.

    Raises WarehouseBusy when the file stays locked for ``lock_timeout_s``.
    """
    deadline = time.monotonic() + settings.lock_timeout_s
    with _turn(path, deadline, settings.lock_timeout_s):
        connection = _connect(path, settings, deadline)
        try:
            _configure(connection, path)
            yield connection
        finally:
            connection.close()


@contextmanager
def reading(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A read-only connection to a published file, closed at the end."""
    if not path.exists():
        raise WarehouseError(f"{path} does not exist: nothing has been loaded and published yet.")
    try:
        connection = duckdb.connect(path, read_only=True)
    except duckdb.Error as error:
        raise _not_opened(path, error) from error
    try:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection
    finally:
        connection.close()


@contextmanager
def _turn(path: Path, deadline: float, timeout_s: float) -> Iterator[None]:
    with _writers_guard:
        lock = _writers.setdefault(path.resolve(), threading.Lock())
    if not lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
        raise WarehouseBusy(
            f"{path} is being written by another thread of this process; waited {timeout_s:g} s. "
            "Run loads one after the other (pool of one)."
        )
    try:
        yield
    finally:
        lock.release()


def _connect(path: Path, settings: Settings, deadline: float) -> duckdb.DuckDBPyConnection:
    path.parent.mkdir(parents=True, exist_ok=True)
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{settings.memory_mb}MiB",
        "threads": settings.threads,
        "preserve_insertion_order": False,
    }
    wait_s = _FIRST_WAIT_S
    while True:
        try:
            return duckdb.connect(path, config=config)
        except duckdb.IOException as error:
            if "lock" not in str(error):
                raise _not_opened(path, error) from error
            if time.monotonic() + wait_s > deadline:
                raise _locked(path, settings.lock_timeout_s, error) from error
        except duckdb.Error as error:
            raise _not_opened(path, error) from error
        time.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
        wait_s = min(wait_s * 2, _LONGEST_WAIT_S)


def _configure(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET enable_progress_bar = false")
    connection.execute(f"SET temp_directory = {literal(f'{path}.tmp')}")


def _locked(path: Path, timeout_s: float, error: duckdb.Error) -> WarehouseBusy:
    holder = re.search(r"held in (.+?) ?\(PID (\d+)\)", str(error))
    who = f"process {holder[2]} ({holder[1]})" if holder else "another process"
    return WarehouseBusy(
        f"{path} is locked by {who}; waited {timeout_s:g} s. If that is a load, run it again when "
        "it has ended; if someone opened this file to look at it, close that: the published "
        "file is the one to open."
    )


def _not_opened(path: Path, error: duckdb.Error) -> WarehouseError:
    return WarehouseError(
        f"{path} cannot be opened by DuckDB {duckdb.__version__}: {error}. If the file is damaged "
        "or from another version, move it away (with its .wal, if any) and load again: "
        "everything in it is rebuilt from the Parquet files."
    )
