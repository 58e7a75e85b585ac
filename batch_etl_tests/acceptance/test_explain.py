"""``batch-etl explain`` by the real command: what a run would do, told before it costs anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from batch_etl_tests.acceptance.test_run_command import batch_etl, written
from batch_etl_tests.components.make import DAILY, YAML, edited
from batch_etl_tests.emulator.driver import Driver

pytestmark = pytest.mark.acceptance


def explained(cwd: Path, folder: Path, *options: str, **env: str) -> dict[str, Any]:
    done = batch_etl(cwd, "explain", "mine", "--defs", str(folder), "--json", *options, **env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_pipeline_that_never_ran_is_explained_without_a_trace(
    tmp_path: Path, home: Path, emulator: Driver
) -> None:
    folder = written(tmp_path, YAML)
    facts = explained(tmp_path, folder)
    counts = {name: facts[name] for name in ("records", "new", "changed", "to_send", "reused")}
    assert counts == {"records": 5, "new": 5, "changed": 0, "to_send": 5, "reused": 0}
    assert facts["estimate"]["cost_usd"] > 0
    assert facts["estimate"]["input_basis"] == "count_tokens of every request"
    assert (facts["compared_with"], facts["budgets"], facts["refusal"]) == (None, [], None)
    assert not home.exists()
    calls = emulator.status()["http_calls"]
    assert calls["count_tokens"] == 5
    assert "create" not in calls


def test_after_a_run_it_says_what_changed_in_records_and_task_and_what_is_left(
    tmp_path: Path, home: Path, emulator: Driver
) -> None:
    budget = "  budget: {day_usd: 0.5, total_usd: 0.6}\n  task:\n"
    folder = written(tmp_path, edited(YAML, ("  task:\n", budget)))
    done = batch_etl(tmp_path, "run", "mine", "--defs", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    before = sorted(path for path in home.rglob("*") if "ledger.db" not in path.name)
    notes, yaml = folder / "mine" / "notes.csv", folder / "mine" / "defs.yaml"
    same = explained(tmp_path, folder)
    assert (same["new"], same["changed"], same["reused"], same["to_send"]) == (0, 0, 5, 0)
    assert (same["task_changes"], same["estimate"]["cost_usd"]) == ([], 0)
    notes.write_text(edited(notes.read_text("utf-8"), ("Go away", "Stay")) + "n6,2026-11-03,New\n")
    yaml.write_text(edited(yaml.read_text("utf-8"), ("max_tokens: 200", "max_tokens: 300")))
    told = batch_etl(
        tmp_path, "explain", "mine", "--defs", str(folder), BATCH_ETL_BUDGET_DAY_USD="0.0001"
    )
    assert told.returncode == 0, told.stderr
    for words in (
        "records   6: 1 new, 5 changed since their last result",
        "to send   6 request(s)",
        "max_tokens: 200 -> 300",
        "6 request(s) of",
        "budget    budget.day_usd $0.50 (per day): $0.49",
        "budget    BATCH_ETL_BUDGET_DAY_USD $0.0001 (all pipelines): $0.00 left",
        "refused   pipeline 'mine': sending 6 request(s)",
        "Nothing was sent.",
    ):
        assert words in told.stdout
    assert sorted(path for path in home.rglob("*") if "ledger.db" not in path.name) == before
    refused = batch_etl(
        tmp_path, "run", "mine", "--defs", str(folder), BATCH_ETL_BUDGET_DAY_USD="0.0001"
    )
    assert refused.returncode == 1
    assert "BATCH_ETL_BUDGET_DAY_USD ($0.0001 for a day (UTC), all pipelines)" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert emulator.status()["requests_received"] == 5


def test_partitions_are_chosen_as_for_a_run(tmp_path: Path, home: Path, emulator: Driver) -> None:
    folder = written(tmp_path, DAILY)
    none = batch_etl(tmp_path, "explain", "mine", "--defs", str(folder))
    assert none.returncode == 1
    assert "--all-partitions" in none.stderr
    one = explained(tmp_path, folder, "--partition", "2026-11-02")
    assert (one["partitions"], one["records"]) == (["2026-11-02"], 2)
    every = explained(tmp_path, folder, "--all-partitions")
    assert (len(every["partitions"]), every["records"]) == (4, 5)


def test_a_mistake_in_the_source_or_the_budget_is_one_line(
    tmp_path: Path, home: Path, emulator: Driver
) -> None:
    folder = written(tmp_path, YAML)
    bad = batch_etl(
        tmp_path, "explain", "mine", "--defs", str(folder), BATCH_ETL_BUDGET_DAY_USD="lots"
    )
    assert bad.returncode == 1
    assert bad.stderr.startswith("Error: BATCH_ETL_BUDGET_DAY_USD: 'lots' is no budget")
    (folder / "mine" / "notes.csv").unlink()
    gone = batch_etl(tmp_path, "explain", "mine", "--defs", str(folder))
    assert gone.returncode == 1
    assert "notes.csv" in gone.stderr
    assert "Traceback" not in gone.stderr
    assert not home.exists()
