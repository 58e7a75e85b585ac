"""Approved answers in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from batch_etl.errors import ConfigError
from batch_etl.evaluation import KnownGood
from batch_etl_tests.evaluation.test_numbers import case


def test_what_is_correct_is_approved_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "known_good.jsonl"
    KnownGood.of([case(2, "x", "x"), case(1, "ü", "ü"), case(3, "x", "y")]).write(path)
    text = path.read_text(encoding="utf-8")
    assert text == '{"record_id": "r1", "label": "ü"}\n{"record_id": "r2", "label": "x"}\n'
    assert KnownGood.read(path).answers == {"r1": {"label": "ü"}, "r2": {"label": "x"}}


def test_a_case_passes_has_changed_or_fails() -> None:
    approved = KnownGood({"r1": {"label": "x"}, "r2": {"label": "another right answer"}})
    assert approved.status(case(1, "x", "x")) == "pass"
    assert approved.status(case(2, "x", "x")) == "changed"
    assert approved.status(case(1, "x", "y")) == "fail"
    assert approved.status(case(9, "x", "x")) == "pass"


@pytest.mark.parametrize(("line", "said"), [("{", "no JSON"), ("[1]", "record_id"), ("{}", "id")])
def test_a_line_that_is_none_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "known_good.jsonl"
    path.write_text('{"record_id": "r1"}\n' + line + "\n")
    with pytest.raises(ConfigError, match=f"line 2: .*{said}"):
        KnownGood.read(path)
