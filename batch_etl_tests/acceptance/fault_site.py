"""One user before one faulty server: a CSV, a pipeline in YAML, a home, an emulator of its own.

A run is what ``batch-etl run`` does, through Dagster, in this process; a run that shall be killed
is the real command in a process of its own, whose calls go through a relay that holds one of them.
"""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import yaml

from batch_etl.commands import project
from batch_etl.commands.run import run_pipeline
from batch_etl.emulator.server import running
from batch_etl_tests.acceptance.fault_relay import PATIENCE_S, Moment, relay
from batch_etl_tests.acceptance.processes import command, succeed
from batch_etl_tests.emulator.driver import Driver

RECORDS = 500

Post = tuple[str, str]
"""A record's id, and the seal that its answer must show."""

TASK: dict[str, Any] = {
    "claude_model": "claude-haiku-4-5",
    "max_tokens": 100,
    "prompt": "Copy the seal of this post.\n<post>\nseal: {{ seal }}\n{{ text }}\n</post>\n",
    "output_schema": {
        "type": "object",
        "required": ["seal"],
        "properties": {"seal": {"type": "string"}},
    },
}


def posts(count: int = RECORDS, seals: int = RECORDS * 2) -> list[Post]:
    """Records r000, r001, ... with the seals s000, s001, ..., which repeat after ``seals``."""
    return [(f"r{n:03}", f"s{n % seals:03}") for n in range(count)]


@dataclass(frozen=True)
class Row:
    """One row of the table in DuckDB, as far as it is judged."""

    id: str
    seal: str | None
    state: str
    outcome: str
    model: str
    task_version: str
    cost_usd: Decimal


@dataclass
class Site:
    """What the user has on the machine, what is asked, and how often the command was given."""

    folder: Path
    url: str
    emulator: Driver
    records: list[Post] = field(default_factory=posts)
    runs: int = 0

    def write(self, records: list[Post] | None = None, **task: Any) -> None:
        """The CSV and the YAML; what is not given stays as it was, or the task of all cases."""
        self.records = records or self.records
        pipeline = self.folder / "pipelines" / "posts"
        pipeline.mkdir(parents=True, exist_ok=True)
        with (pipeline / "posts.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["id", "seal", "text"])
            table.writerows((*post, "Thanks for the tomatoes, they grow.") for post in self.records)
        attributes = {
            "name": "posts",
            "source": {"path": "posts.csv", "id": "id"},
            "task": {**TASK, **task},
            "table": {"columns": []},
        }
        text = yaml.safe_dump(
            {"type": "batch_etl.components.BatchPipeline", "attributes": attributes}
        )
        (pipeline / "defs.yaml").write_text(text, encoding="utf-8")

    def run(self) -> None:
        """The pipeline once, to its end. Raises ``AssertionError`` with the run's own sentence."""
        self.runs += 1
        with _environ(self._settings(self.url)), dg.DagsterInstance.ephemeral() as instance:
            definitions = project.definitions(self.folder / "pipelines")
            report = run_pipeline(definitions, instance, "posts", (), all_partitions=False)
        assert report.success, f"run {self.runs} failed: {'; '.join(report.errors)}"

    def run_command(self) -> None:
        """The pipeline once, by the command. Raises ``AssertionError`` with what it printed."""
        self.runs += 1
        succeed(*self._command(), cwd=self.folder, env=self._settings(self.url))

    def run_killed(self, moment: Moment, method: str, path_ends: str) -> None:
        """``batch-etl run``, killed while the call of this method and path is held."""
        with relay(self.url) as held:
            held.hold(moment, method, path_ends)
            with self._started(held.url) as child:
                self._until(child, held.held.is_set)

    def run_killed_waiting(self) -> None:
        """``batch-etl run``, killed when it has said that it waits for its batch."""
        with self._started(self.url) as child:
            self._until(child, lambda: "waiting for 1 of 1 batch" in self._said().read_text())

    @contextmanager
    def _started(self, url: str) -> Iterator[subprocess.Popen[bytes]]:
        """The command in a process of its own, killed by SIGKILL when the body is left."""
        self.runs += 1
        with self._said().open("wb") as output:
            child = subprocess.Popen(
                self._command(),
                cwd=self.folder,
                env={**os.environ, **self._settings(url)},
                stdout=output,
                stderr=output,
            )
            try:
                yield child
            finally:
                child.send_signal(signal.SIGKILL)
                child.wait()
        assert child.returncode == -signal.SIGKILL, self._said().read_text()

    def _until(self, child: subprocess.Popen[bytes], reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not reached():
            alive = child.poll() is None and time.monotonic() < deadline
            assert alive, f"not where it was to be killed:\n{self._said().read_text()}"
            time.sleep(0.02)

    def _command(self) -> list[str]:
        return [command("batch-etl"), "run", "posts", "--defs", str(self.folder / "pipelines")]

    def _said(self) -> Path:
        return self.folder / f"run-{self.runs}.log"

    def _settings(self, url: str) -> dict[str, str]:
        return {
            "BATCH_ETL_HOME": str(self.folder / "home"),
            "BATCH_ETL_ENDPOINT": "emulator",
            "BATCH_ETL_EMULATOR_URL": url,
        }

    def rows(self) -> list[Row]:
        """The table, as an analyst reads it."""
        with duckdb.connect(
            str(self.folder / "home" / "warehouse.duckdb"), read_only=True
        ) as house:
            found = house.execute(
                "SELECT id, seal, _state, _outcome, _model, _task_version, _cost_usd"
                " FROM emulator.posts ORDER BY id"
            ).fetchall()
        return [Row(*values) for values in found]


@contextmanager
def site(folder: Path, *, end_s: float = 0.0) -> Iterator[Site]:
    """A site below ``folder`` with 500 posts, whose batches end after ``end_s`` of the clock."""
    with running(folder / "emulator") as url, Driver(url) as driver:
        driver.pace(end_s=end_s, cancel_s=0.0, retry_after_s=0.1)
        opened = Site(folder, url, driver)
        opened.write()
        yield opened


@contextmanager
def _environ(settings: dict[str, str]) -> Iterator[None]:
    """These settings in this process's environment, for the body."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
