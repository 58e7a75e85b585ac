"""The newest rows, as loads mark them, are those that a sort of the whole table finds."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from upath import UPath

from batch_etl.warehouse import (
    Decision,
    PartitionLoad,
    TableSpec,
    Warehouse,
    loaded_tables,
    newest,
    standings,
    unchanged,
)
from batch_etl_tests.warehouse.make import ANSWERED_AT, partition

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"label": {"type": "string"}}}
SPEC = TableSpec("posts", "id", output_schema=SCHEMA)

SORTED = """
    FROM posts WHERE _state = 'answered' QUALIFY row_number() OVER (PARTITION BY id ORDER BY
    CASE WHEN regexp_matches(_partition, '^[0-9]{4}-[0-9]{2}-[0-9]{2}') THEN _partition END
    DESC NULLS LAST, _answered_at DESC NULLS LAST, _partition DESC, _request_key) = 1
"""
"""The newest rows, found whatever is marked."""


def with_property(name: str, kind: str) -> TableSpec:
    """The same pipeline, whose answers have one property more."""
    properties = {**SCHEMA["properties"], name: {"type": kind}}
    return TableSpec("posts", "id", output_schema={**SCHEMA, "properties": properties})


class House:
    """A warehouse in a folder; a partition's records are said as ``{id: label or None}``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.warehouse = Warehouse(UPath(folder / "w/working.duckdb"), UPath(folder / "w.duckdb"))

    def files(
        self,
        key: str | None,
        answers: Mapping[Any, str | None] | Sequence[tuple[Any, Any]],
        day: int,
    ) -> PartitionLoad:
        """``day``: when all of it was answered."""
        pairs = list(answers.items()) if isinstance(answers, Mapping) else list(answers)
        at = {"answered_at": ANSWERED_AT + timedelta(days=day)}
        return partition(
            self.folder,
            key,
            [None if label is None else {"label": label} for _, label in pairs],
            records={"id": pa.array([name for name, _ in pairs])},
            change={
                n: (at if label is not None else {})
                | ({} if name is not None else {"record_id": None})
                for n, (name, label) in enumerate(pairs)
            },
        )

    def load(self, *loads: PartitionLoad, spec: TableSpec = SPEC) -> None:
        self.warehouse.load(spec, "anthropic", loads)
        self.check()

    def day(self, key: str | None, answers: Any, day: int = 0) -> None:
        self.load(self.files(key, answers, day))

    def decide(self, key: str | None, name: str, label: str | None) -> None:
        """A person's answer to a record, or none any more."""
        with self.open() as connection:
            (table,) = loaded_tables(connection)
            now = standings(connection, table, [name])[name, key]
        answer = None if label is None else json.dumps({"label": label})
        self.warehouse.decide(table, [Decision(now, answer)], "anna")
        self.check()

    def check(self) -> None:
        """The view shows what a sort finds, and no row in review is marked."""
        columns = "SELECT id, label, _partition, _answered_at, _decided_by"
        with self.open() as connection:
            for one, other in (("FROM posts_latest", SORTED), (SORTED, "FROM posts_latest")):
                more = f"{columns} {one} EXCEPT ALL {columns} {other}"
                assert connection.execute(more).fetchall() == []
        if "_superseded" in self.columns():
            assert self.rows("FROM posts WHERE _state = 'review' AND _superseded") == []

    def open(self) -> duckdb.DuckDBPyConnection:
        """The working file, to read."""
        return duckdb.connect(self.warehouse.working, read_only=True)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.open() as connection:
            return connection.execute(f"FROM ({query}) ORDER BY ALL").fetchall()

    def change(self, *statements: str) -> None:
        """Change the working file behind the warehouse's back."""
        with duckdb.connect(self.warehouse.working) as connection:
            for statement in statements:
                connection.execute(statement)

    def columns(self) -> set[str]:
        return {name for name, *_ in self.rows("SELECT column_name FROM (DESCRIBE posts)")}

    def latest(self) -> list[tuple[Any, ...]]:
        return self.rows("SELECT id, label, _partition FROM posts_latest")

    def view(self) -> str:
        """What the view does: shows all answered rows, those not marked, or sorts them."""
        ((sql,),) = self.rows(
            "SELECT sql FROM duckdb_views() WHERE view_name = 'posts_latest' AND NOT internal"
        )
        if "row_number" in sql:
            return "sorted"
        return "marked" if "_superseded" in sql else "answered"

    def superseded(self) -> list[tuple[Any, ...]]:
        return self.rows("SELECT id, _partition FROM posts WHERE _superseded")


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_where_no_record_comes_back_nothing_is_marked(house: House) -> None:
    house.day("2026-11-01", {"a": "old", "b": None})
    house.day("2026-11-02", {"c": "new", "b": "new"})
    assert "_superseded" not in house.columns()
    assert house.view() == "answered"
    assert [name for name, *_ in house.latest()] == ["a", "b", "c"]


