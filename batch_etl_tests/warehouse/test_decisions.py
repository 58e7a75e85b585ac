"""What people decide on records in review: how long it holds, and what it survives."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from upath import UPath

from batch_etl.errors import WarehouseError
from batch_etl.warehouse import (
    Decision,
    LoadedTable,
    LoadReport,
    Standing,
    TableSpec,
    Warehouse,
    loaded_tables,
    standings,
)
from batch_etl_tests.warehouse.make import partition

STRING = {"type": "string"}


def schema(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


SPEC = TableSpec("posts", "id", pipeline="moderation", output_schema=schema(label=STRING))


class House:
    """A warehouse in a folder, with partitions whose records are r0, r1..."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.warehouse = Warehouse(UPath(folder / "w/working.duckdb"), UPath(folder / "w.duckdb"))

    def load(self, answers: list[Any], key: str | None = "d", **settings: Any) -> LoadReport:
        spec = settings.pop("spec", SPEC)
        loaded = partition(self.folder, key, answers, **settings)
        report = self.warehouse.load(spec, "anthropic", [loaded])
        self.warehouse.publish()
        return report

    def standings(self) -> tuple[LoadedTable, dict[tuple[str, str | None], Standing]]:
        with self.warehouse.read_only() as connection:
            (table,) = loaded_tables(connection)
            ids = connection.execute(f"SELECT {table.id_column.name}::VARCHAR FROM posts")
            return table, standings(connection, table, [name for (name,) in ids.fetchall()])

    def decide(self, answers: dict[str, Any], key: str | None = "d", by: str = "anna") -> Path:
        table, now = self.standings()
        decisions = [
            Decision(now[name, key], None if answer is None else json.dumps(answer))
            for name, answer in answers.items()
        ]
        path = self.warehouse.decide(table, decisions, by)
        self.warehouse.publish()
        return path

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.warehouse.read_only() as connection:
            return connection.execute(query).fetchall()

    def shown(self) -> list[tuple[Any, ...]]:
        return self.rows("SELECT id, _state, label, _decided_by FROM posts ORDER BY id")


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


DECIDED = [("r0", "answered", "spam", "anna"), ("r1", "review", None, None)]
UNDECIDED = [("r0", "review", None, None), ("r1", "review", None, None)]


def test_a_decision_is_the_records_answer_and_says_who_and_when(house: House) -> None:
    house.load([None, None])
    before = datetime.now(UTC)
    house.decide({"r0": {"label": "spam"}})
    assert house.shown() == DECIDED
    ((at, outcome, reason),) = house.rows(
        "SELECT _decided_at, _outcome, _reason FROM posts WHERE _decided_by = 'anna'"
    )
    assert before <= at <= datetime.now(UTC)
    assert (outcome, reason) == ("Refused", "the model refused")
    assert house.rows("SELECT id FROM posts_review") == [("r1",)]
    assert house.rows("SELECT id, label, _decided_by FROM posts_latest") == [("r0", "spam", "anna")]


def test_it_is_kept_in_a_file_of_its_own_under_reviews(house: House) -> None:
    house.load([None, None])
    first = house.decide({"r0": {"label": "spam"}})
    second = house.decide({"r1": {"label": "ham"}})
    folder = house.folder / "reviews" / "anthropic" / "moderation"
    assert sorted(folder.iterdir()) == [first, second]


def test_the_same_load_again_is_unchanged_and_counts_it_as_answered(house: House) -> None:
    house.load([None, None])
    house.decide({"r0": {"label": "spam"}})
    report = house.load([None, None])
    assert report.unchanged
    (part,) = report.partitions
    assert (part.rows, part.answered, part.review, part.decided) == (2, 1, 1, 1)


def test_a_later_load_of_the_partition_keeps_it(house: House) -> None:
    house.load([None, None])
    house.decide({"r0": {"label": "spam"}})
    report = house.load([None, None], change={1: {"reason": "refused again"}})
    assert not report.unchanged
    assert (report.partitions[0].answered, report.decisions) == (1, 1)
    assert house.shown() == DECIDED


def test_an_answer_of_the_model_goes_before_it(house: House) -> None:
    house.load([None, None])
    house.decide({"r0": {"label": "spam"}})
    house.load([{"label": "fine"}, None])
    assert house.shown()[0] == ("r0", "answered", "fine", None)
    house.load([None, None])
    assert house.shown() == DECIDED


def test_it_survives_that_both_files_of_the_warehouse_are_lost(house: House) -> None:
    house.load([None, None])
    house.decide({"r0": {"label": "spam"}})
    house.warehouse.working.unlink()
    house.warehouse.published.unlink()
    house.load([None, None])
    assert house.shown() == DECIDED


def test_a_file_that_was_written_before_a_crash_shows_after_the_next_load(house: House) -> None:
    house.load([None, None])
    working, published = house.warehouse.working, house.warehouse.published
    before = working.read_bytes(), published.read_bytes()
    house.decide({"r0": {"label": "spam"}})
    working.write_bytes(before[0])
    published.write_bytes(before[1])
    report = house.load([None, None])
    assert (report.unchanged, report.decisions) == (False, 1)
    assert report.partitions[0].unchanged
    assert house.shown() == DECIDED


def test_the_newest_decision_counts_and_one_without_an_answer_withdraws(house: House) -> None:
    house.load([None, None])
    house.decide({"r0": {"label": "ham"}}, by="bob")
    house.decide({"r0": {"label": "spam"}}, by="anna")
    assert house.shown() == DECIDED
    house.decide({"r0": None}, by="bob")
    assert house.shown() == UNDECIDED
    house.load([None, None], change={1: {"reason": "again"}})
    assert house.shown() == UNDECIDED


