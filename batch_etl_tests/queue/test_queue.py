"""Enqueue and drain: all or nothing, once, in one drain; on SQLite and PostgreSQL."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from upath import UPath

from batch_etl.errors import BatchEtlError, QueueError, SourceError
from batch_etl.files import ROWS_PER_READ
from batch_etl.queue import Enqueued, Queue, Wanted, enqueue, enqueue_files
from batch_etl.queue.delivery import of_file
from batch_etl.sources import FilesSource, PartitionSlice, QueueSource, extract

TICKETS = [{"id": "t1", "text": "help"}, {"id": "t2", "text": None, "stars": 4}]


def put(
    queue: Queue, path: Path, content: str | bytes, key: str | None = None, **wanted: Any
) -> Enqueued:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    (done,) = enqueue_files(queue, "p", {path.name: path}, Wanted("id", **wanted), key=key)
    return done


def drained(queue: Queue) -> str:
    drain = queue.drain("p")
    assert drain is not None
    return drain.key


def read(queue: Queue, folder: Path, key: str, types: Mapping[str, str] | None = None) -> pa.Table:
    """The drain's records as ``extract`` writes them."""
    source = QueueSource(type="queue", id="id", types=dict(types or {}))
    path = UPath(folder / "drained.parquet")
    extract(source.bound(queue.items_of("p")), [PartitionSlice(key)], lambda _: path)
    return pq.read_table(str(path))


def parquet(path: Path, **columns: Sequence[Any] | pa.Array) -> bytes:
    pq.write_table(pa.table(dict(columns)), path)
    return path.read_bytes()


def test_what_is_enqueued_waits_until_a_drain_takes_all_of_it(queue: Queue, tmp_path: Path) -> None:
    assert enqueue(queue, "p", TICKETS, id="id").items == 2
    assert (queue.waiting("p").items, queue.waiting("other").items) == (2, 0)
    key = drained(queue)
    assert queue.waiting("p").items == 0
    assert queue.drain("p") is None
    assert read(queue, tmp_path, key).to_pylist() == [
        {"id": "t1", "text": "help", "stars": None},
        {"id": "t2", "text": None, "stars": 4},
    ]


def test_a_drain_is_made_at_the_count_or_at_the_age(queue: Queue) -> None:
    assert queue.drain("p", count=1, age_s=0) is None  # nothing waits
    enqueue(queue, "p", TICKETS, id="id")
    assert queue.drain("p", count=3, age_s=None) is None
    assert queue.drain("p", count=3, age_s=3600) is None
    assert queue.drain("p", count=2, age_s=3600) is not None
    enqueue(queue, "p", TICKETS, id="id")
    assert queue.drain("p", count=3, age_s=0) is not None
    assert [drain.items for drain in queue.drains("p")] == [2, 2]
    first, second = queue.open_drains("p")
    assert (first.key[-4:], second.key[-4:]) == ("0001", "0002")


def test_a_file_with_one_bad_line_is_not_taken_at_all(queue: Queue, tmp_path: Path) -> None:
    lines = ['{"id": "a"}', '{"id": "b"}', "{oops"]
    with pytest.raises(SourceError, match=r"f\.jsonl line 3 is not one JSON object"):
        put(queue, tmp_path / "f.jsonl", "\n".join(lines))
    assert queue.waiting("p").items == 0


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", '{"id": "a"}\n{"id": null}\n', "record 2: id: 'id' is missing or null"),
        ("a.jsonl", '{"id": 1.5}\n', "record 1: id: 'id' is 1.5; every item needs an id"),
        ("a.jsonl", '{"id": "a"}\n{"id": "a"}\n', "1 id.s. in 'id' occur more than once: 'a' 2"),
        ("a.csv", "id,x\n1,2\n,3\n", "record 2: id: 'id' is empty"),
        ("a.csv", "key,x\n1,2\n", "id: there is no column 'id'"),
        ("a.txt", "id\n1\n", "the extension does not say how the file is written"),
        (
            "a.jsonl",
            '{"id": 1, "stars": "many"}\n',
            "record 1: 'stars' is 'many', which is no int64",
        ),
        ("a.csv", "id,stars\n1,4\n2,many\n", "record 2: 'stars' is 'many', which is no int64"),
    ],
)
def test_what_could_not_be_drained_is_refused_at_the_door(
    queue: Queue, tmp_path: Path, name: str, content: str, says: str
) -> None:
    with pytest.raises(SourceError, match=says):
        put(queue, tmp_path / name, content, types={"stars": "int64"})
    assert queue.waiting("p").items == 0