def test_a_record_that_comes_back_supersedes_its_earlier_row(house: House) -> None:
    house.day("2026-11-01", {"a": "old", "b": "old"})
    house.day("2026-11-02", {"a": "new", "c": "new"})
    assert house.superseded() == [("a", "2026-11-01")]
    assert house.view() == "marked"
    says = "SELECT comment FROM duckdb_columns() WHERE column_name = '_superseded'"
    assert house.rows(says) == [
        ("True where another partition has a newer answer to the record; else NULL.",)
    ]


def test_a_day_that_is_loaded_late_is_superseded_by_the_later_one(house: House) -> None:
    house.day("2026-11-02", {"a": "new"})
    house.day("2026-11-01", {"a": "old", "b": "old"}, day=5)
    assert house.superseded() == [("a", "2026-11-01")]


def test_the_days_of_one_load_supersede_each_other(house: House) -> None:
    days = ["2026-11-02", "2026-11-01", "2026-11-03"]
    house.load(*(house.files(day, {"a": day, day: "own"}, 0) for day in days))
    assert house.superseded() == [("a", "2026-11-01"), ("a", "2026-11-02")]


@pytest.mark.parametrize("now", [{"b": "new"}, {"a": None, "b": "new"}, {}])
def test_a_record_whose_newest_row_goes_has_the_one_before_it(
    house: House, now: dict[str, str | None]
) -> None:
    for day in ("2026-11-01", "2026-11-02", "2026-11-03"):
        house.day(day, {"a": day, "b": day})
    house.day("2026-11-03", now)
    assert ("a", "2026-11-02", "2026-11-02") in house.latest()


def test_an_answer_that_is_older_than_it_was_gives_way_where_partitions_are_no_times(
    house: House,
) -> None:
    house.day("de", {"a": "de"}, day=1)
    house.day("fr", {"a": "fr"}, day=2)
    assert house.superseded() == [("a", "de")]
    house.day("fr", {"a": "fr"}, day=0)
    assert house.superseded() == [("a", "fr")]


def test_of_answers_of_one_time_that_of_the_last_partition_counts(house: House) -> None:
    for key in ("de", "fr", "en"):
        house.day(key, {"a": key})
    assert house.latest() == [("a", "fr", "fr")]


def test_partitions_that_are_times_go_before_others(house: House) -> None:
    house.day("other", {"a": "other"}, day=9)
    house.day("2026-11-01", {"a": "day"})
    assert house.superseded() == [("a", "other")]


def test_a_pipeline_that_has_no_partitions_any_more_has_nothing_superseded(house: House) -> None:
    for day in ("2026-11-01", "2026-11-02"):
        house.day(day, {"a": day, "b": day})
    house.day(None, {"a": "only"})
    assert house.latest() == [("a", "only", None)]
    assert house.superseded() == []


def test_records_that_move_into_partitions_are_marked_among_those(house: House) -> None:
    house.day(None, {"a": "only", "b": "only"}, day=9)
    house.day("de", {"a": "de"})
    house.day("fr", {"a": "fr"}, day=1)
    assert house.latest() == [("a", "fr", "fr"), ("b", "only", None)]


