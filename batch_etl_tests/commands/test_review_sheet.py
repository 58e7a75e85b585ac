"""Sheets as spreadsheets leave them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_etl.commands.review_sheet import (
    Unfit,
    guarded,
    read_sheet,
    unguarded,
    value_of,
    write_sheet,
)
from batch_etl.errors import BatchEtlError
from batch_etl.warehouse.types import parse


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "@SUM(A1)", "-x", "\t=1", "'=1"])
def test_a_text_that_a_spreadsheet_would_run_gets_an_apostrophe(text: str) -> None:
    assert guarded(text) == f"'{text}"


@pytest.mark.parametrize("text", ["-5", "+4.5e3", "plain", "'quoted'", "", "a=b"])
def test_any_other_text_stays_as_it_is(text: str) -> None:
    assert guarded(text) == text


@given(st.text(alphabet="'=+-@\t\r ax1."))
def test_the_apostrophe_is_taken_away_again(text: str) -> None:
    assert unguarded(guarded(text)) == text


VALUES: list[tuple[str, str, Any]] = [
    ("BIGINT", " 42 ", 42),
    ("BIGINT", "-9223372036854775808", -(2**63)),
    ("HUGEINT", "99999999999999999999", 99999999999999999999),
    ("DOUBLE", "1.5", 1.5),
    ("DOUBLE", "3", 3.0),
    ("BOOLEAN", "TRUE", True),
    ("BOOLEAN", "no", False),
    ("VARCHAR", " kept ", " kept "),
    ("VARCHAR", "12", "12"),
    ("DATE", " 2026-11-01 ", "2026-11-01"),
    ("VARCHAR[]", "a; b;", ["a", "b"]),
    ("VARCHAR[]", '["a;b"]', ["a;b"]),
    ("BIGINT[]", "1;2", [1, 2]),
    ("STRUCT(a BIGINT)", '{"a": 1}', {"a": 1}),
    ("JSON", '{"a": 1}', {"a": 1}),
    ("JSON", "plain words", "plain words"),
    ("JSON", "7", 7),
    ("JSON", "null", None),
]


@pytest.mark.parametrize(("kind", "cell", "value"), VALUES)
def test_a_cell_is_read_by_the_type_of_its_column(kind: str, cell: str, value: Any) -> None:
    assert value_of(cell, parse(kind)) == value


UNFIT = [
    ("BIGINT", "1.5", "not a whole number"),
    ("BIGINT", "9223372036854775808", "too large"),
    ("DOUBLE", "1,5", "not a number"),
    ("DOUBLE", "nan", "not a number"),
    ("BOOLEAN", "maybe", "neither true nor false"),
    ("BIGINT[]", "1;x", "not a whole number"),
    ("VARCHAR[]", '["a"', "not JSON"),
    ("STRUCT(a BIGINT)", "a=1", "not JSON"),
    ("JSON", '{"a"', "not JSON"),
]


@pytest.mark.parametrize(("kind", "cell", "words"), UNFIT)
def test_a_cell_that_does_not_fit_says_why(kind: str, cell: str, words: str) -> None:
    with pytest.raises(Unfit, match=words):
        value_of(cell, parse(kind))


CELLS = st.text(st.characters(exclude_categories=["Cs"]))


@given(rows=st.lists(st.tuples(CELLS, CELLS), max_size=5))
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("sheet") / "sheet.csv"
    assert write_sheet(path, ["id", "a"], rows) == len(rows)
    lines = list(read_sheet(path, ["id", "a"]))
    kept = [
        {name: cell for name, cell in zip("ia", row, strict=True) if cell.strip()} for row in rows
    ]
    assert [{name[0]: cell for name, cell in line.cells.items()} for line in lines] == kept


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_spreadsheets_may_choose_delimiter_and_byte_order_mark(
    tmp_path: Path, delimiter: str, encoding: str
) -> None:
    path = tmp_path / "sheet.csv"
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(
            [["id", "note", "label"], ["r1", "a, b; c\n\td", "é"]]
        )
    (line,) = read_sheet(path, ["id", "label"])
    assert line.cells == {"id": "r1", "note": "a, b; c\n\td", "label": "é"}


def test_a_line_is_named_by_its_first_line_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "sheet.csv"
    path.write_text('id,a\nr1,"x\ny"\nr2,z\n')
    assert [line.number for line in read_sheet(path, ["id"])] == [2, 4]


BROKEN = [
    (b"id,b\nr1,x\n", "has no column 'a'; it has id, b"),
    (b"", "has no column 'id'; it has none"),
    (b"id,a\nr1,x,y\n", "line 2: 3 cells under 2 columns"),
    (b"id,a\nr1,\xe4\n", "is not UTF-8"),
    (b'id,a\nr1,"x\n', "is not a CSV file"),
]


@pytest.mark.parametrize(("content", "words"), BROKEN)
def test_a_file_that_is_no_sheet_says_why(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "sheet.csv"
    path.write_bytes(content)
    with pytest.raises(BatchEtlError, match=words):
        list(read_sheet(path, ["id", "a"]))


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(BatchEtlError, match="No such file"):
        list(read_sheet(tmp_path / "gone.csv", ["id"]))
