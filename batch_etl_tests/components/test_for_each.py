"""Fan-out as a user writes it: one record, one row for each value, each with its own request."""

from __future__ import annotations

import dagster as dg

from batch_etl_tests.components.make import YAML, Project, edited
from batch_etl_tests.emulator.driver import Driver

LANGUAGES = [f"l{n:02}" for n in range(20)]
STRINGS = "note_id,text\nn1,I love it\nn2,I hate it\nn3,I love it\n"
EACH = edited(
    YAML,
    ("  task:", f"  for_each: {{values: [{', '.join(LANGUAGES)}], into: language}}\n  task:"),
    ("<note>", "{{ language }} <note>"),
)


def test_twenty_languages_make_twenty_rows_of_each_record(mine: Project, emulator: Driver) -> None:
    """``n1`` and ``n3`` ask the same in each language, so they share what is bought."""
    mine.write(EACH, {"notes.csv": STRINGS})
    run = mine.run()
    assert run.success
    found = mine.query(
        "SELECT note_id_language, note_id, language, _state FROM emulator.mine ORDER BY ALL"
    )
    assert found == sorted(
        (f"{note}:{language}", note, language, "answered")
        for note in ("n1", "n2", "n3")
        for language in LANGUAGES
    )
    assert emulator.status()["requests_received"] == 40
    checks = {
        (one.check_name, one.asset_key.path[-1]): one
        for one in run.result.get_asset_check_evaluations()
    }
    verdict = checks["row_count", "results"]
    assert verdict.passed
    assert verdict.metadata["source records x values_rows"] == dg.IntMetadataValue(60)


def test_one_more_language_is_bought_alone(mine: Project, emulator: Driver) -> None:
    mine.write(EACH, {"notes.csv": STRINGS})
    assert mine.run().success
    mine.write(edited(EACH, ("l19]", "l19, l20]")), {"notes.csv": STRINGS})
    assert mine.run().success
    assert emulator.status()["requests_received"] == 42
    assert mine.query("SELECT count(*) FROM emulator.mine") == [(63,)]