def test_an_id_that_is_null_or_twice_in_a_partition_is_one_record(house: House) -> None:
    pairs = [("a", "one"), ("a", "two"), (None, "one"), (None, "two"), ("b", None)]
    house.day(None, pairs)
    assert len(house.latest()) == 2
    house.day("2026-11-01", pairs)
    house.day("2026-11-02", pairs)
    assert {key for *_, key in house.latest()} == {"2026-11-02"}
    house.day("2026-11-02", [("b", "new")])
    assert len(house.latest()) == 3


def test_a_decision_supersedes_and_one_that_is_withdrawn_does_not(house: House) -> None:
    house.day("2026-11-01", {"a": "old", "b": "old"})
    house.day("2026-11-02", {"a": None, "b": None})
    assert house.view() == "answered"
    house.decide("2026-11-02", "a", "decided")
    assert house.view() == "marked"
    assert house.superseded() == [("a", "2026-11-01")]
    house.decide("2026-11-02", "a", None)
    assert house.superseded() == []


def test_a_decision_on_an_old_row_is_superseded(house: House) -> None:
    house.day("2026-11-01", {"a": None})
    house.day("2026-11-02", {"a": "new"})
    house.decide("2026-11-01", "a", "decided")
    assert house.superseded() == [("a", "2026-11-01")]


def test_a_decision_that_another_load_shows_is_marked(house: House) -> None:
    house.day("2026-11-01", {"a": "old"})
    house.day("2026-11-02", {"a": None})
    before = house.warehouse.working.read_bytes()
    house.decide("2026-11-02", "a", "decided")
    house.warehouse.working.write_bytes(before)
    house.day("2026-11-03", {"b": "new"})
    assert house.superseded() == [("a", "2026-11-01")]


AS_EARLIER = (
    "DROP TABLE _batch_etl.newest",
    "DELETE FROM _batch_etl.views",
    "DROP VIEW posts_latest",
    f"CREATE VIEW posts_latest AS SELECT * {SORTED}",
)
"""What makes a warehouse one that an earlier version of this program wrote."""


def test_a_warehouse_of_an_earlier_version_is_marked_as_a_whole_by_its_next_load(
    house: House,
) -> None:
    for day in ("2026-11-01", "2026-11-02", "2026-11-03"):
        house.day(day, {"a": day, day: None})
    house.change(*AS_EARLIER, "ALTER TABLE posts DROP _superseded")
    house.decide("2026-11-02", "2026-11-02", "decided")
    house.warehouse.load_history([], [])
    assert house.view() == "sorted"
    house.check()
    house.day("2026-11-09", {"c": "new"})
    assert house.view() == "marked"
    assert house.superseded() == [("a", "2026-11-01"), ("a", "2026-11-02")]


def test_it_is_marked_by_a_load_that_changes_nothing_too(house: House) -> None:
    house.day("2026-11-01", {"a": "old"})
    house.day("2026-11-02", {"a": "new"})
    house.change(*AS_EARLIER, "UPDATE posts SET _superseded = _partition = '2026-11-02'")
    house.day("2026-11-02", {"a": "new"})
    assert house.view() == "marked"
    assert house.superseded() == [("a", "2026-11-01")]


def test_an_id_whose_type_changes_is_looked_at_anew(house: House) -> None:
    house.day("2026-11-01", {1: "old", 2: "old"})
    house.day("2026-11-02", {1: "new"})
    house.day("2026-11-03", {"2": "text", "x": "text"})
    assert house.superseded() == [("1", "2026-11-01"), ("2", "2026-11-01")]
    house.day("2026-11-03", {"x": "text"})
    assert house.superseded() == [("1", "2026-11-01")]


