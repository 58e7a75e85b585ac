"""Planning: what is sent, what is not, and payloads that can be made again byte for byte."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from batch_etl.batches.errors import LedgerError, RenderError
from batch_etl.batches.keys import KeySet, from_arrow, halves
from batch_etl.batches.manifest import (
    MANIFEST,
    Asked,
    PlannedBatch,
    manifest_keys,
    manifest_path,
    read_manifest,
    render_again,
    write_manifest,
)
from batch_etl.batches.plan import PLAN, PlanCounts, measure, plan, plan_path
from batch_etl.batches.request import Renderer, custom_id, new_token
from batch_etl.batches.transform import Partition, Transform
from batch_etl.errors import SourceError
from batch_etl_tests.batches.engine import rows, task, write_records

NOWHERE = UPath("nowhere")
"""The folder of answers, for requests that repair none."""


class Nobody:
    """Other transforms that have answered ``known``, failed ``failed`` and are buying nothing."""

    def __init__(self, known: KeySet | None = None, failed: KeySet | None = None) -> None:
        self.answered = known or KeySet()
        self.resumable = failed or KeySet()
        self.buying = KeySet()
        self.awaited = KeySet()

    def before(self, transform: Transform, partition: Partition, renderer: Renderer) -> None:
        """Nothing was planned before."""


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
    own = transform(tmp_path, [rows(5_000)], packing={"max_requests": 9})
    batches = plan(own, UPath(tmp_path), Nobody(), KeySet(), PlanCounts())
    assert next(batches).payload.count == 9
    assert not plan_path(UPath(tmp_path), 0).exists()


def test_a_record_that_cannot_be_rendered_has_a_problem_and_the_others_are_sent(tmp_path):
    records = [{"id": f"r{i}", "text": str(i), "n": i % 3} for i in range(7)]
    records[6]["text"] = "x" * 3_000
    own = transform(tmp_path, [records], prompt="{{ text }}{{ 1 // n }}",
                    packing={"max_bytes": 1_000})  # fmt: skip
    (batch,), counts = planned(own, tmp_path)
    assert batch.manifest.column("record_id").to_pylist() == ["r1", "r2", "r4", "r5"]
    assert counts == PlanCounts(records=7, sent=4, unsendable=3)
    table = pq.read_table(str(plan_path(UPath(tmp_path), 0))).to_pylist()
    problems = {row["record_id"]: row["problem"] for row in table if row["problem"]}
    assert list(problems) == ["r0", "r3", "r6"]
    assert problems["r0"].startswith("the prompt cannot be rendered: ZeroDivisionError")
    assert {row["request_key"] for row in table if row["problem"]} == {bytes(16)}
    measured = measure(own, Nobody(), KeySet())
    assert (measured.counts, sum(measured.problems.values())) == (counts, 3)


def test_a_prompt_that_no_record_can_fill_is_an_error_before_anything_is_sent(tmp_path):
    records = [{"id": f"r{i}", "text": "x", "n": 0} for i in range(3)]
    own = transform(tmp_path, [records, records], prompt="{{ text }}{{ 1 // n }}")
    with pytest.raises(RenderError, match=r"record 'r0': ZeroDivisionError"):
        planned(own, tmp_path)
    with pytest.raises(RenderError, match=r"record 'r0'"):
        measure(own, Nobody(), KeySet())


def test_a_prompt_that_one_record_of_all_can_fill_is_sent_for_that_one(tmp_path):
    records = [{"id": f"r{i}", "text": "x", "n": i} for i in range(2)]
    own = transform(tmp_path, [records[:1] * 5, records], prompt="{{ text }}{{ 1 // n }}")
    (batch,), counts = planned(own, tmp_path)
    assert batch.manifest.num_rows == 1
    assert (counts.sent, counts.unsendable) == (1, 6)


def test_what_another_has_asked_in_vain_is_neither_sent_nor_reused_but_resumed(tmp_path):
    before = keys_of(planned(transform(tmp_path, [rows(2)]), tmp_path)[0])
    own = transform(tmp_path, [rows(6, texts=3)])
    counts = PlanCounts()
    others = Nobody(failed=before)
    (batch,) = plan(own, UPath(tmp_path), others, KeySet(), counts)
    assert texts(batch) == ["I love item 2"]
    assert counts == PlanCounts(records=6, resumed=4, sent=1, shared=1)
    measured = measure(own, others, KeySet())
    assert (measured.counts, measured.awaited) == (counts, 0)


def test_a_manifest_on_disk_reads_back_and_its_payload_is_made_again_byte_for_byte(tmp_path):
    parts = [rows(30), rows(2_500, texts=40, start=10), [], rows(5, start=90_000)]
    own = transform(tmp_path, parts, packing={"max_requests": 17})
    batches, _ = planned(own, tmp_path)
    for batch in batches:
        write_manifest(UPath(tmp_path), batch)
        manifest = read_manifest(UPath(tmp_path), batch.token)
        assert manifest.equals(batch.manifest)
        assert body(render_again(own, batch.token, manifest, NOWHERE)) == body(batch)
    sent = Counter(key for batch in batches for key in batch.manifest.column(0).to_pylist())
    assert set(sent.values()) == {1}
    keys = manifest_keys(UPath(tmp_path), batches[0].token)
    assert keys.tolist() == batches[0].manifest.column("request_key").to_pylist()


def test_a_part_of_a_manifest_makes_a_payload_in_the_order_of_its_rows(tmp_path):
    own = transform(tmp_path, [rows(10), rows(10, start=50)])
    (batch,), _ = planned(own, tmp_path)
    chosen = batch.manifest.take([15, 2, 11, 3])
    again = render_again(own, new_token(), chosen, NOWHERE)
    everything = texts(batch)
    assert texts(again) == [everything[row] for row in (15, 2, 11, 3)]
    assert again.manifest.equals(chosen)


def asked_of(manifest: pa.Table, *asked: Asked) -> pa.Table:
    """The manifest, its rows asked in these ways."""
    columns = [manifest.column(name) for name in MANIFEST.names[:4]]
    for name in Asked._fields:
        values = [getattr(one, name) for one in asked]
        columns.append(pa.array(values, MANIFEST.field(name).type))
    return pa.Table.from_arrays(columns, schema=MANIFEST)


def test_each_row_of_a_manifest_is_asked_in_its_own_way(tmp_path):
    own = transform(tmp_path, [rows(3)])
    (batch,), _ = planned(own, tmp_path)
    opus = Asked(claude_model="claude-opus-5", max_tokens=7, failed=1)
    manifest = asked_of(batch.manifest, Asked(), opus, Asked(max_tokens=9))
    token = new_token()
    again = render_again(own, token, manifest, NOWHERE)
    write_manifest(UPath(tmp_path), again)
    assert read_manifest(UPath(tmp_path), token).equals(manifest)
    params = [request["params"] for request in json.loads(body(again))["requests"]]
    plain = [request["params"] for request in json.loads(body(batch))["requests"]]
    assert params == [
        plain[0],
        {**plain[1], "model": "claude-opus-5", "max_tokens": 7},
        {**plain[2], "max_tokens": 9},
    ]


def test_a_repair_whose_faulty_answer_is_gone_is_an_error(tmp_path):
    own = transform(tmp_path, [rows(1)])
    (batch,), _ = planned(own, tmp_path)
    manifest = asked_of(batch.manifest, Asked(faulty=custom_id(new_token(), 0)))
    with pytest.raises(LedgerError, match="is gone; restore the file"):
        render_again(own, new_token(), manifest, UPath(tmp_path))


def test_a_manifest_from_before_there_were_later_ways_to_ask_is_read_as_plain(tmp_path):
    own = transform(tmp_path, [rows(3)])
    (batch,), _ = planned(own, tmp_path)
    path = manifest_path(UPath(tmp_path), batch.token)
    pq.write_table(batch.manifest.select(MANIFEST.names[:4]), str(path))
    manifest = read_manifest(UPath(tmp_path), batch.token)
    assert manifest.equals(batch.manifest)
    assert body(render_again(own, batch.token, manifest, NOWHERE)) == body(batch)
    assert read_manifest(UPath(tmp_path), batch.token, ["failed", "record_id"]).column_names == [
        "failed",
        "record_id",
    ]


def test_row_groups_without_a_wanted_row_are_not_read(tmp_path):
    """A few retries among many records cost what they need."""
    own = transform(tmp_path, [rows(60)])
    path = str(own.partitions[0].records)
    pq.write_table(pq.read_table(path), path, row_group_size=10)
    (batch,), _ = planned(own, tmp_path)
    chosen = batch.manifest.take(pa.array([41, 20, 29, 59, 0]))
    with open(path, "r+b") as file:
        for group in (1, 3):
            column = pq.ParquetFile(path).metadata.row_group(group).column(1)
            file.seek(column.dictionary_page_offset or column.data_page_offset)
            file.write(b"\xff" * 30)
    again = render_again(own, new_token(), chosen, NOWHERE)
    assert texts(again) == [f"I love item {n}" for n in (41, 20, 29, 59, 0)]
    with pytest.raises(OSError, match="deserialize"):
        render_again(own, new_token(), batch.manifest, NOWHERE)


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
        render_again(own, batch.token, batch.manifest, NOWHERE)


def test_records_that_are_not_there_are_named_with_what_to_do(tmp_path):
    missing = Partition("2026-01-01", UPath(tmp_path) / "none.parquet")
    own = Transform("reviews", task(), "id", (missing,))
    with pytest.raises(SourceError, match=r"none\.parquet does not exist; materialize reviews/"):
        own.renderer(missing)


def test_no_partitions_and_no_records_make_no_payload(tmp_path):
    assert planned(transform(tmp_path, []), tmp_path) == ([], PlanCounts())
    assert planned(transform(tmp_path, [[], []]), tmp_path) == ([], PlanCounts())
    assert pq.read_table(str(plan_path(UPath(tmp_path), 1))).num_rows == 0
