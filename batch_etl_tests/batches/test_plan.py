"""Planning: what is sent, what is not, and payloads that can be made again byte for byte."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from batch_etl.batches.errors import RenderError
from batch_etl.batches.keys import KeySet, from_arrow, halves
from batch_etl.batches.manifest import (
    MANIFEST,
    PlannedBatch,
    manifest_keys,
    read_manifest,
    render_again,
    write_manifest,
)
from batch_etl.batches.plan import PLAN, PlanCounts, plan, plan_path
from batch_etl.batches.request import custom_id, new_token
from batch_etl.batches.transform import Partition, Transform
from batch_etl.errors import SourceError
from batch_etl_tests.batches.engine import rows, task, write_records


class Nobody:
    """Other transforms that have answered ``known`` and are buying nothing."""

    def __init__(self, known: KeySet | None = None) -> None:
        self.answered = known or KeySet()
        self.buying = KeySet()
        self.awaited = KeySet()


def transform(folder: Path, partitions: list[list[dict[str, Any]]], **changes: Any) -> Transform:
    parts: list[Partition] = []
    for ordinal, records in enumerate(partitions):
        path = UPath(folder) / f"records-{ordinal}.parquet"
        write_records(path, records)
        parts.append(Partition(f"p{ordinal}", path))
    changes = {"output_schema": None, "prompt": "{{ text }}", **changes}
    return Transform("pipeline", task(**changes), "id", tuple(parts))


def planned(
    own: Transform, folder: Path, answered: KeySet | None = None, in_flight: KeySet | None = None
) -> tuple[list[PlannedBatch], PlanCounts]:
    counts = PlanCounts()
    known = answered or KeySet()
    flight = in_flight if in_flight is not None else KeySet()
    return list(plan(own, UPath(folder), Nobody(known), flight, counts)), counts


def body(batch: PlannedBatch) -> bytes:
    return b"".join(batch.payload.blocks())


def texts(batch: PlannedBatch) -> list[str]:
    requests = json.loads(body(batch))["requests"]
    return [request["params"]["messages"][0]["content"] for request in requests]


def keys_of(batches: list[PlannedBatch]) -> KeySet:
    column = [batch.manifest.column("request_key").combine_chunks() for batch in batches]
    return KeySet(halves(from_arrow(keys))[0] for keys in column)


RECORDS = st.lists(
    st.lists(st.sampled_from(["a", "b", "c", "long " * 300, "x" * 3_000]), max_size=8), max_size=4
)


@settings(max_examples=40)
@given(RECORDS, st.integers(1, 4), st.sets(st.sampled_from(["a", "b"])))
def test_each_new_text_is_sent_once_in_order_and_every_record_is_counted_once(
    tmp_path_factory, partitions, most, known
):
    folder = tmp_path_factory.mktemp("plan")
    records = [
        [{"id": f"{p}-{i}", "text": text} for i, text in enumerate(part)]
        for p, part in enumerate(partitions)
    ]
    limits = {"packing": {"max_requests": most, "max_bytes": 2_500}}
    answered = KeySet()
    if known:
        earlier = transform(folder, [[{"id": t, "text": t} for t in sorted(known)]])
        answered = keys_of(planned(earlier, folder)[0])
    own = transform(folder, records, **limits)
    batches, counts = planned(own, folder, answered)

    everything = [text for part in partitions for text in part]
    sendable = [text for text in everything if len(text) < 2_000]
    new = list(dict.fromkeys(text for text in sendable if text not in known))
    assert [text for batch in batches for text in texts(batch)] == new
    assert counts == PlanCounts(
        records=len(everything),
        reused=sum(text in known for text in sendable),
        shared=sum(text not in known for text in sendable) - len(new),
        sent=len(new),
        unsendable=len(everything) - len(sendable),
    )
    for batch in batches:
        assert batch.payload.count == batch.manifest.num_rows <= most
        assert len(body(batch)) == batch.payload.size_bytes <= 2_500
    for ordinal, part in enumerate(partitions):
        table = pq.read_table(str(plan_path(UPath(folder), ordinal)))
        assert table.schema.equals(PLAN)
        assert table.column("record_id").to_pylist() == [f"{ordinal}-{i}" for i in range(len(part))]
        assert [problem is None for problem in table.column("problem").to_pylist()] == [
            len(text) < 2_000 for text in part
        ]


def test_a_manifest_tells_of_each_row_which_record_it_is_of(tmp_path):
    own = transform(tmp_path, [rows(3), rows(4)], packing={"max_requests": 3})
    first, second = planned(own, tmp_path)[0]
    assert first.manifest.schema.equals(MANIFEST)
    assert first.manifest.select(["partition", "record_row", "record_id"]).to_pylist() == [
        {"partition": 0, "record_row": row, "record_id": f"r{row}"} for row in range(3)
    ]
    assert second.manifest.column("partition").to_pylist() == [1]
    assert second.manifest.column("record_id").to_pylist() == ["r3"]
    ids = [request["custom_id"] for request in json.loads(body(first))["requests"]]
    assert ids == [custom_id(first.token, row) for row in range(3)]


def test_what_is_in_flight_is_not_sent_and_counts_as_shared(tmp_path):
    own = transform(tmp_path, [rows(6)], packing={"max_requests": 4})
    before, _ = planned(own, tmp_path)
    again, counts = planned(own, tmp_path, in_flight=keys_of(before[:1]))
    assert [text for batch in again for text in texts(batch)] == ["I love item 4", "I love item 5"]
    assert (counts.sent, counts.shared, counts.reused) == (2, 4, 0)


def test_a_payload_is_yielded_as_soon_as_it_is_full(tmp_path):
    """So that the first batch is on its way while the last records are still unread."""
    broken = [{"id": f"r{i}", "text": str(i), "n": i} for i in range(5_000, -1, -1)]
    own = transform(
        tmp_path, [broken], prompt="{{ text }}{{ 1 // n }}", packing={"max_requests": 9}
    )
    batches = plan(own, UPath(tmp_path), Nobody(), KeySet(), PlanCounts())
    assert next(batches).payload.count == 9
    with pytest.raises(RenderError, match="record 'r0'"):
        list(batches)
    assert not plan_path(UPath(tmp_path), 0).exists()


def test_a_manifest_on_disk_reads_back_and_its_payload_is_made_again_byte_for_byte(tmp_path):
    parts = [rows(30), rows(2_500, texts=40, start=10), [], rows(5, start=90_000)]
    own = transform(tmp_path, parts, packing={"max_requests": 17})
    batches, _ = planned(own, tmp_path)
    for batch in batches:
        write_manifest(UPath(tmp_path), batch)
        manifest = read_manifest(UPath(tmp_path), batch.token)
        assert manifest.equals(batch.manifest)
        assert body(render_again(own, batch.token, manifest)) == body(batch)
    sent = Counter(key for batch in batches for key in batch.manifest.column(0).to_pylist())
    assert set(sent.values()) == {1}
    keys = manifest_keys(UPath(tmp_path), batches[0].token)
    assert keys.tolist() == batches[0].manifest.column("request_key").to_pylist()


def test_a_part_of_a_manifest_makes_a_payload_in_the_order_of_its_rows(tmp_path):
    own = transform(tmp_path, [rows(10), rows(10, start=50)])
    (batch,), _ = planned(own, tmp_path)
    chosen = batch.manifest.take([15, 2, 11, 3])
    again = render_again(own, new_token(), chosen)
    everything = texts(batch)
    assert texts(again) == [everything[row] for row in (15, 2, 11, 3)]
    assert again.manifest.equals(chosen)


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(rows(10, start=5), id="other texts"),
        pytest.param(rows(10)[::-1], id="another order"),
        pytest.param(rows(4), id="fewer records"),
        pytest.param([], id="none"),
    ],
)
def test_records_that_changed_since_they_were_planned_are_refused(tmp_path, changed):
    own = transform(tmp_path, [rows(10)])
    (batch,), _ = planned(own, tmp_path)
    write_records(own.partitions[0].records, changed)
    with pytest.raises(SourceError, match=f"'p0' have changed since batch {batch.token}"):
        render_again(own, batch.token, batch.manifest)


def test_records_that_are_not_there_are_named_with_what_to_do(tmp_path):
    missing = Partition("2026-01-01", UPath(tmp_path) / "none.parquet")
    own = Transform("reviews", task(), "id", (missing,))
    with pytest.raises(SourceError, match=r"none\.parquet does not exist; materialize reviews/"):
        own.renderer(missing)


def test_no_partitions_and_no_records_make_no_payload(tmp_path):
    assert planned(transform(tmp_path, []), tmp_path) == ([], PlanCounts())
    assert planned(transform(tmp_path, [[], []]), tmp_path) == ([], PlanCounts())
    assert pq.read_table(str(plan_path(UPath(tmp_path), 1))).num_rows == 0