def test_of_several_files_all_are_taken_or_none(queue: Queue, tmp_path: Path) -> None:
    (tmp_path / "good.jsonl").write_text('{"id": "a"}\n')
    (tmp_path / "bad.csv").write_text("id\nb\na\n")
    files = {name: tmp_path / name for name in ("good.jsonl", "bad.csv")}
    with pytest.raises(QueueError, match=r"bad\.csv: items with the id 'a' wait"):
        enqueue_files(queue, "p", files, Wanted("id"))
    assert queue.waiting("p").items == 0


def test_the_same_content_is_enqueued_once_under_any_name(queue: Queue, tmp_path: Path) -> None:
    first = put(queue, tmp_path / "a.jsonl", '{"id": "a"}\n')
    again = put(queue, tmp_path / "b.jsonl", '{"id": "a"}\n')
    assert (first.already, again.already is None) == (None, False)
    drained(queue)
    put(queue, tmp_path / "c.jsonl", '{"id": "a"}\n')
    assert queue.waiting("p").items == 0
    put(queue, tmp_path / "c.jsonl", '{"id": "a"}\n', key="once more")
    assert queue.waiting("p").items == 1


def test_a_key_stands_for_one_content(queue: Queue) -> None:
    enqueue(queue, "p", TICKETS, id="id", key="monday")
    assert enqueue(queue, "p", TICKETS, id="id", key="monday").already is not None
    with pytest.raises(QueueError, match="the key 'monday' stands for other content"):
        enqueue(queue, "p", TICKETS[:1], id="id", key="monday")
    assert queue.waiting("p").items == 2


@pytest.mark.parametrize(
    ("on_duplicate", "counts", "texts"),
    [("first", (1, 1, 0), ["old", "new"]), ("last", (2, 0, 1), ["new", "new"])],
)
def test_an_id_that_waits_already_keeps_the_first_or_the_last(
    queue: Queue,
    tmp_path: Path,
    on_duplicate: Any,
    counts: tuple[int, int, int],
    texts: list[str],
) -> None:
    enqueue(queue, "p", [{"id": "a", "text": "old"}], id="id")
    since = queue.waiting("p").oldest_at
    both = [{"id": "a", "text": "new"}, {"id": "b", "text": "new"}]
    done = enqueue(queue, "p", both, id="id", on_duplicate=on_duplicate)
    assert (done.items, done.passed_over, done.replaced) == counts
    assert queue.waiting("p").oldest_at == since  # replacing does not put off the drain
    rows = read(queue, tmp_path, drained(queue)).sort_by("id").to_pylist()
    assert [(row["id"], row["text"]) for row in rows] == list(zip("ab", texts, strict=True))


def test_a_csv_of_many_short_rows_is_taken_in_blocks_that_a_query_can_name(tmp_path: Path) -> None:
    ids = [str(number) for number in range(40_000)]
    path = tmp_path / "a.csv"
    path.write_text("id\n" + "\n".join(ids))
    with of_file(path, Wanted("id"), None, origin="a.csv") as delivery:
        blocks = [block.ids for block in delivery.blocks()]
    assert [name for block in blocks for name in block] == ids
    assert max(map(len, blocks)) <= ROWS_PER_READ


def test_within_one_file_too_the_first_or_the_last_is_kept(queue: Queue, tmp_path: Path) -> None:
    put(queue, tmp_path / "a.csv", "id,n\na,1\nb,2\na,3\n", on_duplicate="last")
    rows = read(queue, tmp_path, drained(queue)).to_pylist()
    assert rows == [{"id": "b", "n": "2"}, {"id": "a", "n": "3"}]


def test_after_its_drain_an_id_is_a_new_item(queue: Queue) -> None:
    enqueue(queue, "p", TICKETS, id="id")
    with pytest.raises(QueueError, match="'t1', 't2' wait in the queue of 'p' already"):
        enqueue(queue, "p", TICKETS, id="id")
    drained(queue)
    assert enqueue(queue, "p", TICKETS, id="id").items == 2


def test_json_items_are_typed_as_the_lines_of_one_file_are(queue: Queue, tmp_path: Path) -> None:
    lines = [
        '{"id": "1", "n": 1, "user": {"name": "Ann"}, "mixed": 1, "tags": []}',
        '{"id": "2", "n": 2.5, "user": {"age": 7}, "mixed": "x", "tags": ["a"], "none": null}',
        '{"id": "3", "big": 123456789012345678901234567890, "text": "\\u0000 \\"é\\" 🎈"}',
    ]
    (tmp_path / "all.jsonl").write_text("\n".join(lines))
    for number, line in enumerate(lines):
        put(queue, tmp_path / f"{number}.jsonl", line)
    expected = UPath(tmp_path / "expected.parquet")
    extract(FilesSource(path=str(tmp_path / "all.jsonl"), id="id"), None, lambda _: expected)
    table = pq.read_table(str(expected))
    assert read(queue, tmp_path, drained(queue)).equals(table)


