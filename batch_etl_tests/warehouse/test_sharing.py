"""Loads, readers and other processes at the same files."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest
from upath import UPath

from batch_etl.errors import WarehouseError
from batch_etl.warehouse import Settings, TableSpec, Warehouse, WarehouseBusy
from batch_etl.warehouse.publish import KEPT_S
from batch_etl_tests.warehouse.make import partition

SPEC = TableSpec(
    "t", "id", output_schema={"type": "object", "properties": {"v": {"type": "integer"}}}
)
HOLD = """
import duckdb, sys
c = duckdb.connect(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""
KILLED = """
import duckdb, os, sys
c = duckdb.connect(sys.argv[1])
c.execute("BEGIN; DELETE FROM t; INSERT INTO t(id) VALUES ('half')")
os.kill(os.getpid(), 9)
"""
COMMITTED = """
import duckdb, os, sys
c = duckdb.connect(sys.argv[1])
c.execute("UPDATE t SET v = 2")
os.kill(os.getpid(), 9)
"""
READ = """
import duckdb, os, sys, time
path, stop, keeps = sys.argv[1], sys.argv[2], sys.argv[3] == "keeps"
seen, queries, connection, last = set(), 0, None, False
while not last:
    last = os.path.exists(stop)
    connection = connection or duckdb.connect(path, read_only=True)
    for _ in range(3):
        seen.add(connection.execute("SELECT count(*), min(v), max(v) FROM t").fetchone())
        seen.add(connection.execute("SELECT count(*), min(v), max(v) FROM t_latest").fetchone())
        queries += 2
    if not keeps:
        connection = connection.close()
    time.sleep(0.03)  # leave a core to the loads
    if queries == 6:
        print("reading", flush=True)
print(queries, all(n == 50 and low == high for n, low, high in seen), len(seen))
"""
OPEN = """
import duckdb, os, sys
path, stop = sys.argv[1:]
seen, opened = set(), 0
while not os.path.exists(stop):
    with duckdb.connect(path, read_only=True) as connection:
        seen.add(connection.execute("SELECT count(*), min(v), max(v) FROM t").fetchone())
        connection.execute("SELECT max(id), max(_task_version) FROM t_latest").fetchone()
    opened += 1
    if opened == 1:
        print("reading", flush=True)
print(opened, *sorted(seen))
"""
LOADS = 50
PUBLISHED = 100


def warehouse(folder: Path, **settings: Any) -> Warehouse:
    working, published = UPath(folder / "w/working.duckdb"), UPath(folder / "warehouse.duckdb")
    return Warehouse(working, published, Settings(**settings))


def load(made: Warehouse, folder: Path, value: int, key: str = "d") -> None:
    made.load(SPEC, "anthropic", [partition(folder, key, [{"v": value}] * 50)])


def values(made: Warehouse) -> list[int]:
    with made.read_only() as connection:
        return [
            row[0] for row in connection.execute("SELECT DISTINCT v FROM t ORDER BY v").fetchall()
        ]


@contextmanager
def python(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_readers_in_other_processes_never_fail_and_never_see_half_a_load(tmp_path: Path) -> None:
    """One keeps its connection all the time and sees what it opened; one connects again and again,
    and sees the partition of one load or another, never a part of it.
    """
    made = warehouse(tmp_path)
    load(made, tmp_path, 0)
    made.publish()
    stop = tmp_path / "stop"
    with (
        python(READ, made.published, stop, "keeps") as keeper,
        python(READ, made.published, stop, "again") as opener,
    ):
        for reader in (keeper, opener):
            assert reader.stdout
            assert reader.stdout.readline() == "reading\n"
        for value in range(1, LOADS + 1):
            load(made, tmp_path, value)
            made.publish()
        stop.touch()
        kept, opened = (reader.communicate(timeout=60)[0].split() for reader in (keeper, opener))
        assert (keeper.returncode, opener.returncode) == (0, 0)
    assert kept[1:] == ["True", "1"]
    assert opened[1] == "True"
    assert int(opened[2]) >= 2
    assert min(int(kept[0]), int(opened[0])) >= 12
    assert values(made) == [LOADS]


def test_who_is_just_opening_the_file_while_another_takes_its_place_sees_one_of_them(
    tmp_path: Path,
) -> None:
    """DuckDB opens a path several times before it has a connection."""
    houses = [
        Warehouse(UPath(tmp_path / name / "working.duckdb"), UPath(tmp_path / "warehouse.duckdb"))
        for name in ("small", "large")
    ]
    for value, (house, rows) in enumerate(zip(houses, (50, 20_000), strict=True)):
        answers = [{"v": value}] * rows
        house.load(SPEC, "anthropic", [partition(tmp_path / str(value), "d", answers)])
        house.publish()
    stop = tmp_path / "stop"
    arguments = (OPEN, tmp_path / "warehouse.duckdb", stop)
    with python(*arguments) as one, python(*arguments) as other:
        for reader in (one, other):
            assert reader.stdout
            assert reader.stdout.readline() == "reading\n"
        for turn in range(PUBLISHED):
            houses[turn % 2].publish()
        stop.touch()
        said = [reader.communicate(timeout=60)[0] for reader in (one, other)]
        assert (one.returncode, other.returncode) == (0, 0)
    assert all(line.endswith("(50, 0, 0) (20000, 1, 1)\n") for line in said), said


def test_a_process_that_connects_anew_sees_the_newest_copy(tmp_path: Path) -> None:
    """Even while it has an older one open; both are the database ``warehouse``.

    DuckDB follows the link before it opens anything, and knows the file by where it lies.
    """
    made = warehouse(tmp_path)
    connections: list[duckdb.DuckDBPyConnection] = []
    for value in (1, 2):
        load(made, tmp_path, value)
        made.publish()
        connections.append(duckdb.connect(made.published, read_only=True))
        opened = "SELECT path FROM duckdb_databases() WHERE database_name = current_database()"
        assert connections[-1].execute(opened).fetchone() == (str(made.published.resolve()),)
    shown = "SELECT current_database(), max(v) FROM t GROUP BY ALL"
    assert [c.execute(shown).fetchall() for c in connections] == [
        [("warehouse", 1)],
        [("warehouse", 2)],
    ]
    for connection in connections:
        connection.close()


def test_copies_that_nobody_can_be_opening_are_removed(tmp_path: Path) -> None:
    """A published file of an earlier version of this program is a file, and becomes a link."""
    made = warehouse(tmp_path)
    load(made, tmp_path, 1)
    made.publish()
    newest = made.published.resolve()
    made.published.unlink()
    newest.rename(made.published)
    versions = newest.parent.parent
    killed = versions / "killed"
    killed.mkdir()
    (killed / "warehouse.duckdb.0123456789ab.tmp").write_bytes(b"half a copy")
    for _ in range(3):
        made.publish()
        assert values(made) == [1]
    assert len(list(versions.iterdir())) == 5  # none is old enough
    long_ago = time.time() - 2 * KEPT_S
    for folder in versions.iterdir():
        os.utime(folder, (long_ago, long_ago))
    replaced = made.published.resolve().parent
    made.publish()
    kept = {replaced, made.published.resolve().parent}
    assert set(versions.resolve().iterdir()) == kept
    assert values(made) == [1]


def test_a_reader_keeps_the_file_that_it_opened(tmp_path: Path) -> None:
    made = warehouse(tmp_path)
    load(made, tmp_path, 1)
    made.publish()
    with made.read_only() as reader:
        load(made, tmp_path, 2)
        made.publish()
        assert reader.execute("SELECT max(v) FROM t").fetchone() == (1,)
    assert values(made) == [2]


def test_a_file_locked_by_another_process_is_waited_for_then_reported(tmp_path: Path) -> None:
    made = warehouse(tmp_path, lock_timeout_s=0.3)
    load(made, tmp_path, 1)
    with python(HOLD, made.working) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(WarehouseBusy, match=f"process {holder.pid} ") as raised:
            load(made, tmp_path, 2)
        assert raised.value.transient
        with pytest.raises(WarehouseBusy):
            made.publish()
    load(made, tmp_path, 3)
    made.publish()
    assert values(made) == [3]


def test_a_load_goes_on_when_the_lock_is_released_in_time(tmp_path: Path) -> None:
    made = warehouse(tmp_path)
    load(made, tmp_path, 1)
    with python(HOLD, made.working) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        threading.Timer(0.3, holder.kill).start()
        load(made, tmp_path, 2)
    made.publish()
    assert values(made) == [2]


def test_a_killed_writer_leaves_the_last_commit(tmp_path: Path) -> None:
    made = warehouse(tmp_path)
    load(made, tmp_path, 1)
    with python(KILLED, made.working) as writer:
        assert writer.wait(30) == -9
    made.publish()
    assert values(made) == [1]


def test_what_a_killed_writer_committed_is_published(tmp_path: Path) -> None:
    """It is in the WAL beside the file alone."""
    made = warehouse(tmp_path)
    load(made, tmp_path, 1)
    with python(COMMITTED, made.working) as writer:
        assert writer.wait(30) == -9
    assert made.working.with_name("working.duckdb.wal").exists()
    made.publish()
    assert values(made) == [2]


def test_a_file_that_is_no_database_is_not_published(tmp_path: Path) -> None:
    made = warehouse(tmp_path)
    load(made, tmp_path, 1)
    made.publish()
    made.working.write_bytes(b"not a database" * 1000)
    with pytest.raises(WarehouseError, match="cannot be opened"):
        made.publish()
    assert values(made) == [1]


def test_threads_of_one_process_take_turns(tmp_path: Path) -> None:
    made = warehouse(tmp_path)
    failures: list[BaseException] = []

    def work(key: str) -> None:
        try:
            load(made, tmp_path, 7, key)
            made.publish()
        except Exception as error:  # noqa: BLE001 - a thread has nobody to raise to
            failures.append(error)

    threads = [threading.Thread(target=work, args=(f"d{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert made.table("t", "anthropic").rows == 300


def test_publishing_keeps_other_processes_out_until_the_copy_is_in_place(tmp_path: Path) -> None:
    """Copying the file must not drop DuckDB's lock; two processes that load and publish lose
    nothing.
    """
    code = (
        "import sys; from pathlib import Path\n"
        "from batch_etl_tests.warehouse.test_sharing import *\n"
        "folder, name = Path(sys.argv[1]), sys.argv[2]; made = warehouse(folder)\n"
        "for n in range(5): load(made, folder, n, f'{name}{n}'); made.publish()"
    )
    with python(code, tmp_path, "a") as one, python(code, tmp_path, "b") as other:
        assert (one.wait(60), other.wait(60)) == (0, 0)
    assert warehouse(tmp_path).table("t", "anthropic").rows == 500


def test_a_restored_published_file_is_where_the_working_one_begins(tmp_path: Path) -> None:
    made = warehouse(tmp_path)
    load(made, tmp_path, 1, "d1")
    made.publish()
    Path(made.working).unlink()
    load(made, tmp_path, 2, "d2")
    made.publish()
    assert values(made) == [1, 2]
    assert [path.name for path in made.working.parent.iterdir()] == ["working.duckdb"]


def test_publishing_leaves_no_wal_of_another_file(tmp_path: Path) -> None:
    made = warehouse(tmp_path)
    load(made, tmp_path, 1)
    stale = tmp_path / "warehouse.duckdb.wal"
    stale.write_bytes(b"left by someone who wrote into the published file")
    made.publish()
    assert not stale.exists()
    assert values(made) == [1]


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    made = warehouse(tmp_path)
    with pytest.raises(WarehouseError, match="load something"):
        made.publish()
    with pytest.raises(WarehouseError, match="nothing has been loaded"), made.read_only():
        pass
    load(made, tmp_path, 1)
    made.publish()
    with pytest.raises(WarehouseError, match=r"no table emulator\.t"):
        made.table("t", "emulator")


def test_a_file_that_is_no_database_is_said_to_be_none(tmp_path: Path) -> None:
    made = warehouse(tmp_path)
    made.working.parent.mkdir()
    made.working.write_bytes(b"not a database" * 1000)
    with pytest.raises(WarehouseError, match="cannot be opened"):
        load(made, tmp_path, 1)


def test_the_files_must_be_local(tmp_path: Path) -> None:
    with pytest.raises(WarehouseError, match="local disk"):
        Warehouse(UPath("memory://w/working.duckdb"), UPath(tmp_path / "w.duckdb"))
