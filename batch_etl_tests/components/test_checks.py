"""Asset checks, run in process against an emulator, and what Dagster then knows of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from batch_etl.components.checks import Checks
from batch_etl.components.profiles import PACKING
from batch_etl_tests.components.make import DAILY, YAML, Project, Run, edited
from batch_etl_tests.emulator.driver import Driver

RESULTS = dg.AssetKey(["mine", "results"])
TABLE = dg.AssetKey(["mine", "table"])
TASK = "  task:\n"
DAYS = ["2026-11-01", "2026-11-02", "2026-11-03"]


def with_block(text: str, block: str) -> str:
    """The YAML with further keys of the pipeline."""
    return edited(text, (TASK, f"  {block}\n{TASK}"))


def evaluations(run: Run) -> list[dg.AssetCheckEvaluation]:
    return list(run.result.get_asset_check_evaluations())


def verdicts(run: Run) -> dict[tuple[str, str, str | None], dg.AssetCheckEvaluation]:
    """By asset, check and partition."""
    return {(e.asset_key.path[-1], e.check_name, e.partition): e for e in evaluations(run)}


def why(run: Run) -> str:
    return "\n".join(
        event.step_failure_data.error.to_string()
        for event in run.result.all_events
        if event.is_step_failure and event.step_failure_data.error
    )


def numbers(evaluation: dg.AssetCheckEvaluation) -> Mapping[str, Any]:
    return {name: value.value for name, value in evaluation.metadata.items()}


def test_a_range_run_judges_each_partition_by_itself_and_leaves_no_check_open(
    mine: Project, emulator: Driver
) -> None:
    mine.write(DAILY)
    definitions = mine.load()
    with dg.instance_for_test() as instance:
        run = mine.run(first=DAYS[0], last=DAYS[-1], instance=instance, definitions=definitions)
        assert run.success, why(run)
        found = verdicts(run)
        of_results = {"row_count", "success_rate", "schema_validity", "completion_time"}
        names = {(asset, check) for asset, check, _ in found}
        assert names == {("results", name) for name in {*of_results, "label_drift"}} | {
            ("table", "row_count"),
            ("table", "review_queue"),
        }
        assert len(found) == len(evaluations(run)) == len(names) * len(DAYS)
        assert all(one.passed for one in found.values())
        told = numbers(found["table", "row_count", DAYS[0]])
        assert told == {"records_rows": 2, "results_rows": 2, "table_rows": 2}
        sentence = "2 of 2 records answered (100.0%); at least 90.0% is wanted."
        assert found["results", "success_rate", DAYS[1]].description == sentence
        assert open_evaluations(instance, names) == []
        alone = mine.run(partition=DAYS[0], instance=instance, definitions=definitions)
        assert {key[2] for key in verdicts(alone)} == {DAYS[0]}
        assert open_evaluations(instance, names) == []


def open_evaluations(instance: dg.DagsterInstance, names: set[tuple[str, str]]) -> list[Any]:
    """Evaluations that Dagster planned and nobody made."""
    found: list[Any] = []
    for asset, check in names:
        key = dg.AssetCheckKey(dg.AssetKey(["mine", asset]), check)
        history = instance.event_log_storage.get_asset_check_execution_history(key, limit=100)
        found += [(asset, check, one.partition) for one in history if one.status.value == "PLANNED"]
    return found


def test_a_check_that_blocks_keeps_bad_results_from_the_table_and_says_which_day(
    mine: Project, emulator: Driver
) -> None:
    block = "checks: {success_rate: {min_share: 0.99, blocking: true}}"
    text = edited(
        with_block(DAILY, block), ("max_tokens: 200", "max_tokens: 200\n    max_attempts: 1")
    )
    mine.write(text)
    emulator.faults({"kind": "error_lines", "type": "invalid_request_error"})
    run = mine.run(first=DAYS[0], last=DAYS[1])
    assert not run.success
    assert run.partitions("results") == DAYS[:2]
    assert run.partitions("table") == []
    assert not (mine.home / "warehouse.duckdb").exists()
    failed = verdicts(run)["results", "success_rate", DAYS[0]]
    assert (failed.passed, failed.blocking) == (False, True)
    assert failed.severity is dg.AssetCheckSeverity.ERROR
    assert numbers(failed)["share"] == 0
    for words in (
        "blocked by 2 failed check(s)",
        f"success_rate of {DAYS[0]}: 0 of 2 records answered (0.0%); at least 99.0% is wanted",
        "What this step made is kept",
    ):
        assert words in run.error
    assert mine.run("table", first=DAYS[0], last=DAYS[1]).success


def test_a_check_that_does_not_block_warns_and_the_table_is_loaded(
    mine: Project, emulator: Driver
) -> None:
    mine.write(edited(YAML, ("max_tokens: 200", "max_tokens: 200\n    max_attempts: 1")))
    emulator.faults({"kind": "error_lines", "type": "invalid_request_error"})
    run = mine.run()
    assert run.success, why(run)
    found = verdicts(run)
    failed = {(asset, check) for (asset, check, _), one in found.items() if not one.passed}
    assert failed == {("results", "success_rate"), ("table", "review_queue")}
    assert {one.severity for one in found.values() if not one.passed} == {
        dg.AssetCheckSeverity.WARN
    }
    review = found["table", "review_queue", None]
    assert review.description == "5 of 5 records wait in review (100.0%); at most 10.0% may."


CHECKS = """checks:
    row_count: {enabled: false}
    success_rate: {min_share: 0.5, severity: error}
    completion_time: {enabled: false}
    review_queue: {enabled: false}
    cost: {max_share: 0.000001}
  budget: {run_usd: 1, total_usd: 100}"""


def test_thresholds_severities_and_which_checks_there_are_come_from_the_yaml(
    mine: Project, emulator: Driver
) -> None:
    mine.write(with_block(YAML, CHECKS))
    graph = mine.load().resolve_asset_graph()
    names = {key.name for key in graph.asset_check_keys}
    assert names == {"success_rate", "schema_validity", "cost"}
    run = mine.run()
    assert run.success, why(run)
    found = verdicts(run)
    assert found["results", "success_rate", None].severity is dg.AssetCheckSeverity.ERROR
    cost = found["results", "cost", None]
    assert not cost.passed
    told = numbers(cost)
    spent = run.facts("results")["transform/cost_usd"]
    assert told["budget.run_usd/limit"] == 1
    assert told["budget.run_usd/committed"] == pytest.approx(spent)
    assert told["budget.total_usd/committed"] == pytest.approx(spent)
    assert "of budget.run_usd $1.00" in (cost.description or "")


REFERENCE = Path(__file__).parents[2] / "docs" / "reference.md"


@pytest.mark.parametrize("name", Checks.model_fields)
def test_the_reference_names_each_checks_default(name: str) -> None:
    (told,) = re.findall(rf"^\| `{name}` \| ([^|]*) \|", REFERENCE.read_text("utf-8"), re.MULTILINE)
    check = Checks().of(name)
    for threshold, default in re.findall(r"`(\w+): ([\d.]+)`", told):
        assert getattr(check, threshold) == float(default)
    assert ("warning" in told) == (check.level is dg.AssetCheckSeverity.WARN)
    assert ("blocking" in told) == check.blocking


def test_the_reference_names_each_profiles_packing() -> None:
    for name, packing in PACKING.items():
        told = f"| `{name}` | {packing.max_requests:,}"
        assert told in REFERENCE.read_text("utf-8")
