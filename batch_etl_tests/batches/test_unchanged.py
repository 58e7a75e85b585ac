"""Records that have not changed are not rendered again, and nothing else is different for it."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from batch_etl.batches.keys import KeySet, halves
from batch_etl.batches.plan import PlanCounts, plan, plan_path
from batch_etl.batches.request import Rendered, Renderer
from batch_etl.batches.transform import Partition, Transform
from batch_etl.batches.unchanged import EarlierPlans, Keeping, Unchanged
from batch_etl.files import Home, read_batches
from batch_etl_tests.batches import engine
from batch_etl_tests.batches.engine import rows
from batch_etl_tests.batches.test_plan import Nobody

PROMPT = "{{ text }}{{ price }}{{ at }}{{ sure }}{{ paid }}"
SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("text", pa.string()),
        ("price", pa.float64()),
        ("at", pa.timestamp("us", tz="UTC")),
        ("sure", pa.bool_()),
        ("paid", pa.decimal128(6, 2)),
        ("not_read", pa.list_(pa.int64())),
    ]
)
VALUES = st.fixed_dictionaries(
    {
        "text": st.none() | st.sampled_from(["", "a", "a\n", "é", "x" * 70]),
        "price": st.none() | st.sampled_from([0.0, -0.0, 1.5, float("nan"), float("inf")]),
        "at": st.none() | st.sampled_from([dt.datetime(2026, 1, d, tzinfo=dt.UTC) for d in (1, 2)]),
        "sure": st.none() | st.booleans(),
        "paid": st.none() | st.sampled_from([Decimal("1.00"), Decimal("1.10")]),
        "not_read": st.none() | st.lists(st.integers(0, 3), max_size=2),
    }
)


def written(path: Path, records: list[dict[str, Any]], rows_per_group: int = 1000) -> UPath:
    numbered = [{"id": row, **record} for row, record in enumerate(records)]
    table = pa.Table.from_pylist(numbered, schema=SCHEMA)
    pq.write_table(table, path, row_group_size=rows_per_group)
    return UPath(path)


def planned(folder: Path, records: UPath) -> tuple[Transform, Renderer, UPath]:
    """The transform of these records, its renderer, and its plan."""
    folder.mkdir(exist_ok=True)
    own = Transform("p", engine.task(prompt=PROMPT), "id", (Partition(None, records),))
    list(plan(own, UPath(folder), Nobody(), KeySet(), PlanCounts()))
    return own, own.renderer(own.partitions[0]), plan_path(UPath(folder), 0)


def of_all(renderer: Renderer, records: UPath) -> Iterator[Rendered]:
    for batch in read_batches(records, renderer.columns, rows=7):
        yield renderer.render(batch)


def keys(parts: list[Rendered]) -> list[bytes]:
    return [key for part in parts for key in part.keys.tolist()]


@settings(deadline=None, max_examples=60)
@given(
    before=st.lists(VALUES, min_size=1, max_size=30),
    changes=st.lists(st.tuples(st.integers(0, 40), VALUES), max_size=10),
    unanswered=st.sets(st.integers(0, 29)),
    per_group=st.integers(1, 30),
)
def test_keys_are_those_of_rendering_all_anew(
    tmp_path_factory, before, changes, unanswered, per_group
):
    folder = tmp_path_factory.mktemp("unchanged")
    after = list(before)
    for at, values in changes:
        after[at : at + 1] = [values]  # beyond the end it is a further record
    kept = written(folder / "before.parquet", before)
    records = written(folder / "after.parquet", after, per_group)
    _, renderer, its_plan = planned(folder / "t1", kept)
    parts = list(of_all(renderer, kept))
    prefixes = halves(np.array(keys(parts), dtype="S16"))[0]
    answered = KeySet([np.delete(prefixes, [at for at in unanswered if at < len(prefixes)])])
    known = Unchanged(kept, its_plan, renderer, answered)

    anew = list(of_all(renderer, records))
    found = [
        known.rendered(batch) or renderer.render(batch)
        for batch in read_batches(records, renderer.columns, rows=7)
    ]
    assert keys(found) == keys(anew)
    assert [i for part in found for i in part.record_ids.to_pylist()] == (
        [i for part in anew for i in part.record_ids.to_pylist()]
    )
    for part, whole in zip(found, anew, strict=True):
        for params, wanted, key in zip(
            part.params, whole.params, halves(part.keys)[0], strict=True
        ):
            assert params == wanted or (params == b"" and answered.contains(np.array([key])).all())


def test_of_a_hundred_answered_records_of_which_one_changed_one_is_rendered(tmp_path):
    value = {"text": "a", "price": 0.0}
    kept = written(tmp_path / "before.parquet", [value] * 100)
    records = written(tmp_path / "after.parquet", [value] * 50 + [{**value, "price": -0.0}])
    _, renderer, its_plan = planned(tmp_path / "t1", kept)
    prefixes = halves(np.array(keys(list(of_all(renderer, kept))), dtype="S16"))[0]
    known = Unchanged(kept, its_plan, renderer, KeySet([prefixes]))
    (batch,) = read_batches(records, renderer.columns)
    rendered = known.rendered(batch)
    assert rendered is not None
    assert [row for row, params in enumerate(rendered.params) if params] == [50]


def test_where_hardly_anything_is_as_before_the_rest_is_not_compared(tmp_path):
    kept = written(tmp_path / "before.parquet", [{"text": "a"}] * 30_000, 30_000)
    records = written(tmp_path / "after.parquet", [{"text": "b"}] * 30_000, 30_000)
    _, renderer, its_plan = planned(tmp_path / "t1", kept)
    known = Unchanged(kept, its_plan, renderer, KeySet())
    found = [known.rendered(batch) for batch in read_batches(records, renderer.columns)]
    assert [one is not None for one in found] == [True] * 10 + [False] * 5


# in a run ---------------------------------------------------------------------------------------


@pytest.fixture
def renderings(monkeypatch) -> list[int]:
    """How many records each call of the renderer was given; the calls are the real ones."""
    counts: list[int] = []
    render = Renderer.render

    def counted(self: Renderer, records: pa.RecordBatch) -> Rendered:
        counts.append(records.num_rows)
        return render(self, records)

    monkeypatch.setattr(Renderer, "render", counted)
    return counts


def kept_files(site) -> list[str]:
    return sorted(path.name for path in site.root.glob("transforms/*/records-*"))


def test_a_second_run_renders_and_sends_what_changed(site, renderings):
    records = rows(50)
    site.run(site.transform(records))
    records[7]["text"] += " (edited)"
    del renderings[:]
    site.run(site.transform([*records, *rows(1, start=50)]))
    assert sum(renderings) == 51  # a block that goes beyond what there was is rendered
    assert site.bill == (52, 52, 0)
    del renderings[:]
    records[8]["text"] += " (edited)"
    summary = site.run(site.transform([*records, *rows(1, start=50)]))
    assert sum(renderings) == 1
    assert (summary.counts["sent"], summary.counts["reused"]) == (1, 50)
    assert (summary.counts["new"], summary.counts["changed"]) == (0, 1)
    assert site.bill == (53, 53, 0)
    results = site.results()
    assert {row["record_id"]: row["state"] for row in results} == {
        f"r{i}": "answered" for i in range(51)
    }
    assert len(kept_files(site)) == 1


def test_each_partition_keeps_its_records_once(site, renderings):
    parts = {"a": rows(20), "b": rows(20, start=20)}
    site.run(site.transform(parts))
    site.run(site.transform({"a": parts["a"]}))
    assert len(kept_files(site)) == 2
    del renderings[:]
    site.run(site.transform({key: list(part) for key, part in parts.items()}))
    assert sum(renderings) == 0
    assert len(kept_files(site)) == 2
    assert site.bill == (40, 40, 0)


def test_another_task_renders_all_and_keeps_anew(site, renderings):
    site.run(site.transform(rows(20)))
    del renderings[:]
    site.run(site.transform(None, max_tokens=99))
    assert sum(renderings) == 20
    assert len(kept_files(site)) == 1
    assert site.bill == (40, 40, 0)


def test_a_column_that_takes_the_place_of_a_global_renders_all(site, renderings):
    prompt = "{{ text }} {{ range(2) if range is callable else range }}"
    site.run(site.transform(rows(20), prompt=prompt))
    del renderings[:]
    site.run(site.transform([{**row, "range": "r"} for row in rows(20)], prompt=prompt))
    assert sum(renderings) == 20
    assert site.bill == (40, 40, 0)


def test_records_that_were_written_into_after_the_plan_are_rendered(site, renderings):
    transform = site.transform(rows(20))
    site.run(transform)
    path = str(transform.partitions[0].records)
    inode = os.stat(path).st_ino
    changed = [{**row, "text": row["text"].replace("love", "hate")} for row in rows(20)]
    with open(path, "wb") as file:
        pq.write_table(pa.Table.from_pylist(changed), file)
    assert os.stat(path).st_ino == inode
    del renderings[:]
    site.run(site.transform())
    assert sum(renderings) == 20
    assert site.bill == (40, 40, 0)


def test_what_was_asked_in_vain_is_rendered_and_asked_again(site, renderings):
    fault = {"kind": "expire_lines", "fraction": 0.3, "attempts": 1, "seed": 4}
    site.faults(fault)
    site.run(site.transform(rows(40), max_attempts=1))
    vain = sum(row["state"] == "review" for row in site.results())
    assert 0 < vain < 40
    del renderings[:]
    site.run(site.transform(rows(40), max_attempts=2))
    assert {row["state"] for row in site.results()} == {"answered"}
    assert vain <= sum(renderings) < 2 * 40


def test_records_that_are_replaced_while_they_are_planned_are_not_kept(tmp_path):
    records = written(tmp_path / "records.parquet", [{"text": "a"}])
    own = Transform("p", engine.task(prompt=PROMPT), "id", (Partition(None, records),))
    keeping = Keeping(own, UPath(tmp_path))
    written(tmp_path / "others.parquet", [{"text": "b"}])
    os.replace(tmp_path / "others.parquet", tmp_path / "records.parquet")
    keeping.keep(EarlierPlans(Home.at(tmp_path), ()))
    assert not list(tmp_path.glob("records-*"))


def test_records_that_are_gone_are_not_kept(tmp_path):
    own = Transform("p", engine.task(), "id", (Partition(None, UPath(tmp_path / "none.parquet")),))
    Keeping(own, UPath(tmp_path)).keep(EarlierPlans(Home.at(tmp_path), ()))
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_has_left_goes_with_the_rest(site):
    site.run(site.transform(rows(5)))
    (kept,) = site.root.glob("transforms/*/records-*")
    os.link(kept, kept.with_name("records-000000.tmp"))
    site.run(site.transform(rows(6)))
    assert len(kept_files(site)) == 1
