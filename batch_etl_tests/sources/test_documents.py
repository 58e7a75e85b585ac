"""A folder of files as records."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pydantic
import pytest

from batch_etl.errors import SourceError
from batch_etl.sources import DocumentsSource, PartitionSlice


def source(folder: Path, **keys: Any) -> DocumentsSource:
    block = {"type": "documents", "path": "letters/**/*.txt", **keys}
    return DocumentsSource.model_validate(block).anchored(folder)


def rows(
    found: DocumentsSource, slices: Sequence[PartitionSlice] | None = None
) -> list[dict[str, Any]]:
    portions = list(found.read(slices))
    assert len({portion.batch.schema for portion in portions}) == 1
    return [row for portion in portions for row in portion.batch.to_pylist()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {
        "b.txt": "zwei",
        "sub/a.TXT": "x",
        "sub/c.txt": "drei ü",
        "d.pdf": "",
    }.items():
        path = tmp_path / "letters" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return tmp_path


def test_each_file_is_a_record_named_by_its_path(folder: Path) -> None:
    first, second = rows(source(folder))
    assert first == {
        "document_id": "letters/b.txt",
        "name": "b.txt",
        "extension": "txt",
        "size_bytes": 4,
        "modified_at": datetime.fromtimestamp(1_700_000_000, UTC),
    }
    assert second["document_id"] == "letters/sub/c.txt"


def test_texts_are_read_where_asked(folder: Path) -> None:
    assert [row["text"] for row in rows(source(folder, text=True))] == ["zwei", "drei ü"]


def test_many_texts_come_in_portions_of_bounded_size(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.txt").write_text("x" * 3_000_000)
    portions = list(source(tmp_path, path="*.txt", text=True).read())
    assert [portion.batch.num_rows for portion in portions] == [0, 2, 2, 1]
    assert portions[2].place(1) == f"{tmp_path} record 4"


def test_a_partition_has_files_of_its_own(folder: Path) -> None:
    mine = source(folder, path="letters/{partition}/*.txt")
    assert [row["name"] for row in rows(mine, [PartitionSlice("sub")])] == ["c.txt"]


@pytest.mark.parametrize(
    ("content", "keys", "said"),
    [
        (b"ab\xff", {}, "byte 2 is not utf-8"),
        (b"abcd", {"max_text_bytes": 3}, "4 bytes of text, and max_text_bytes is 3"),
    ],
)
def test_a_file_that_is_no_such_text_is_named(
    tmp_path: Path, content: bytes, keys: dict[str, Any], said: str
) -> None:
    (tmp_path / "one.txt").write_bytes(content)
    with pytest.raises(SourceError, match=f"one.txt: {said}"):
        rows(source(tmp_path, path="*.txt", text=True, **keys))


def test_no_file_is_refused_or_no_records(folder: Path) -> None:
    with pytest.raises(SourceError, match="no file"):
        rows(source(folder, path="letters/*.doc"))
    assert rows(source(folder, path="letters/*.doc", missing="empty")) == []


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"encoding": "utf-9"}, "unknown encoding"),
        ({"path": []}, "at least one"),
        ({"path": ["a/*", "{partition}/*"]}, "either all"),
        ({"pattern": "x"}, "unknown key 'pattern'"),
    ],
)
def test_a_mistake_in_the_block_is_named(tmp_path: Path, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=said):
        source(tmp_path, **keys)


def test_partitions_need_a_place_in_the_path(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs"):
        source(tmp_path).check_partitions("time")
    with pytest.raises(ValueError, match="add a `partitions` block"):
        source(tmp_path, path="{partition}/*").check_partitions(None)
