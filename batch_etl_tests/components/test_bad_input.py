"""Bad input fails at the right step, says what to do, and leaves nothing half-written."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from batch_etl_tests.components.make import DAILY, NOTES, YAML, Project, edited
from batch_etl_tests.components.mistakes import MISTAKES, server_of
from batch_etl_tests.emulator.driver import Driver

QUICK = [name for name, mistake in MISTAKES.items() if mistake.server != "down"]


def open_batches(home: Path) -> list[str]:
    """Ids of batches that are, or may be, at the API, by the ledger."""
    if not (home / "ledger.db").exists():
        return []
    with sqlite3.connect(home / "ledger.db") as ledger:
        statuses = "('submitting', 'submitted')"
        return [i for (i,) in ledger.execute(f"SELECT id FROM batches WHERE status IN {statuses}")]


def choose(mistake_server: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if mistake_server != "none":
        monkeypatch.setenv("BATCH_ETL_ENDPOINT", "anthropic")
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-wrong")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)


@pytest.mark.parametrize("name", QUICK)
def test_a_mistake_fails_with_its_remedy_and_leaves_nothing_behind(
    mine: Project, emulator: Driver, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mistake = MISTAKES[name]
    mine.write(mistake.yaml, mistake.files)
    with server_of(mistake) as server:
        choose(mistake.server, server.url, monkeypatch)
        if mistake.at == "load":
            with pytest.raises(Exception) as caught:
                mine.load()
            message = str(caught.value.__cause__)
        else:
            run = mine.run()
            assert not run.success
            message = run.error
            assert run.partitions("results") == run.partitions("table") == []
            assert bool(run.partitions("records")) == (mistake.at == "results")
        assert not [call for call in server.received if call.method == "POST"]
    for word in mistake.words:
        assert word in message
    left = [file for file in mine.files() if not file.startswith("transforms/")]
    assert left == (["records/mine/all.parquet"] if mistake.at == "results" else [])
    assert open_batches(mine.home) == []
    assert emulator.status()["creates_accepted"] == 0


def test_after_a_wrong_key_the_right_one_sends_each_record_once(
    mine: Project, emulator: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan of the failed run is taken up; nothing is planned or sent twice."""
    from batch_etl_tests.disguise import disguised

    mine.write()
    mistake = MISTAKES["wrong key"]
    with server_of(mistake) as server, disguised(emulator.url) as right:
        choose("wrong key", server.url, monkeypatch)
        assert not mine.run().success
        monkeypatch.setenv("BATCH_ETL_ENDPOINT", "emulator")
        assert mine.run().success
        monkeypatch.setenv("BATCH_ETL_ENDPOINT", "anthropic")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", right.url)
        assert mine.run().success
    assert emulator.status()["creates_accepted"] == 2


def test_one_bad_day_of_a_range_leaves_all_days_as_they_were(
    mine: Project, emulator: Driver
) -> None:
    mine.write(DAILY)
    assert mine.run(first="2026-11-01", last="2026-11-03").success
    before = {file: (mine.home / file).read_bytes() for file in mine.files()}
    mine.write(DAILY, {"notes.csv": edited(NOTES, ("n5,", "n6,"), ("n3,", "n4,"))})
    run = mine.run(first="2026-11-01", last="2026-11-03")
    assert "'n4' 2 times" in run.error
    assert "partition '2026-11-02'" in run.error
    assert {file: (mine.home / file).read_bytes() for file in mine.files()} == before


def test_a_record_outside_of_all_partitions_is_in_none(mine: Project, emulator: Driver) -> None:
    mine.write(DAILY, {"notes.csv": NOTES + "n9,2027-01-01,later\n"})
    assert mine.run(first="2026-11-01", last="2026-11-04").success
    assert mine.query("SELECT count(*) FROM emulator.mine") == [(5,)]


def test_a_home_that_cannot_be_written_is_named(mine: Project, emulator: Driver) -> None:
    mine.home.write_text("a file, not a folder")
    mine.write()
    error = mine.run().error
    assert str(mine.home) in error
    assert "BATCH_ETL_HOME" in error


def test_an_unknown_column_of_the_table_is_found_before_money_is_spent(
    mine: Project, emulator: Driver
) -> None:
    mine.write(edited(YAML, ("  task:\n", "  table: {columns: [txt]}\n  task:\n")))
    error = mine.run().error
    assert "table.columns: there is no column 'txt'; did you mean 'text'?" in error
    assert emulator.status()["creates_accepted"] == 0
