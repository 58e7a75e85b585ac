"""Every row of the table of faults, through the front door: a CSV, YAML, Dagster, DuckDB."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from batch_etl_tests.acceptance import fault_table
from batch_etl_tests.acceptance.fault_cases import CASES, Case, once
from batch_etl_tests.acceptance.fault_check import Expected
from batch_etl_tests.batches import engine

pytestmark = pytest.mark.acceptance


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.fault)
def test_each_record_is_answered_and_nothing_is_paid_twice_under(case: Case) -> None:
    measured = case.measure()
    assert measured.problems == ()
    assert measured.answered >= 500
    assert measured.billed_twice == 0


def test_every_fault_that_other_tools_were_measured_with_is_a_case() -> None:
    assert set(fault_table.MEASURED_EARLIER) <= {case.fault for case in CASES}
    cells = {len(others) for others in fault_table.MEASURED_EARLIER.values()}
    assert cells == {len(fault_table.OTHERS)}


def test_a_second_payment_is_a_failed_row_and_an_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A server that takes one create twice: nothing helps there, and the table must say so."""
    twice = Case(
        "a batch bought twice",
        "be noticed",
        Expected(creates=2, calls=1, struck={"duplicate_create": 1}),
        once({"kind": "duplicate_create"}),
    )
    assert fault_table.main([twice]) == 1
    printed = capsys.readouterr()
    row = printed.out.splitlines()[-1].split(" | ")
    assert row[2:9] == ["500 of 500", "1000", "1000", "500", "2", "1", "FAILED"]
    assert "requests billed twice: 500, must be 0" in printed.err


def test_a_fault_that_did_not_strike_proves_nothing() -> None:
    case = replace(CASES[0], expected=Expected(struck={"drop": 1}))
    assert case.measure().problems == ("faults that struck: {}, must be {'drop': 1}",)


def test_a_create_that_was_told_when_to_come_again_waits_so_long(tmp_path: Path) -> None:
    with engine.site(tmp_path) as site:
        site.faults({"kind": "error", "route": "create", "status": 429, "retry_after_s": 30.0})
        runner, transform = site.runner(), site.transform(engine.rows(5))
        assert runner.advance(runner.open(transform), transform).wait_s == 30.0