def test_nothing_is_written_if_a_record_has_moved_on(house: House) -> None:
    house.load([None, None])
    table, now = house.standings()
    house.load([{"label": "fine"}, None])
    decisions = [Decision(now[name, "d"], '{"label": "spam"}') for name in ("r0", "r1")]
    with pytest.raises(WarehouseError, match="1 of 2 records, the first 'r0', changed"):
        house.warehouse.decide(table, decisions, "anna")
    assert not (house.folder / "reviews").exists()
    house.warehouse.publish()
    assert house.shown() == [("r0", "answered", "fine", None), ("r1", "review", None, None)]


def test_a_changed_task_keeps_it_while_record_and_schema_are_the_same(house: House) -> None:
    house.load([None, None])
    house.decide({"r0": {"label": "spam"}})
    new = {n: {"request_key": f"new{n}", "task_version": "v2"} for n in range(2)}
    described = {**STRING, "description": "Said in other words."}
    spec = TableSpec("posts", "id", pipeline="moderation", output_schema=schema(label=described))
    house.load([None, None], change=new, spec=spec)
    assert house.shown() == DECIDED


def test_it_does_not_hold_for_a_record_that_has_changed(house: House) -> None:
    house.load([None, None])
    house.decide({"r0": {"label": "spam"}})
    records = {"id": ["r0", "r1"], "body": ["another text", "text"]}
    new = {0: {"request_key": "new"}}
    house.load([None, None], records=records, change=new)
    assert house.shown() == UNDECIDED
    house.load([None, None])
    assert house.shown() == DECIDED


def test_it_does_not_hold_under_another_output_schema(house: House) -> None:
    house.load([None, None])
    house.decide({"r0": {"label": "spam"}})
    other = schema(label={"type": "string", "enum": ["good", "bad"]})
    spec = TableSpec("posts", "id", pipeline="moderation", output_schema=other)
    house.load([None, None], spec=spec, change={n: {"task_version": "v2"} for n in range(2)})
    assert house.shown() == UNDECIDED


def test_it_serves_the_same_record_in_another_partition_unless_that_has_its_own(
    house: House,
) -> None:
    house.load([None], "d1")
    house.load([None], "d2")
    house.decide({"r0": {"label": "one"}}, "d1")
    query = "SELECT _partition, label FROM posts ORDER BY 1"
    assert house.rows(query) == [("d1", "one"), ("d2", "one")]
    house.decide({"r0": {"label": "two"}}, "d2")
    assert house.rows(query) == [("d1", "one"), ("d2", "two")]
    house.decide({"r0": None}, "d1")
    assert house.rows(query) == [("d1", None), ("d2", "two")]


def test_endpoints_and_pipelines_do_not_share_decisions(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.load([None])
    house.decide({"r0": {"label": "spam"}})
    emulated = partition(tmp_path, "d", [None], endpoint="emulator")
    assert house.warehouse.load(SPEC, "emulator", [emulated]).partitions[0].decided == 0
    other = TableSpec("other", "id", output_schema=schema(label=STRING))
    loaded = partition(tmp_path, "d", [None])
    assert house.warehouse.load(other, "anthropic", [loaded]).partitions[0].decided == 0


def test_every_kind_of_column_takes_a_decision(house: House) -> None:
    kinds = schema(
        day={"type": "string", "format": "date"},
        tags={"type": "array", "items": STRING},
        size=schema(w={"type": "integer"}, h={"type": "integer"}),
        free={"type": "object"},
        n={"type": "number"},
        ok={"type": "boolean"},
    )
    spec = TableSpec("posts", "id", output_schema=kinds)
    house.load([None], spec=spec)
    answer = {
        "day": "2026-11-01",
        "tags": ["a", "b"],
        "size": {"w": 1, "h": 2},
        "free": {"x": [1]},
        "n": 1.5,
        "ok": True,
    }
    house.decide({"r0": answer})
    assert house.rows("SELECT day, tags, size, free::VARCHAR, n, ok FROM posts") == [
        (date(2026, 11, 1), ["a", "b"], {"w": 1, "h": 2}, '{"x":[1]}', 1.5, True)
    ]


def test_free_text_takes_a_decision(house: House) -> None:
    house.load([None], spec=TableSpec("posts", "id"))
    house.decide({"r0": "It's =1+1"})
    assert house.rows("SELECT answer, _state FROM posts") == [("It's =1+1", "answered")]


def test_an_unpartitioned_record_with_a_number_as_id_takes_a_decision(house: House) -> None:
    records = pa.table({"id": [7, 8], "rowid": [1, 1]})
    house.load([None, None], None, records=records)
    house.decide({"8": {"label": "spam"}}, None)
    assert house.shown() == [(7, "review", None, None), (8, "answered", "spam", "anna")]


def test_a_decisions_file_that_cannot_be_read_stops_the_load_and_is_named(house: House) -> None:
    house.load([None])
    path = house.decide({"r0": {"label": "spam"}})
    broken = path.with_name("broken.parquet")
    broken.write_bytes(b"no parquet")
    with pytest.raises(WarehouseError, match=r"broken\.parquet holds no decisions"):
        house.load([None])
    broken.unlink()
    assert house.load([None]).unchanged


def test_a_person_is_no_earlier_version_of_the_task(house: House) -> None:
    house.load([None, {"label": "a"}])
    house.decide({"r0": {"label": "spam"}})
    new = {n: {"task_version": "v2", "request_key": f"n{n}"} for n in range(2)}
    house.load([{"label": "fine"}, {"label": "b"}], change=new)
    assert house.rows("SELECT id FROM posts_disagreements") == [("r1",)]
