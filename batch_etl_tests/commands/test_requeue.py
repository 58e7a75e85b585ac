"""``batch-etl review requeue``: asked once more, billed once, and the answers stay."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from batch_etl.batches.task import Task
from batch_etl.cli import cli
from batch_etl.components.requeue import asked_otherwise, is_requeue, scope_key
from batch_etl.effects import When, watch
from batch_etl.errors import BatchEtlError, ConfigError
from batch_etl_tests.components.make import DAILY, NOTES, YAML, edited, query
from batch_etl_tests.emulator.driver import Driver

REFUSE = {"kind": "refuse_lines", "match": "Go away"}
SHOWN = "SELECT note_id, _state, _outcome, _decided_by, kind IS NULL FROM emulator.mine ORDER BY 1"
_FORKS = multiprocessing.get_context("forkserver")


def invoke(*arguments: str) -> str:
    """What the command prints; its error is raised."""
    done = CliRunner().invoke(cli, list(arguments))
    if done.exception is not None:
        raise done.exception
    return done.stdout


class Site:
    """The pipeline ``mine``, run once by an emulator that refuses the note ``n2``."""

    def __init__(self, folder: Path, home: Path, emulator: Driver, text: str) -> None:
        self.home = home
        self.emulator = emulator
        self.folder = folder / "defs"
        (self.folder / "mine").mkdir(parents=True)
        self.write(text)
        (self.folder / "mine" / "notes.csv").write_text(NOTES)
        emulator.faults(REFUSE)
        self.run()
        emulator.faults()
        self.received = self.billed()

    def write(self, text: str) -> None:
        (self.folder / "mine" / "defs.yaml").write_text(text)

    def run(self) -> dict[str, Any]:
        partitions = ["--all-partitions"] if "partitions:" in self.text else []
        return json.loads(invoke("run", "mine", *partitions, "--defs", str(self.folder), "--json"))

    @property
    def text(self) -> str:
        return (self.folder / "mine" / "defs.yaml").read_text()

    def requeue(self, *options: str) -> dict[str, Any]:
        command = ["review", "requeue", "mine", "--defs", str(self.folder), "--json"]
        return json.loads(invoke(*command, *options))

    def billed(self) -> int:
        status = self.emulator.status()
        assert status["requests_billed_twice"] == 0
        return status["requests_billed"]

    def shown(self) -> list[tuple[Any, ...]]:
        return query(self.home, SHOWN)


@pytest.fixture
def site(tmp_path: Path, home: Path, emulator: Driver) -> Site:
    return Site(tmp_path, home, emulator, YAML)


def decided_by(site: Site) -> str:
    (who,) = {row[3] for row in site.shown() if row[3] is not None}
    return who


def test_what_was_refused_is_answered_by_another_model_and_stays_so(site: Site) -> None:
    before = site.shown()
    assert before[1] == ("n2", "review", "Refused", None, True)
    report = site.requeue("--model", "claude-sonnet-4-6")
    assert (report["requeued"], report["answered"], report["sent"]) == (1, 1, 1)
    assert site.billed() == site.received + 1
    who = decided_by(site)
    assert who.startswith("emulator:claude-sonnet-4-6 (task ")
    after = site.shown()
    assert after[1] == ("n2", "answered", "Refused", who, False)
    assert [row for row in after if row[0] != "n2"] == [row for row in before if row[0] != "n2"]

    again = site.run()
    assert (again["sent"], again["reused"]) == (0, 5)
    assert (again["records"], again["answered"], again["review"]) == (5, 5, 0)
    assert site.shown() == after
    (site.home / "warehouse.duckdb").unlink()
    (site.home / "warehouse" / "working.duckdb").unlink()
    site.run()
    assert site.shown() == after
    assert site.billed() == site.received + 1
    assert site.requeue("--model", "claude-sonnet-4-6")["requeued"] == 0


def test_another_prompt_is_asked_and_what_fails_again_is_not_bought_again(
    site: Site, tmp_path: Path
) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("Judge kindly. {{ text }}")
    site.emulator.faults(REFUSE)
    for sent in (1, 0):
        report = site.requeue("--prompt", str(prompt))
        counts = (report["requeued"], report["answered"], report["review"], report["sent"])
        assert counts == (1, 0, 1, sent)
    site.emulator.faults()
    report = site.requeue("--prompt", str(prompt), "--max-tokens", "300")
    assert (report["answered"], report["sent"]) == (1, 1)
    assert "in review (" not in invoke("review", "list", "mine")


def test_only_the_chosen_records_are_asked_again(
    tmp_path: Path, home: Path, emulator: Driver
) -> None:
    site = Site(tmp_path, home, emulator, DAILY)
    emulator.faults({"kind": "refuse_lines", "match": "note"})
    site.write(edited(DAILY, ("Is this note kind?", "Is it a kind note?")))
    site.run()
    emulator.faults()
    states = {row[0]: row[1] for row in site.shown()}
    assert set(states.values()) == {"review"}
    model = ["--model", "claude-sonnet-4-6"]
    with pytest.raises(BatchEtlError, match=r"no record in review has the id 'n9'"):
        site.requeue(*model, "--id", "n9")
    report = site.requeue(*model, "--partition", "2026-11-01", "--outcome", "Refused", "--id", "n2")
    assert report["answered"] == 1
    report = site.requeue(*model, "--partition", "2026-11-01", "--partition", "2026-11-03")
    assert report["answered"] == 2
    states = {row[0]: row[1] for row in site.shown()}
    reviewed = [name for name, state in states.items() if state == "review"]
    assert reviewed == ["n3", "n4"]
    assert invoke("status", "--pipeline", "mine", "--limit", "1").startswith("mine  review requeue")


def test_a_requeue_is_held_to_the_pipelines_budgets(site: Site) -> None:
    site.write(YAML + "  budget: {total_usd: 0.000001}\n")
    with pytest.raises(BatchEtlError, match="total_usd"):
        site.requeue("--model", "claude-sonnet-4-6")
    assert site.billed() == site.received
    assert site.shown()[1][1] == "review"


def test_a_person_goes_on_from_there(site: Site, tmp_path: Path) -> None:
    site.requeue("--model", "claude-sonnet-4-6")
    who, sheet = decided_by(site), tmp_path / "sheet.csv"
    invoke("review", "export", "mine", "--to", str(sheet), "--decided")
    rows = list(csv.DictReader(sheet.read_text("utf-8-sig").splitlines()))
    assert [(row["note_id"], row["_decided_by"]) for row in rows] == [("n2", who)]
    rows[0] |= {"kind": "false", "why": "It tells someone to leave."}
    with sheet.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    invoke("review", "apply", "mine", str(sheet), "--by", "anna")
    assert decided_by(site) == "anna"


def test_records_that_have_moved_on_are_not_asked_about(site: Site) -> None:
    """Their file is newer than the table: what would be asked is not what is in review."""
    records = site.home / "records" / "mine" / "all.parquet"
    pq.write_table(pq.read_table(records).slice(1), records)
    with pytest.raises(BatchEtlError, match="run it first, then requeue"):
        site.requeue("--model", "claude-sonnet-4-6")
    assert site.billed() == site.received


def die_at(environ: dict[str, str], folder: str, name: str, nth: int) -> None:
    """Requeue, and be killed once this has happened so often."""
    os.environ.update(environ)
    passed = 0

    def watcher(at: str, when: When) -> None:
        nonlocal passed
        passed += (at, when) == (name, "after")
        if passed == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    watch(watcher)
    invoke("review", "requeue", "mine", "--defs", folder, "--model", "claude-sonnet-4-6")


DEATHS = [
    ("create called", 1),
    ("transform open to done", 1),
    ("file renamed", 2),  # the decisions; the records asked again were the first
    ("warehouse committed", 2),  # the decisions; the history was the first
]


def test_killed_again_and_again_the_same_command_goes_on(site: Site) -> None:
    for name, nth in DEATHS:
        arguments = (dict(os.environ), str(site.folder), name, nth)
        process = _FORKS.Process(target=die_at, args=arguments)
        process.start()
        try:
            process.join(120)
            assert process.exitcode == -signal.SIGKILL, name
        finally:
            process.kill()
            process.join()
        assert site.billed() <= site.received + 1
    report = site.requeue("--model", "claude-sonnet-4-6")
    assert (report["requeued"], report["sent"]) == (0, 0)  # the last one had decided all
    assert site.shown()[1][1:3] == ("answered", "Refused")
    site.run()
    assert site.shown()[1][1:3] == ("answered", "Refused")
    assert site.billed() == site.received + 1


# pure ---------------------------------------------------------------------------------------------

TASK = Task(claude_model="claude-haiku-4-5", max_tokens=100, prompt="Hello {{ text }}")


def test_a_requeue_that_asks_the_same_is_refused() -> None:
    for same in ((None, None, None), ("claude-haiku-4-5", None, 100)):
        with pytest.raises(ConfigError, match="a requeue asks otherwise"):
            asked_otherwise(TASK, *same)


def test_what_the_api_would_not_take_is_refused_as_in_yaml() -> None:
    with pytest.raises(ConfigError, match="claude-haiku-9"):
        asked_otherwise(TASK, "claude-haiku-9", None, None)
    with pytest.raises(ConfigError, match="template line 1"):
        asked_otherwise(TASK, None, "{{ text", None)


def test_a_scope_is_that_of_what_is_asked() -> None:
    other = asked_otherwise(TASK, None, None, 200)
    keys = {
        scope_key(partition, task, keys)
        for partition in (None, "2026-11-01")
        for task in (TASK, other)
        for keys in (["a"], ["a", "b"])
    }
    assert len(keys) == 8
    assert all(is_requeue([key]) for key in keys)
    assert scope_key("p", TASK, ["a"]) == scope_key("p", TASK, ["a"])
    assert not is_requeue([None])
    assert not is_requeue(["2026-11-01"])
