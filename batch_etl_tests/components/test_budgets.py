"""Budgets in a pipeline's YAML and in the environment, and what a run's metadata says of money."""

from __future__ import annotations

import pytest

from batch_etl import environment
from batch_etl.commands.project import definitions
from batch_etl.errors import ConfigError
from batch_etl_tests.components.make import DAILY, YAML, Project, edited
from batch_etl_tests.emulator.driver import Driver

TINY = "  budget: {run_usd: 0.0001}\n  task:\n"


def test_a_run_over_its_budget_fails_with_the_sentence_and_sends_nothing(
    mine: Project, emulator: Driver
) -> None:
    mine.write(edited(DAILY, ("  task:\n", TINY)))
    run = mine.run("records", "results", first="2026-11-01", last="2026-11-04")
    assert not run.success
    assert run.error.startswith("pipeline 'mine': sending 5 request(s) of ")
    assert "budget.run_usd ($0.0001 for one run, pipeline 'mine') has $0.0001 left" in run.error
    assert emulator.status()["creates_accepted"] == 0


def test_the_settings_budget_holds_over_all_pipelines(
    mine: Project, emulator: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_ETL_BUDGET_DAY_USD", "0.0001")
    mine.write()
    run = mine.run()
    assert "BATCH_ETL_BUDGET_DAY_USD ($0.0001 for a day (UTC), all pipelines)" in run.error
    assert emulator.status()["creates_accepted"] == 0


def test_the_metadata_says_what_is_new_what_changed_and_what_was_reserved(
    mine: Project, emulator: Driver
) -> None:
    mine.write(edited(YAML, ("  task:\n", "  budget: {run_usd: 1}\n  task:\n")))
    facts = mine.run("records", "results").facts("results")
    assert (facts["transform/new"], facts["transform/changed"]) == (5, 0)
    assert facts["transform/task_changes"] == "none"
    assert 0 < facts["transform/cost_usd"] < facts["transform/reserved_usd"] < 1
    assert (facts["transform/retried"], facts["transform/cache_hit_rate"]) == (0, 0.0)
    mine.write(edited(YAML, ("max_tokens: 200", "max_tokens: 300")))
    again = mine.run("records", "results").facts("results")
    assert (again["transform/new"], again["transform/changed"]) == (0, 5)
    assert again["transform/task_changes"] == "- max_tokens: 200 -> 300"
    assert "transform/reserved_usd" not in again


def test_a_mistake_in_a_budget_is_told_with_its_key(mine: Project) -> None:
    mine.write(edited(YAML, ("  task:\n", "  budget: {day_usd: -5}\n  task:\n")))
    with pytest.raises(ConfigError, match=r"budget.day_usd.*greater than 0"):
        definitions(mine.folder)


def test_the_setting_is_read_and_checked() -> None:
    settings = environment.read({"BATCH_ETL_BUDGET_DAY_USD": " 12.50 "})
    assert str(settings.budget_day_usd) == "12.50"
    assert environment.read({}).budget_day_usd is None
    with pytest.raises(ConfigError, match="BATCH_ETL_BUDGET_DAY_USD: '0' is no budget"):
        environment.read({"BATCH_ETL_BUDGET_DAY_USD": "0"})
