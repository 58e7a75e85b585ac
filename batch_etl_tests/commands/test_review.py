"""``batch-etl review`` on a real warehouse: look, export, fill in, apply."""

from __future__ import annotations

import csv
import getpass
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from upath import UPath

from batch_etl.cli import cli
from batch_etl.errors import BatchEtlError
from batch_etl.warehouse import TableSpec, Warehouse
from batch_etl_tests.warehouse.make import partition

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["verdict", "tags"],
    "properties": {
        "verdict": {"type": "string", "enum": ["ok", "spam"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "score": {"type": "integer", "minimum": 0},
    },
}
SPEC = TableSpec("posts", "id", pipeline="moderation", output_schema=SCHEMA)
OK = {"verdict": "ok", "tags": []}
Row = dict[str, str]


class Desk:
    """A home with pipeline ``moderation``: r0 is answered, r1 to r3 are in review."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        self.home = home
        self.sheet = folder / "sheet.csv"
        self.warehouse = Warehouse(
            UPath(home / "warehouse/working.duckdb"), UPath(home / "warehouse.duckdb")
        )

    def load(self, answers: list[Any], endpoint: str = "emulator", **settings: Any) -> None:
        loaded = partition(self.folder, "2026-11-01", answers, endpoint=endpoint, **settings)
        self.warehouse.load(SPEC, endpoint, [loaded])
        self.warehouse.publish()

    def run(self, *arguments: str) -> str:
        """What the command prints; its error is raised."""
        done = CliRunner().invoke(cli, ["review", *arguments])
        if done.exception is not None:
            raise done.exception
        return done.output

    def export(self, *options: str) -> list[Row]:
        self.run("export", "moderation", "--to", str(self.sheet), *options)
        return list(csv.DictReader(self.sheet.read_text("utf-8-sig").splitlines()))

    def apply(self, rows: list[Row], *options: str) -> str:
        with self.sheet.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return self.run("apply", "moderation", str(self.sheet), *options)

    def shown(self) -> list[tuple[Any, ...]]:
        query = "SELECT id, _state, verdict, tags, score, _decided_by FROM emulator.posts"
        with self.warehouse.read_only() as connection:
            return connection.execute(f"{query} ORDER BY id").fetchall()

    def decisions(self) -> list[Path]:
        return sorted((self.home / "reviews").rglob("*.parquet"))


@pytest.fixture
def desk(tmp_path: Path, home: Path) -> Desk:
    made = Desk(tmp_path, home)
    made.load([OK, None, None, None], change={3: {"outcome": "Truncated", "reason": "cut off"}})
    return made


def test_list_counts_by_outcome_and_shows_the_records_of_one_pipeline(desk: Desk) -> None:
    summary = "emulator.posts: 3 of 4 in review (2 Refused, 1 Truncated)\n"
    assert desk.run("list") == summary
    assert desk.run("list", "moderation", "--limit", "2") == (
        f"{summary}  r1 2026-11-01  Refused: the model refused\n"
        "  r2 2026-11-01  Refused: the model refused\n"
    )


def test_list_as_json_is_for_scripts(desk: Desk) -> None:
    told = json.loads(desk.run("list", "moderation", "--json"))
    assert (told["review"], told["decided"]) == (3, 0)
    assert told["outcomes"] == {"Refused": 2, "Truncated": 1}
    assert [record["id"] for record in told["first"]] == ["r1", "r2", "r3"]
    assert [one["table"] for one in json.loads(desk.run("list", "--json"))] == ["emulator.posts"]


def test_a_sheet_has_the_record_the_reason_and_empty_columns_for_the_answer(desk: Desk) -> None:
    rows = desk.export()
    assert list(rows[0]) == [
        "id",
        "body",
        "_outcome",
        "_reason",
        "_text",
        "verdict",
        "tags",
        "score",
        "_partition",
        "_request_key",
        "_decided_by",
        "_decided_at",
    ]
    assert [row["id"] for row in rows] == ["r1", "r2", "r3"]
    assert (rows[2]["_outcome"], rows[2]["_reason"]) == ("Truncated", "cut off")
    assert rows[0]["verdict"] == rows[0]["tags"] == rows[0]["score"] == ""


def test_filled_lines_are_applied_and_empty_ones_left_open(desk: Desk) -> None:
    rows = desk.export()
    rows[0] |= {"verdict": "SPAM", "tags": "ads; links", "score": "7"}
    rows[2] |= {"verdict": "ok", "tags": "[]"}
    told = desk.apply(rows, "--by", "anna")
    assert told.startswith("emulator.posts: 2 decided by anna, 1 left open\n  kept in ")
    assert desk.shown() == [
        ("r0", "answered", "ok", [], None, None),
        ("r1", "answered", "spam", ["ads", "links"], 7, "anna"),
        ("r2", "review", None, None, None, None),
        ("r3", "answered", "ok", [], None, "anna"),
    ]
    assert [path.parent for path in desk.decisions()] == [
        desk.home / "reviews" / "emulator" / "moderation"
    ]
    assert "1 of 4 in review (1 Refused); 2 decided" in desk.run("list")


def test_who_decided_is_the_user_unless_said(desk: Desk) -> None:
    rows = desk.export()
    rows[0] |= {"verdict": "ok", "tags": "a"}
    desk.apply(rows)
    assert desk.shown()[1][-1] == getpass.getuser()


def test_a_sheet_applied_twice_decides_once(desk: Desk) -> None:
    rows = desk.export()
    rows[0] |= {"verdict": "ok", "tags": "a"}
    desk.apply(rows)
    told = desk.apply(rows)
    assert told == "emulator.posts: nothing to apply: 1 decided as they were, 2 left open\n"
    assert len(desk.decisions()) == 1


def test_decisions_survive_a_later_load_and_a_rebuild_from_the_files(desk: Desk) -> None:
    rows = desk.export()
    rows[0] |= {"verdict": "spam", "tags": "a"}
    desk.apply(rows, "--by", "anna")
    decided = ("r1", "answered", "spam", ["a"], None, "anna")
    desk.load([OK, None, None, OK])
    assert desk.shown()[1] == decided
    desk.warehouse.working.unlink()
    desk.warehouse.published.unlink()
    desk.load([OK, None, None, OK])
    assert desk.shown()[1] == decided
    desk.load([OK, OK, None, OK])
    assert desk.shown()[1] == ("r1", "answered", "ok", [], None, None)


def test_a_decision_can_be_changed_and_withdrawn_by_a_sheet_that_shows_it(desk: Desk) -> None:
    rows = desk.export()
    for row in rows[:2]:
        row |= {"verdict": "spam", "tags": "a"}
    desk.apply(rows, "--by", "anna")
    rows = desk.export("--decided")
    assert [(row["id"], row["verdict"], row["tags"]) for row in rows[:2]] == [
        ("r1", "spam", '["a"]'),
        ("r2", "spam", '["a"]'),
    ]
    rows[0] |= {"verdict": "ok"}
    rows[1] |= {"verdict": "", "tags": "", "score": ""}
    told = desk.apply(rows, "--by", "bob")
    assert told.startswith("emulator.posts: 1 decided by bob, 1 withdrawn, 1 left open\n")
    assert desk.shown()[1:3] == [
        ("r1", "answered", "ok", ["a"], None, "bob"),
        ("r2", "review", None, None, None, None),
    ]


def filled(rows: list[Row], number: int, **cells: str) -> None:
    rows[number] |= {"verdict": "ok", "tags": "a"} | cells


WRONG: list[tuple[str, Callable[[list[Row]], None], str]] = [
    ("enum", lambda rows: filled(rows, 0, verdict="maybe"), r"line 2 \(r1\): verdict: .*maybe"),
    ("type", lambda rows: filled(rows, 0, score="many"), r"line 2 \(r1\): score: 'many' is not a"),
    ("bound", lambda rows: filled(rows, 0, score="-1"), r"line 2 \(r1\): score: -1 is less than"),
    ("empty", lambda rows: filled(rows, 1, verdict=""), r"line 3 \(r2\): verdict is empty"),
    ("unknown", lambda rows: filled(rows, 0, id="r9"), r"line 2 \(r9\): there is no such record"),
    (
        "partition",
        lambda rows: filled(rows, 0, _partition="2026-11-02", _request_key=""),
        r"line 2 \(r1\): .* the record is in partition 2026-11-01",
    ),
    ("no id", lambda rows: filled(rows, 0, id=""), "line 2: the column 'id' is empty"),
    (
        "twice",
        lambda rows: (filled(rows, 0), filled(rows, 1, id="r1", _request_key=""))[0],
        r"line 3 \(r1\): the record was decided in line 2 already",
    ),
    (
        "answered",
        lambda rows: filled(rows, 0, id="r0", _request_key=""),
        r"line 2 \(r0\): the model has answered it since",
    ),
    (
        "changed",
        lambda rows: filled(rows, 0, _request_key="0" * 32),
        r"line 2 \(r1\): the record or the task has changed",
    ),
]


@pytest.mark.parametrize(
    ("change", "words"), [case[1:] for case in WRONG], ids=[c[0] for c in WRONG]
)
def test_a_wrong_line_is_named_and_nothing_is_applied(
    desk: Desk, change: Callable[[list[Row]], None], words: str
) -> None:
    rows = desk.export()
    filled(rows, 2)
    change(rows)
    before = desk.shown()
    with pytest.raises(BatchEtlError, match=words) as raised:
        desk.apply(rows)
    assert "1 line(s) cannot be applied, so nothing was:" in str(raised.value)
    assert (desk.shown(), desk.decisions()) == (before, [])


def test_every_wrong_line_is_named_up_to_twenty(tmp_path: Path, home: Path) -> None:
    desk = Desk(tmp_path, home)
    desk.load([None] * 25)
    rows = desk.export()
    for row in rows:
        row["score"] = "x"
    with pytest.raises(BatchEtlError, match=r"25 line\(s\)") as raised:
        desk.apply(rows)
    assert len(str(raised.value).splitlines()) == 22
    assert str(raised.value).endswith("  and 5 more")


def test_what_another_person_decided_since_the_export_is_not_replaced(desk: Desk) -> None:
    old = desk.export()
    filled(old, 0, verdict="spam")
    desk.apply(old, "--by", "anna")
    filled(old, 0, verdict="ok")
    with pytest.raises(BatchEtlError, match=r"line 2 \(r1\): anna decided on it since the export"):
        desk.apply(old, "--by", "bob")
    shown = desk.export("--decided")
    old[0] |= {"verdict": "", "tags": ""}
    assert "3 left open" in desk.apply(old, "--by", "bob")
    shown[0] |= {"verdict": "", "tags": ""}
    desk.apply(shown, "--by", "bob")
    filled(shown, 0, verdict="ok")
    with pytest.raises(BatchEtlError, match="was withdrawn since the export"):
        desk.apply(shown, "--by", "bob")


def test_an_id_that_looks_like_a_formula_finds_its_record_again(desk: Desk) -> None:
    records = {"id": ["=cmd()", "+1"], "body": ["@x", "-y"]}
    desk.load([None, None], records=records)
    rows = desk.export()
    assert [(row["id"], row["body"]) for row in rows] == [("+1", "'-y"), ("'=cmd()", "'@x")]
    for row in rows:
        row |= {"verdict": "ok", "tags": "a"}
    desk.apply(rows)
    assert {row[1] for row in desk.shown()} == {"answered"}


def test_a_partition_key_that_a_spreadsheet_has_rewritten_as_a_date_does_no_harm(
    desk: Desk,
) -> None:
    rows = desk.export()
    filled(rows, 0, _partition="11/1/2026")
    filled(rows, 1, _partition="")
    desk.apply(rows, "--by", "anna")
    assert [row[-1] for row in desk.shown()] == [None, "anna", "anna", None]


def test_a_reason_cannot_steer_the_terminal(desk: Desk) -> None:
    desk.load([None], change={0: {"reason": "a\x1b[2Jb\nc"}})
    assert desk.run("list", "moderation").endswith("Refused: a [2Jb c\n")


def test_free_text_is_reviewed_as_it_is(tmp_path: Path, home: Path) -> None:
    desk = Desk(tmp_path, home)
    loaded = partition(tmp_path, None, [None], endpoint="emulator")
    desk.warehouse.load(TableSpec("moderation", "id"), "emulator", [loaded])
    desk.warehouse.publish()
    rows = desk.export()
    rows[0]["answer"] = 'It is "fine",\nreally'
    desk.apply(rows, "--by", "anna")
    with desk.warehouse.read_only() as connection:
        found = connection.execute("SELECT answer, _decided_by FROM emulator.moderation")
        assert found.fetchall() == [('It is "fine",\nreally', "anna")]
    assert "1 decided as they were" in desk.apply(rows)


def test_an_endpoint_is_chosen_where_there_are_several(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.load([None], "anthropic")
    with pytest.raises(BatchEtlError, match=r"emulator\.posts, main\.posts: choose with --end"):
        desk.run("list", "moderation")
    assert desk.run("list", "moderation", "--endpoint", "anthropic").startswith("main.posts: 1 of")
    monkeypatch.setenv("BATCH_ETL_ENDPOINT", "emulator")
    assert desk.run("list", "moderation").startswith("emulator.posts: 3 of")
    with pytest.raises(BatchEtlError, match=r"nothing of endpoint 'custom:x'"):
        desk.run("list", "moderation", "--endpoint", "custom:x")


def test_what_is_not_there_is_said(desk: Desk, tmp_path: Path) -> None:
    with pytest.raises(BatchEtlError, match="did you mean 'moderation'"):
        desk.run("list", "moderatoin")
    with pytest.raises(BatchEtlError, match=r"must end in \.csv"):
        desk.run("export", "moderation", "--to", str(tmp_path / "x.xlsx"))
    with pytest.raises(BatchEtlError, match="No such file"):
        desk.run("apply", "moderation", str(tmp_path / "gone.csv"))
    desk.warehouse.published.unlink()
    with pytest.raises(BatchEtlError, match="nothing has been loaded"):
        desk.run("list")
