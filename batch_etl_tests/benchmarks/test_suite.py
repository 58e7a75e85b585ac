"""The benchmark programs do the same work, and the suite's numbers are what was measured."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pyarrow.parquet as pq
import pytest

from batch_etl_tests.benchmarks import floor, ours, replay, report, suite, synthetic, workload


@pytest.mark.acceptance
def test_the_three_programs_fill_equal_tables_and_the_scenarios_send_what_they_should(
    tmp_path: Path,
) -> None:
    found = suite.run([600], 1, suite.PROGRAMS, tmp_path)
    programs = found["sizes"]["600"]
    assert [programs[name]["median"]["sent"] for name in suite.PROGRAMS] == [600, 600, 600]
    assert programs["ours after a kill"]["median"]["sent"] == 0
    assert programs["ours, 1% changed"]["median"]["sent"] == 6
    assert {"ledger", "plan+submit", "collect", "finish", "load"} <= set(
        programs["ours"]["median"]["stages"]
    )
    page = report.as_markdown(found)
    assert page.count("| 600 | batch_etl |") > 1
    assert f"{programs['ours']['median']['whole']['cpu_s']:.2f}" in page
    ET.fromstring(report.plot(found))


def test_floor_and_engine_send_the_same_params(tmp_path: Path) -> None:
    synthetic.write_records(tmp_path / "posts.parquet", 300)
    table = pq.read_table(tmp_path / "posts.parquet")
    task = ours.task()
    (batch,) = table.combine_chunks().to_batches()
    from batch_etl.batches.request import Renderer

    rendered = Renderer(task, workload.ID, table.schema.names, "test").render(batch)
    (body,) = (b"".join(blocks) for blocks in floor._bodies(tmp_path / "posts.parquet"))
    lines = json.loads(body)["requests"]
    assert [line["params"] for line in lines] == [json.loads(bytes(p)) for p in rendered.params]
    assert 1_300 < len(body) / 300 < 1_600


def test_records_are_the_same_whatever_their_number_and_one_percent_can_be_changed(
    tmp_path: Path,
) -> None:
    def texts(count: int, changed: int = 0) -> list[Any]:
        path = tmp_path / f"{count}-{changed}.parquet"
        synthetic.write_records(path, count, changed)
        return pq.read_table(path).column("text").to_pylist()

    few, many, other = texts(100), texts(1_000), texts(1_000, 10)
    assert many[:100] == few
    assert len({hashlib.sha256(text.encode()).digest() for text in many}) == 1_000
    assert sum(a != b for a, b in zip(many, other, strict=True)) == 10
    assert all(250 < len(text) <= 500 for text in many)


@pytest.mark.parametrize(
    ("number", "kind"), [(7, "errored"), (107, "expired"), (11, "succeeded"), (12, "succeeded")]
)
def test_a_replayed_line_is_of_its_kind(number: int, kind: str) -> None:
    line = json.loads(replay.result_line("id", number))
    assert line["result"]["type"] == kind
    always = json.loads(replay.result_line("id", number, may_fail=False))
    assert always["result"]["type"] == "succeeded"


def test_the_suite_s_part_of_the_page_is_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    sample = {"stages": {}, "whole": {"wall_s": 1.0, "cpu_s": 2.0, "peak_mb": 3.0}}
    ours_sample = {**sample, "stages": {"ledger": {"wall_s": 0.1, "cpu_s": 0.2, "peak_mb": 1.0}}}
    found: dict[str, Any] = {
        "begun_at": "now",
        "machine": {
            "cpus": 2,
            "system": "x",
            "python": "3",
            "load_before": 0.0,
            "load_after": 0.0,
        },
        "rounds": 1,
        "sizes": {
            "1000": {
                name: {
                    "median": {**one, "server_cpu_s": 0.0, "sent": 1},
                    "samples": [one],
                }
                for name, one in [("floor", sample), ("ours", ours_sample), ("usual", sample)]
            }
        },
    }
    page = tmp_path / "performance.md"
    page.write_text(f"# By hand\n\n{report.BEGIN}\nold\n{report.END}\nand more\n")
    report.write_docs(found, tmp_path)
    text = page.read_text()
    assert text.startswith("# By hand\n")
    assert text.endswith(f"{report.END}\nand more\n")
    assert "old" not in text
    assert "| 1,000 | batch_etl | 1.00 | 2.00 | 2000.0 | 3 |" in text
    assert (tmp_path / "performance.svg").exists()


def test_a_program_of_fewer_rounds_is_compared_where_both_were_sampled() -> None:
    def samples(*seconds: float) -> list[dict[str, Any]]:
        return [{"whole": {"cpu_s": one}} for one in seconds]

    assert report._ratio(samples(8.0), samples(2.0, 1.0, 1.0), "cpu_s") == 4.0
    found = {"rounds": 3, "sizes": {"1000": {"usual": {"samples": samples(8.0)}}}}
    assert report._fewer(found) == "; the usual way at 1,000 records: 1"
