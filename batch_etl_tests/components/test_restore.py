"""What docs/operations.md says to back up is enough: restored elsewhere, nothing is bought."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from batch_etl_tests.components.make import Project, query
from batch_etl_tests.emulator.driver import Driver

ROWS = "SELECT note_id, kind, why, _batch_id FROM emulator.mine ORDER BY note_id"


def test_a_backup_of_ledger_and_answers_taken_at_work_buys_nothing_again(
    mine: Project, emulator: Driver, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger is copied while somebody else is within a transaction; the warehouse is not."""
    mine.write()
    assert mine.run().success
    before = query(home, ROWS)
    restored = tmp_path / "restored"
    restored.mkdir()
    with (
        closing(sqlite3.connect(home / "ledger.db", isolation_level=None)) as busy,
        closing(sqlite3.connect(home / "ledger.db")) as ledger,
        closing(sqlite3.connect(restored / "ledger.db")) as copy,
    ):
        busy.execute("BEGIN IMMEDIATE")
        busy.execute("DELETE FROM batches")
        ledger.backup(copy)
        busy.execute("ROLLBACK")
    shutil.copytree(home / "answers", restored / "answers")
    shutil.rmtree(home)
    monkeypatch.setenv("BATCH_ETL_HOME", str(restored))
    again = mine.run()
    assert again.success
    facts = again.facts("results")
    assert (facts["transform/sent"], facts["transform/reused"]) == (0, 5)
    assert query(restored, ROWS) == before