def test_columns_of_the_users_by_the_same_name_go_before(house: House) -> None:
    house.day("2026-11-01", {"a": "old"})
    house.day("2026-11-02", {"a": "new"})
    spec = with_property("_superseded", "string")
    house.load(house.files("2026-11-03", {"b": "new"}, 0), spec=spec)
    house.load(house.files("2026-11-04", {"a": "newer"}, 0), spec=spec)
    assert house.rows("SELECT _partition FROM posts WHERE _superseded__old1") == [
        ("2026-11-01",),
        ("2026-11-02",),
    ]


def test_a_name_that_the_user_has_taken_is_not_taken_again(house: House) -> None:
    spec = with_property("_superseded", "string")
    for day in ("2026-11-01", "2026-11-02"):
        house.load(house.files(day, {"a": day}, 0), spec=spec)
    assert house.rows("SELECT _partition FROM posts WHERE _superseded_2") == [("2026-11-01",)]


def test_a_table_with_a_column_rowid_is_sorted_by_the_view(house: House) -> None:
    house.day("2026-11-01", {"a": "old"})
    house.day("2026-11-02", {"a": "new"})
    spec = with_property("rowid", "integer")
    house.load(house.files("2026-11-03", {"a": "newer"}, 0), spec=spec)
    assert house.view() == "sorted"


@pytest.mark.parametrize("seed", range(4))
def test_any_history_of_loads_and_decisions_shows_what_a_sort_finds(
    house: House, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(unchanged, "MIN_ROWS", 1)
    monkeypatch.setattr(newest, "_ROWS_PER_UPDATE", 2 + seed % 2 * 2**20)
    history = History(house, random.Random(seed))
    for _ in range(15):
        history.step()


class History:
    """Loads and decisions by chance, of few ids, so that they often meet."""

    def __init__(self, house: House, chance: random.Random) -> None:
        self._house = house
        self._chance = chance
        self._answers: dict[str | None, tuple[list[tuple[Any, Any]], int]] = {}
        self._keys = ["2026-11-01", "2026-11-02", "2026-11-02-06", "de", "fr"]

    def step(self) -> None:
        kind = self._chance.choices(["load", "decide", "only", "earlier"], [12, 4, 1, 1])[0]
        if kind == "decide":
            self._decide()
        elif kind == "earlier" and self._answers:
            self._house.change("DELETE FROM _batch_etl.newest")
        elif kind == "only":
            self._load([None])
        else:
            self._load(self._chance.sample(self._keys, self._chance.randint(1, 3)))

    def _load(self, keys: Sequence[str | None]) -> None:
        if None in keys:
            self._answers.clear()
        else:
            self._answers.pop(None, None)
        loads = []
        for key in keys:
            pairs, day = self._answers.get(key, ([], 0))
            self._answers[key] = self._some(pairs, day)
            loads.append(self._house.files(key, *self._answers[key]))
        self._house.load(*loads)

    def _some(self, pairs: list[tuple[Any, Any]], day: int) -> tuple[list[tuple[Any, Any]], int]:
        """New answers, or most of those that were there."""
        if pairs and self._chance.random() < 0.5:
            at = self._chance.randrange(len(pairs))
            changed = (pairs[at][0], self._chance.choice([None, "changed"]))
            return [*pairs[:at], changed, *pairs[at + 1 :]], day
        names = [self._chance.choice([*"abcdefghij", None]) for _ in range(8)]
        if self._chance.random() < 0.7:
            names = list(dict.fromkeys(names))
        labels = [self._chance.choice(["x", "y", None]) for _ in names]
        return list(zip(names, labels, strict=True)), self._chance.randrange(4)

    def _decide(self) -> None:
        rows = (
            self._house.rows(
                "SELECT _partition, id FROM posts WHERE id IS NOT NULL AND "
                "(_state = 'review' OR _decided_by IS NOT NULL) "
                "QUALIFY count(*) OVER (PARTITION BY _partition, id) = 1"
            )
            if self._answers
            else []
        )
        if rows:
            key, name = self._chance.choice(rows)
            self._house.decide(key, name, self._chance.choice(["decided", None]))
