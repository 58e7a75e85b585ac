"""What an analyst finds beside the tables, on real DuckDB files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from upath import UPath

from batch_etl.warehouse import TableSpec, Warehouse
from batch_etl_tests.warehouse.make import partition

SCHEMA = {
    "type": "object",
    "required": ["label"],
    "properties": {"label": {"type": "string"}, "score": {"type": "integer"}},
}
SPEC = TableSpec("posts", "id", output_schema=SCHEMA)
AT = datetime(2026, 11, 1, 23, 30, tzinfo=UTC)


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(UPath(tmp_path / "warehouse/working.duckdb"), UPath(tmp_path / "w.duckdb"))


def rows(warehouse: Warehouse, query: str) -> list[tuple[Any, ...]]:
    warehouse.publish()
    with warehouse.read_only() as connection:
        return connection.execute(query).fetchall()


def versioned(version: str, count: int = 3) -> dict[int, dict[str, Any]]:
    return {number: {"task_version": version} for number in range(count)}


def transform(endpoint: str = "anthropic", **changes: Any) -> dict[str, Any]:
    made = {
        "id": "T1",
        "pipeline": "posts",
        "endpoint": endpoint,
        "scope": ("2026-11-01", "2026-11-02"),
        "fingerprint": "f" * 64,
        "records_digest": "not asked for",
        "status": "done",
        "attempt": 1,
        "counts": {"records": 5, "sent": 4, "reused": 1},
        "created_at": AT,
        "updated_at": AT + timedelta(seconds=90),
    }
    return made | changes


def batch(endpoint: str = "anthropic", **changes: Any) -> dict[str, Any]:
    made = {
        "id": "token1",
        "transform_id": "T1",
        "endpoint": endpoint,
        "attempt": 1,
        "status": "collected",
        "requests": 4,
        "payload_bytes": 1000,
        "claude_model": "claude-haiku-4-5",
        "batch_id": "msgbatch_1",
        "planned_at": AT,
        "submitted_at": AT + timedelta(seconds=1),
        "expires_at": AT + timedelta(days=1),
        "ended_at": AT + timedelta(seconds=61.5),
        "collected_at": AT + timedelta(seconds=70),
        "outcomes": {"Succeeded": 3, "Refused": 1},
        "input_tokens": 100,
        "output_tokens": 50,
        "cache_read_tokens": 0,
        "cache_write_tokens": 0,
        "cost_pico_usd": 1_250_000_000_001,
        "standard_pico_usd": 2_500_000_000_002,
    }
    return made | changes


def test_a_schema_shows_its_tables_and_its_views(warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.load(SPEC, "emulator", [partition(tmp_path, "d", [None], endpoint="emulator")])
    warehouse.load(SPEC, "anthropic", [partition(tmp_path, "d", [None])])
    for listed in ("SHOW TABLES", "SHOW TABLES FROM emulator"):
        assert [name for (name,) in rows(warehouse, listed)] == [
            "batches",
            "cost_by_day",
            "posts",
            "posts_disagreements",
            "posts_latest",
            "posts_raw",
            "posts_review",
            "transforms",
        ]


def test_every_table_view_and_column_is_described(warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.load(SPEC, "emulator", [partition(tmp_path, "d", [None], endpoint="emulator")])
    bare = rows(
        warehouse,
        "SELECT table_name, column_name FROM duckdb_columns() WHERE coalesce(comment, '') = '' "
        "AND schema_name <> '_batch_etl' AND NOT internal "
        "UNION ALL SELECT table_name, '' FROM duckdb_tables() WHERE comment IS NULL "
        "UNION ALL SELECT view_name, '' FROM duckdb_views() WHERE comment IS NULL AND NOT internal",
    )
    assert bare == []


def test_the_review_view_is_the_records_without_an_answer(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    warehouse.load(SPEC, "anthropic", [partition(tmp_path, "d", [{"label": "ok"}, None])])
    query = "SELECT id, body, _partition, _outcome, _reason, _text FROM posts_review"
    assert rows(warehouse, query) == [
        ("r1", "text", "d", "Refused", "the model refused", "I can't")
    ]


def test_the_latest_answer_of_a_record_is_that_of_the_last_day_whenever_it_was_bought(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    later = datetime(2026, 12, 1, tzinfo=UTC)
    loads = [
        partition(tmp_path, "2026-11-02", [{"label": "new"}, None]),
        partition(
            tmp_path,
            "2026-11-01",
            [{"label": "old"}, {"label": "only"}],
            change={0: {"answered_at": later}},
        ),
    ]
    warehouse.load(SPEC, "anthropic", loads)
    assert rows(warehouse, "SELECT id, label, _partition FROM posts_latest ORDER BY id") == [
        ("r0", "new", "2026-11-02"),
        ("r1", "only", "2026-11-01"),
    ]


def test_the_latest_answer_where_partitions_are_no_days_is_the_one_made_last(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    later = {0: {"answered_at": datetime(2026, 12, 1, tzinfo=UTC)}}
    loads = [
        partition(tmp_path, "de", [{"label": "last"}], change=later),
        partition(tmp_path, "fr", [{"label": "first"}]),
    ]
    warehouse.load(SPEC, "anthropic", loads)
    assert rows(warehouse, "SELECT label FROM posts_latest") == [("last",)]


def test_the_raw_view_has_the_models_own_text_or_the_answer_put_together(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    text = {"text": 'Sure: {"label": "b"}'}
    loads = [partition(tmp_path, None, [{"label": "a"}, {"label": "b"}, None], change={1: text})]
    warehouse.load(SPEC, "anthropic", loads)
    assert rows(warehouse, "SELECT _answer::VARCHAR, _raw FROM posts_raw ORDER BY id") == [
        ('{"label":"a","score":null}', '{"label":"a","score":null}'),
        ('{"label":"b","score":null}', 'Sure: {"label": "b"}'),
        (None, "I can't"),
    ]


def test_answers_that_a_changed_task_gives_differently_are_disagreements(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    first = [{"label": "a", "score": 1}, {"label": "b", "score": 2}, None]
    second = [{"label": "a", "score": 1}, {"label": "B", "score": 2}, {"label": "c"}]
    for version, answers in (("v1", first), ("v2", second)):
        load = partition(tmp_path, "d", answers, change=versioned(version))
        warehouse.load(SPEC, "anthropic", [load])
    found = rows(
        warehouse,
        "SELECT id, _differs, _earlier_answer ->> 'label', _answer ->> 'label', "
        "_earlier_task_version, _task_version FROM posts_disagreements",
    )
    assert found == [("r1", ["label"], "b", "B", "v1", "v2")]


def test_long_whole_numbers_are_compared_to_the_last_digit(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    number = {"type": "integer", "maximum": 10**30}
    schema = {"type": "object", "properties": {"score": {"type": "integer"}, "long": number}}
    first, second = (12345678901234567, 10**25), (12345678901234568, 10**25)
    for version, pairs in (("v1", [first, first]), ("v2", [second, (first[0], 10**25 + 1)])):
        answers = [{"score": score, "long": long} for score, long in pairs]
        load = partition(tmp_path, "d", answers, change=versioned(version, 2))
        warehouse.load(TableSpec("posts", "id", output_schema=schema), "anthropic", [load])
    query = "SELECT id, _differs, _earlier_answer ->> _differs[1] FROM posts_disagreements"
    assert sorted(rows(warehouse, query)) == [
        ("r0", ["score"], "12345678901234567"),
        ("r1", ["long"], "1" + "0" * 25),
    ]


def test_each_earlier_version_is_compared_once_and_the_version_itself_never(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    for version, label in (("v1", "a"), ("v2", "b"), ("v1", "a"), ("v2", "c"), ("v3", "c")):
        load = partition(tmp_path, "d", [{"label": label}], change=versioned(version, 1))
        warehouse.load(SPEC, "anthropic", [load])
    query = (
        "SELECT _earlier_task_version, _earlier_answer ->> 'label' FROM posts_disagreements ORDER "
        "BY 1"
    )
    assert rows(warehouse, query) == [("v1", "a")]
    earlier = "SELECT task_version, count(*) FROM _batch_etl.earlier GROUP BY 1 ORDER BY 1"
    assert rows(warehouse, earlier) == [("v1", 1), ("v2", 1)]


def test_an_answer_that_was_typed_otherwise_is_compared_by_its_own_name_and_value(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    """``score`` becomes a DOUBLE (a whole number is still one), ``label`` a number (its column
    steps aside).
    """
    kinds: list[tuple[str, str, Any]] = [("string", "integer", "a"), ("integer", "number", 7)]
    for number, (label, score, value) in enumerate(kinds):
        schema = {
            "type": "object",
            "properties": {"label": {"type": label}, "score": {"type": score}},
        }
        answers = [{"label": value, "score": score} for score in (1, -3, 10**16)]
        load = partition(tmp_path, "d", answers, change=versioned(f"v{number}", 3))
        warehouse.load(TableSpec("posts", "id", output_schema=schema), "anthropic", [load])
    query = "SELECT _differs, _earlier_answer ->> 'label' FROM posts_disagreements"
    assert rows(warehouse, query) == [(["label"], "a")] * 3


def test_the_same_task_again_leaves_no_earlier_answers(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    for label in ("a", "b"):
        load = partition(tmp_path, "d", [{"label": label}])
        warehouse.load(SPEC, "anthropic", [load])
    assert rows(warehouse, "SELECT count(*) FROM _batch_etl.earlier") == [(0,)]


def test_the_batches_view_has_durations_outcomes_and_exact_cost(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    warehouse.load(SPEC, "anthropic", [partition(tmp_path, "d", [None])])
    assert warehouse.load_history([transform()], [batch()]) == 2
    found = rows(
        warehouse,
        "SELECT batch_id, pipeline, model, endpoint, processing_s, total_s, succeeded, "
        "outcomes['Refused'], cost_usd, standard_cost_usd, task_version FROM batches",
    )
    assert found == [
        (
            "msgbatch_1",
            "posts",
            "claude-haiku-4-5",
            "anthropic",
            60.5,
            70.0,
            3,
            1,
            Decimal("1.250000000001"),
            Decimal("2.500000000002"),
            "f" * 12,
        )
    ]


def test_the_transforms_view_has_what_each_sent_reused_and_cost(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    warehouse.load(SPEC, "anthropic", [partition(tmp_path, "d", [None])])
    other = transform(id="T2", scope=(None,), status="open", counts={})
    warehouse.load_history([transform(), other], [batch()])
    found = rows(
        warehouse,
        "SELECT transform, partitions, records, sent, reused, batches, cost_usd, duration_s "
        "FROM transforms ORDER BY 1",
    )
    cost = Decimal("1.250000000001")
    assert found == [
        ("T1", ["2026-11-01", "2026-11-02"], 5, 4, 1, 1, cost, 90.0),
        ("T2", [], None, 0, None, 0, Decimal(0), None),
    ]


def test_what_was_not_sent_or_was_given_up_makes_no_cost_unknown(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    warehouse.load(SPEC, "anthropic", [partition(tmp_path, "d", [None])])
    gone: dict[str, Any] = {"cost_pico_usd": None, "collected_at": None, "outcomes": None}
    batches = [
        batch(),
        batch(id="b2", batch_id="2", attempt=2),
        batch(id="b3", batch_id=None, status="dropped", submitted_at=None, **gone),
        batch(id="b4", batch_id="4", status="dropped", **gone),
        batch(id="b5", batch_id="5", transform_id="T2", status="lost", **gone),
        batch(id="b6", batch_id=None, transform_id="T3", status="planned", submitted_at=None)
        | gone,
        batch(id="b7", batch_id="7", transform_id="T4"),
        batch(id="b8", batch_id="8", transform_id="T4", cost_pico_usd=None),
    ]
    warehouse.load_history([transform(id=f"T{number}") for number in range(1, 5)], batches)
    query = "SELECT transform, batches, sent, cost_usd FROM transforms ORDER BY 1"
    assert rows(warehouse, query) == [
        ("T1", 3, 8, Decimal("2.500000000002")),
        ("T2", 1, 4, Decimal(0)),
        ("T3", 0, 0, Decimal(0)),
        ("T4", 2, 8, None),
    ]


def test_cost_by_day_is_by_utc_day_and_unknown_where_one_price_is(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    warehouse.load(SPEC, "anthropic", [partition(tmp_path, "d", [None])])
    batches = [
        batch(),
        batch(id="b2", batch_id="msgbatch_2"),
        batch(id="b3", batch_id="msgbatch_3", ended_at=AT + timedelta(hours=1)),
        batch(id="b4", batch_id="msgbatch_4", claude_model="new", cost_pico_usd=None),
        batch(id="b5", batch_id=None, status="planned", collected_at=None, outcomes=None),
    ]
    warehouse.load_history([transform()], batches)
    warehouse.publish()
    with warehouse.read_only() as connection:
        connection.execute("SET TimeZone = 'Pacific/Auckland'")
        found = connection.execute(
            "SELECT day::VARCHAR, pipeline, model, endpoint, batches, requests, cost_usd "
            "FROM cost_by_day ORDER BY ALL"
        ).fetchall()
    assert found == [
        ("2026-11-01", "posts", "claude-haiku-4-5", "anthropic", 2, 8, Decimal("2.500000000002")),
        ("2026-11-01", "posts", "new", "anthropic", 1, 4, None),
        ("2026-11-02", "posts", "claude-haiku-4-5", "anthropic", 1, 4, Decimal("1.250000000001")),
    ]


def test_emulated_money_is_in_no_view_of_real_money(warehouse: Warehouse, tmp_path: Path) -> None:
    for endpoint in ("anthropic", "emulator"):
        load = partition(tmp_path, "d", [None], endpoint=endpoint)
        warehouse.load(SPEC, endpoint, [load])
        name = {"id": endpoint, "transform_id": f"T{endpoint}", "batch_id": endpoint}
        warehouse.load_history([transform(endpoint, id=f"T{endpoint}")], [batch(endpoint, **name)])
    for schema, endpoint in (("main", "anthropic"), ("emulator", "emulator")):
        for view in ("batches", "transforms", "cost_by_day"):
            found = rows(warehouse, f"SELECT endpoint FROM {schema}.{view}")
            assert found == [(endpoint,)], (schema, view)


def test_history_is_merged_by_id_and_written_only_where_it_changed(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    warehouse.load(SPEC, "anthropic", [partition(tmp_path, "d", [None])])
    waiting = batch(status="submitted", ended_at=None, collected_at=None, outcomes=None)
    assert warehouse.load_history([transform(status="open")], [waiting]) == 2
    assert warehouse.load_history([], [batch(id="b2", batch_id="msgbatch_2")]) == 1
    assert warehouse.load_history([transform()], [batch()]) == 2
    before = warehouse.working.read_bytes()
    assert warehouse.load_history([transform()], [batch()]) == 0
    assert warehouse.working.read_bytes() == before
    query = "SELECT batch_id, status FROM batches ORDER BY 1"
    assert rows(warehouse, query) == [("msgbatch_1", "collected"), ("msgbatch_2", "collected")]


def test_history_may_come_before_any_table(warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.load_history([transform()], [batch()])
    warehouse.load(SPEC, "anthropic", [partition(tmp_path, "d", [None])])
    assert rows(warehouse, "SELECT count(*) FROM batches") == [(1,)]


def test_a_table_goes_before_a_view_of_its_name_whichever_comes_first(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    for name in ("Posts_Review", "posts", "batches"):
        spec = TableSpec(name, "id", output_schema=SCHEMA)
        warehouse.load(spec, "anthropic", [partition(tmp_path / name, "d", [{"label": name}])])
    for name in ("posts_review", "batches"):
        assert rows(warehouse, f"SELECT lower(label) FROM {name}") == [(name,)]
    warehouse.load_history([transform()], [batch()])
    assert rows(warehouse, "SELECT batch_id FROM batches_view") == [("msgbatch_1",)]
    assert rows(warehouse, "SELECT count(*) FROM posts_review_view") == [(0,)]


def test_views_follow_the_columns_of_their_table(warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.load(SPEC, "anthropic", [partition(tmp_path, "d", [{"label": "a", "score": 1}])])
    wider = {"type": "object", "properties": {"score": {"type": "number"}, "why": {}}}
    spec = TableSpec("posts", "id", output_schema=wider)
    warehouse.load(spec, "anthropic", [partition(tmp_path, "e", [{"score": 1.5, "why": [1]}])])
    query = "SELECT score, why::VARCHAR FROM posts_latest ORDER BY _partition DESC"
    assert rows(warehouse, query) == [(1.5, "[1]")]
    described = "SELECT column_name FROM (DESCRIBE posts_latest) WHERE column_name = 'label'"
    assert rows(warehouse, described) == []


def test_a_record_column_that_one_partition_lacks_stays_in_the_views(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    for key, columns in (("d1", {"id": ["a"], "body": ["x"]}), ("d2", {"id": ["b"]})):
        records = pa.table(columns)
        load = partition(tmp_path, key, [{"label": "l"}], records=records)
        warehouse.load(SPEC, "anthropic", [load])
    assert rows(warehouse, "SELECT id, body FROM posts_latest ORDER BY id") == [
        ("a", "x"),
        ("b", None),
    ]


HOSTILE = ["_answer", "_raw", "_differs", 'a"b', "x'; DROP TABLE posts; --", "rowid", "Ä ö", "e.id"]


@pytest.mark.parametrize("name", HOSTILE)
def test_any_name_of_an_id_a_column_and_a_property_can_be_viewed(
    warehouse: Warehouse, tmp_path: Path, name: str
) -> None:
    schema = {"type": "object", "properties": {f"{name}2": {"type": "string"}, "a/b~c": {}}}
    spec = TableSpec("posts", name, output_schema=schema)
    for version in ("v1", "v2"):
        answer = {f"{name}2": version, "a/b~c": [version]}
        load = partition(
            tmp_path,
            "d",
            [answer],
            records=pa.table({name: ["r"], f"{name}3": ["text"]}),
            change=versioned(version, 1),
        )
        warehouse.load(spec, "anthropic", [load])
    for view in ("latest", "review", "raw", "disagreements"):
        rows(warehouse, f"FROM posts_{view}")
    assert rows(warehouse, "SELECT _differs FROM posts_disagreements") in (
        [(sorted([f"{name}2", "a/b~c"]),)],
        [("r",)],
    )
    assert len(rows(warehouse, "FROM posts_disagreements")) == 1
