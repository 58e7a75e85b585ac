"""After faults, kills, refusals and full disks: no key in any file, log, table or ledger."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_etl_tests.acceptance.processes import command, run
from batch_etl_tests.acceptance.test_run_command import written
from batch_etl_tests.components.make import DAILY
from batch_etl_tests.disguise import disguised
from batch_etl_tests.emulator.driver import Driver

pytestmark = pytest.mark.acceptance

KEY = "sk-ant-marked-3f1c9a7be25d4f60-0123456789"
HEADERS = ("x-api-key", "authorization: ", "bearer sk-")


def texts(root: Path) -> Iterator[tuple[Path, str]]:
    """Every file's content: as it lies there, and what is in it where that is packed."""
    for path in sorted(root.rglob("*")):
        if path.is_file():
            yield path, path.read_bytes().decode("utf-8", "replace")
            yield path, unpacked(path)


def unpacked(path: Path) -> str:
    if path.suffix == ".parquet":
        return str(pq.read_table(path).to_pylist()) + str(pq.read_schema(path).metadata)
    if path.suffix == ".zst":
        with pa.CompressedInputStream(pa.OSFile(str(path), "rb"), "zstd") as whole:
            return whole.read().decode("utf-8", "replace")
    if path.suffix == ".duckdb":
        with duckdb.connect(str(path), read_only=True) as house:
            tables = house.execute("SELECT schema_name, table_name FROM duckdb_tables()").fetchall()
            shown = [house.execute(f'FROM "{s}"."{t}"').fetchall() for s, t in tables]
            return f"{tables} {shown} {house.execute('FROM duckdb_columns()').fetchall()}"
    return ""


def killed_after(arguments: list[str], cwd: Path, env: dict[str, str], driver: Driver) -> str:
    """Run a command, and kill it when its create has been accepted; what it said until then."""
    log = cwd / "killed.log"
    with log.open("wb") as output:
        child = subprocess.Popen(
            arguments, cwd=cwd, env={**os.environ, **env}, stdout=output, stderr=output
        )
        try:
            while child.poll() is None and not driver.status()["creates_accepted"]:
                pass
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
    return log.read_text()


def test_no_key_and_no_header_is_left_anywhere_by_runs_that_fail_and_runs_that_do_not(
    tmp_path: Path, emulator: Driver
) -> None:
    """The same command again and again, before a server that is called with a key and fails."""
    folder, home = written(tmp_path, DAILY), tmp_path / "home"
    refusal = {"kind": "error", "message": f"invalid x-api-key {KEY}", "times": 1}
    with disguised(emulator.url) as claude:
        env = {
            "BATCH_ETL_HOME": str(home),
            "BATCH_ETL_ENDPOINT": "anthropic",
            "ANTHROPIC_BASE_URL": claude.url,
            "ANTHROPIC_API_KEY": KEY,
        }
        arguments = [command("batch-etl"), "run", "mine", "--defs", str(folder), "--all-partitions"]
        said: list[str] = []

        def again(*faults: dict[str, object]) -> int:
            emulator.faults(*faults)
            done = run(*arguments, cwd=tmp_path, env=env)
            said.extend([done.stdout, done.stderr])
            return done.returncode

        assert again({**refusal, "route": "*", "status": 401, "type": "authentication_error"}) != 0
        assert again({**refusal, "route": "create", "status": 400}) != 0
        emulator.pace(end_s=3600.0)
        said.append(killed_after(arguments, tmp_path, env, emulator))
        emulator.pace(end_s=0.0)
        cut = {"kind": "cut", "route": "results", "fraction": 0.5, "times": 1}
        assert again(cut, {"kind": "expire_lines", "attempts": 1}) == 0, said[-1]
        assert claude.keys == {KEY}, "the runs were before a server that wants the key"
    (home / "warehouse.duckdb").stat()
    assert any("storage" in str(path) or "dagster" in str(path) for path in home.rglob("*.db"))
    found = [path for path, text in texts(home) if KEY in text]
    assert found == []
    for shown in said:
        assert KEY not in shown
        assert not [header for header in HEADERS if f"{header}{KEY[:6]}" in shown.casefold()]
    ours = [path for path, text in texts(tmp_path) if KEY in text]
    assert ours == []
