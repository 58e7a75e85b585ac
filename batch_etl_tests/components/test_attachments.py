"""A pipeline of images as a user writes it: paths are relative to the YAML, and columns that are
files themselves are in the table as they were.
"""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq

from batch_etl_tests.batches.pictures import picture
from batch_etl_tests.components.make import YAML, Project, edited
from batch_etl_tests.emulator.driver import Driver

SCANS = "note_id,scan,text\nn1,1.png,I love it\nn2,gone.png,I love it\nn3,,I love it\n"
ATTACHED = edited(
    YAML,
    (
        "    max_tokens",
        "    attachments: [{type: image, column: scan, folder: scans}]\n    max_tokens",
    ),
)


def test_images_lie_beside_the_yaml_and_one_that_is_missing_is_told(
    mine: Project, emulator: Driver
) -> None:
    mine.write(ATTACHED, {"notes.csv": SCANS})
    (mine.folder / "mine" / "scans").mkdir()
    (mine.folder / "mine" / "scans" / "1.png").write_bytes(picture())
    assert mine.run().success
    found = mine.query("SELECT note_id, _state, _reason FROM emulator.mine ORDER BY note_id")
    assert [row[:2] for row in found] == [("n1", "answered"), ("n2", "review"), ("n3", "answered")]
    assert "the image 'gone.png' in 'scan' is not there (looked for below " in found[1][2]
    assert emulator.status()["requests_received"] == 2


def test_a_column_of_images_is_in_the_table_as_it_was(mine: Project, emulator: Driver) -> None:
    records = {"note_id": ["n1", "n2"], "text": ["x", "y"], "scan": [picture(1), None]}
    out = io.BytesIO()
    pq.write_table(pa.table(records), out)
    text = edited(ATTACHED, ("folder: scans", "holds: bytes"), ("notes.csv", "notes.parquet"))
    mine.write(text, {"notes.parquet": out.getvalue()})
    assert mine.run().success
    assert mine.query("SELECT scan FROM emulator.mine ORDER BY note_id") == [(picture(1),), (None,)]
    assert emulator.status()["requests_received"] == 2
