"""A user's own folder of YAML, run by the real command ``batch-etl run``."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from batch_etl.emulator.server import running
from batch_etl_tests.acceptance.processes import command, eventually, run, started
from batch_etl_tests.components.make import DAILY, NOTES, YAML, holding, query
from batch_etl_tests.components.mistakes import MISTAKES, server_of
from batch_etl_tests.components.test_bad_input import open_batches
from batch_etl_tests.emulator.driver import Driver

pytestmark = pytest.mark.acceptance

KEY = "sk-ant-MARKED-0123456789"


def written(folder: Path, text: str, files: dict[str, str | bytes] | None = None) -> Path:
    """A defs folder outside of any project: one pipeline's YAML and its files."""
    pipeline = folder / "pipelines" / "mine"
    pipeline.mkdir(parents=True)
    (pipeline / "defs.yaml").write_text(text, encoding="utf-8")
    for name, content in ({"notes.csv": NOTES} if files is None else files).items():
        (pipeline / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder / "pipelines"


def batch_etl(cwd: Path, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
    return run(command("batch-etl"), *options, cwd=cwd, env=env)


def test_a_users_csv_is_a_table_after_one_command(
    tmp_path: Path, home: Path, emulator: Driver
) -> None:
    folder = written(tmp_path, YAML)
    done = batch_etl(tmp_path, "run", "mine", "--defs", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["success"], report["records"], report["answered"]) == (True, 5, 5)
    assert (report["sent"], report["batches"], report["endpoint"]) == (5, 1, "emulator")
    ids = query(home, "SELECT note_id FROM emulator.mine ORDER BY 1")
    assert ids == [(f"n{n}",) for n in range(1, 6)]
    again = batch_etl(tmp_path, "run", "mine", "--defs", str(folder), "--json")
    assert json.loads(again.stdout)["sent"] == 0
    assert emulator.status()["requests_received"] == 5


def test_partitions_are_chosen_by_key_or_all_at_once(
    tmp_path: Path, home: Path, emulator: Driver
) -> None:
    folder = str(written(tmp_path, DAILY))
    none = batch_etl(tmp_path, "run", "mine", "--defs", folder)
    assert none.returncode != 0
    assert "--all-partitions" in none.stderr
    one = batch_etl(tmp_path, "run", "mine", "--defs", folder, "--partition", "2026-11-02")
    assert one.returncode == 0, one.stderr
    every = batch_etl(tmp_path, "run", "mine", "--defs", folder, "--all-partitions")
    assert every.returncode == 0, every.stderr
    assert emulator.status()["requests_received"] == 5
    assert query(home, "SELECT count(*) FROM emulator.mine") == [(5,)]


def test_ctrl_c_while_a_batch_is_awaited_leaves_it_to_the_next_run(
    tmp_path: Path, home: Path, emulator: Driver
) -> None:
    arguments = ("run", "mine", "--defs", str(written(tmp_path, YAML)))
    emulator.pace(end_s=86_000)
    log = tmp_path / "run.log"
    with started(command("batch-etl"), *arguments, cwd=tmp_path, env={}, log=log) as child:
        eventually(
            "it waits", lambda: emulator.status()["http_calls"].get("retrieve"), log, within_s=60
        )
        child.send_signal(signal.SIGINT)
        code = child.wait(30)
    said = log.read_text()
    assert code == 130, said
    assert said.splitlines()[-1].startswith("Interrupted. What was sent goes on")
    assert "Error" not in said
    assert "Dagster" not in said
    emulator.pace(end_s=0)
    assert batch_etl(tmp_path, *arguments).returncode == 0
    assert emulator.status()["creates_accepted"] == 1


@dataclass(frozen=True)
class Tried:
    done: subprocess.CompletedProcess[str]
    home: Path
    posts: int


def attempt(folder: Path, name: str, emulator_url: str) -> Tried:
    mistake = MISTAKES[name]
    defs = written(folder, mistake.yaml, mistake.files)
    home = folder / "home"
    env = {"BATCH_ETL_HOME": str(home), "BATCH_ETL_ENDPOINT": "emulator"}
    env["BATCH_ETL_EMULATOR_URL"] = emulator_url
    with server_of(mistake) as server:
        if mistake.server != "none":
            env |= {"BATCH_ETL_ENDPOINT": "anthropic", "ANTHROPIC_BASE_URL": server.url}
            env["ANTHROPIC_API_KEY"] = KEY
        done = batch_etl(folder, "run", "mine", "--defs", str(defs), **env)
        return Tried(done, home, sum(call.method == "POST" for call in server.received))


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Tried]]:
    """Every mistake, two processes at a time; what the emulator got is under ``emulator``."""
    with running() as url, Driver(url) as driver, ThreadPoolExecutor(2) as pool:
        futures = {
            name: pool.submit(attempt, tmp_path_factory.mktemp("mistake"), name, url)
            for name in MISTAKES
        }
        outcomes = {name: future.result() for name, future in futures.items()}
        assert driver.status()["creates_accepted"] == 0
        yield outcomes


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_said_on_stderr_and_leaves_nothing_half_written(
    tried: dict[str, Tried], name: str
) -> None:
    outcome, mistake = tried[name], MISTAKES[name]
    said = outcome.done.stderr
    assert outcome.done.returncode in (1, 2), said
    for word in mistake.words:
        assert word in said
    assert "Error: " in said
    assert "Traceback" not in said
    assert KEY not in said + outcome.done.stdout
    assert outcome.posts == 0
    assert not (outcome.home / "results").exists()
    assert not (outcome.home / "warehouse.duckdb").exists()
    records = sorted(path.name for path in (outcome.home / "records").rglob("*") if path.is_file())
    assert records == (["all.parquet"] if mistake.at == "results" else [])
    assert open_batches(outcome.home) == []
    if outcome.home.exists():
        assert not holding(outcome.home, KEY)
