"""From refused requests to a decided table, by the real commands on a real pipeline."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from batch_etl_tests.acceptance.processes import command, run, succeed
from batch_etl_tests.acceptance.test_run_command import written
from batch_etl_tests.components.make import YAML, query
from batch_etl_tests.emulator.driver import Driver

pytestmark = pytest.mark.acceptance


def test_refused_records_are_decided_by_a_person_and_stay_so(
    tmp_path: Path, home: Path, emulator: Driver
) -> None:
    folder = written(tmp_path, YAML)
    emulator.faults({"kind": "refuse_lines", "match": "Go away"})

    def batch_etl(*arguments: str) -> str:
        return succeed(command("batch-etl"), *arguments, cwd=tmp_path)

    batch_etl("run", "mine", "--defs", str(folder))
    assert "emulator.mine: 1 of 5 in review (1 Refused)\n  n2" in batch_etl(
        "review", "list", "mine"
    )
    batch_etl("review", "export", "mine", "--to", "sheet.csv")
    sheet = tmp_path / "sheet.csv"
    rows = list(csv.DictReader(sheet.read_text("utf-8-sig").splitlines()))
    assert [row["note_id"] for row in rows] == ["n2"]
    rows[0] |= {"kind": "FALSE", "why": "It tells someone to leave."}
    with sheet.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    applied = batch_etl("review", "apply", "mine", "sheet.csv", "--by", "anna")
    assert applied.startswith("emulator.mine: 1 decided by anna, 0 left open\n")

    decided = "SELECT kind, why, _state, _outcome, _decided_by FROM emulator.mine"
    expected = [(False, "It tells someone to leave.", "answered", "Refused", "anna")]
    assert query(home, f"{decided} WHERE note_id = 'n2'") == expected
    told = batch_etl("run", "mine", "--defs", str(folder))
    assert "5 answered, 0 in review" in told
    assert query(home, f"{decided} WHERE note_id = 'n2'") == expected
    batch_etl("export", "mine_latest", "--to", "latest.csv")
    assert len((tmp_path / "latest.csv").read_text().splitlines()) == 6


def test_an_error_is_one_line_and_exit_code_1(tmp_path: Path, home: Path) -> None:
    done = run(command("batch-etl"), "review", "list", "mine", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1