def test_parquet_items_keep_their_types(queue: Queue, tmp_path: Path) -> None:
    moment = dt.datetime(2026, 11, 1, 12, tzinfo=dt.UTC)
    columns = {
        "id": pa.array([1, 2], pa.int64()),
        "price": pa.array([Decimal("1.50"), None], pa.decimal128(10, 2)),
        "at": pa.array([moment, None], pa.timestamp("us", "UTC")),
        "day": pa.array([moment.date(), None], pa.date32()),
        "sizes": pa.array([[1, 2], None], pa.list_(pa.int32())),
    }
    put(queue, tmp_path / "a.parquet", parquet(tmp_path / "a.parquet", **columns))
    assert read(queue, tmp_path, drained(queue)).equals(pa.table(columns))


def test_items_whose_types_do_not_meet_are_text_and_keep_nobody_waiting(
    queue: Queue, tmp_path: Path
) -> None:
    put(queue, tmp_path / "a.csv", "id,x,y\n1,007,a\n")
    put(queue, tmp_path / "b.jsonl", '{"id": 2, "x": 7, "y": {"z": [1]}}\n')
    columns = {"id": ["3"], "x": pa.array([1.5]), "y": pa.array([{"z": "n"}])}
    put(queue, tmp_path / "c.parquet", parquet(tmp_path / "c.parquet", **columns))
    rows = read(queue, tmp_path, drained(queue)).sort_by("id").to_pylist()
    assert rows == [
        {"id": "1", "x": "007", "y": "a"},
        {"id": "2", "x": "7", "y": '{"z":[1]}'},
        {"id": "3", "x": "1.5", "y": '{"z":"n"}'},
    ]


def test_a_declared_column_is_in_every_drain(queue: Queue, tmp_path: Path) -> None:
    types = {"stars": "int64", "note": "string"}
    put(queue, tmp_path / "a.csv", "id,stars\n1,4\n", types=types)
    table = read(queue, tmp_path, drained(queue), types)
    assert table.to_pylist() == [{"id": "1", "stars": 4, "note": None}]
    put(queue, tmp_path / "b.jsonl", '{"id": "2"}\n', types=types)
    assert read(queue, tmp_path, drained(queue), types).schema.types == table.schema.types


def test_many_small_items_and_large_ones_come_in_the_order_they_came(
    queue: Queue, tmp_path: Path
) -> None:
    enqueue(queue, "p", ({"id": n, "text": "x" * 10} for n in range(4_500)), id="id")
    large = "y" * 3_000_000
    for number in range(4_500, 4_504):
        enqueue(queue, "p", [{"id": number, "text": large}], id="id")
    table = read(queue, tmp_path, drained(queue))
    assert table.column("id").to_pylist() == list(range(4_504))
    assert table.column("text")[4_503].as_py() == large


def test_a_partition_that_is_no_drain_is_an_error(queue: Queue, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="has no drain 'nope' of pipeline 'p'"):
        read(queue, tmp_path, "nope")


def test_who_claims_a_drain_may_ask_and_nobody_else_until_the_request_is_lost(
    queue: Queue,
) -> None:
    enqueue(queue, "p", TICKETS, id="id")
    key = drained(queue)
    assert queue.claim("p", key, lost_after_s=60)
    assert not queue.claim("p", key, lost_after_s=60)
    assert queue.claim("p", key, lost_after_s=0)
    queue.loaded("p", [key])
    assert not queue.claim("p", key, lost_after_s=0)
    assert queue.open_drains("p") == []


def test_the_database_itself_refuses_an_id_that_waits_twice(queue: Queue) -> None:
    enqueue(queue, "p", TICKETS, id="id")
    row = "'p', 't1', block, row, enqueued_at"
    columns = "pipeline, item_id, block, row, enqueued_at"
    twice = sa.text(f"INSERT INTO queue_items ({columns}) SELECT {row} FROM queue_items LIMIT 1")
    with pytest.raises(QueueError, match=r"(?i)unique"), queue.begin() as tx:
        tx.execute(twice)


def test_a_queue_of_a_later_version_is_refused(url: str) -> None:
    with closing(Queue(url)) as queue, queue.begin() as tx:
        tx.execute(sa.text("UPDATE queue_version SET version = 99"))
    with pytest.raises(QueueError, match="schema version 99, and this batch_etl knows 1"):
        Queue(url)


def test_an_error_never_shows_the_password() -> None:
    for url in ("postgresql+psycopg2://me:s3cret@127.0.0.1:1/x", "mysql://me:s3cret@h/x", "s3cret"):
        with pytest.raises(BatchEtlError, match="queue") as error:
            Queue(url)
        assert "s3cret" not in str(error.value)
