"""What people see of a materialization: sample, picture, lineage, and what a run came to."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from upath import UPath

from batch_etl.components import plots
from batch_etl.components.results_files import Files, reused_cost, samples
from batch_etl_tests.components.make import DAILY, Project, edited, results
from batch_etl_tests.components.test_checks import why, with_block
from batch_etl_tests.emulator.driver import Driver

RECORDS = dg.AssetKey(["mine", "records"])
RESULTS_KEY = dg.AssetKey(["mine", "results"])


# pictures -----------------------------------------------------------------------------------------


def words(markdown: str) -> list[str]:
    """The texts of a picture in Markdown; raises where it is no XML."""
    found = re.fullmatch(r"!\[([^\]]*)\]\(<data:image/svg\+xml,([^<>\\&\n]*)>\)", markdown)
    assert found, markdown
    return [element.text or "" for element in ET.fromstring(unquote(found[2])) if element.text]


def test_a_picture_shows_each_label_with_its_count_and_share() -> None:
    picture = plots.as_markdown({"verdict": {"safe": 3, "flagged": 1}, "empty": {}}, "labels")
    assert words(picture) == ["verdict", "safe: 3 (75%)", "flagged: 1 (25%)"]


def test_labels_that_do_not_fit_are_one_bar() -> None:
    picture = plots.as_markdown({"category": {f"c{n}": 100 - n for n in range(10)}}, "labels")
    assert words(picture)[-1] == "3 others: 276 (29%)"


TEXT = st.text() | st.sampled_from(["<b>&amp;</b>", "](x)", "%41#", "\\", "a'b\"c", "\x00"])


@given(
    st.dictionaries(TEXT, st.dictionaries(TEXT, st.integers(0, 10**9), max_size=20), max_size=8),
    TEXT,
)
def test_a_picture_of_any_labels_is_valid_xml(charts: plots.Charts, alternative: str) -> None:
    words(plots.as_markdown(charts, alternative))


def test_a_picture_of_many_ordinary_labels_is_small_enough_to_be_shown_in_its_place() -> None:
    charts = {f"column {c}": {f"label number {n}": n + 1 for n in range(15)} for c in range(6)}
    picture = plots.as_markdown(charts, "labels")
    assert len(picture) < plots.INLINE_CHARACTERS
    assert len(words(picture)) >= 8


# samples ------------------------------------------------------------------------------------------


def one_file(path: UPath) -> Files:
    return {None: path}


def row(record: str, answer: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    outcome = "Succeeded" if answer is not None else "Errored"
    output = json.dumps(answer, ensure_ascii=False) if answer is not None else None
    return {"record_id": record, "outcome": outcome, "output": output, **more}


def test_a_sample_is_the_first_rows_with_a_column_for_each_part_of_the_answer(
    tmp_path: Path,
) -> None:
    path = results(
        tmp_path / "a.parquet",
        [
            row("r1", {"kind": True, "why": "says thanks"}),
            row("r2", None, reason="overloaded"),
            row("r3", {"kind": False}),
        ],
    )
    files: Files = {"a": path, "b": UPath(tmp_path / "none.parquet")}
    assert samples(files, 2) == {
        "a": "| record | outcome | kind | why |\n"
        "| --- | --- | --- | --- |\n"
        "| r1 | Succeeded | true | says thanks |\n"
        "| r2 | Errored | overloaded |  |"
    }
    assert samples(files, 0) == {}


HOSTILE = "</td><script>alert(1)</script> | `x` ![a](http://x/y.png)\n# head"


def test_a_sample_is_text_whatever_an_answer_holds(tmp_path: Path) -> None:
    path = results(tmp_path / "a.parquet", [row(HOSTILE, {"why": HOSTILE})])
    lines = samples(one_file(path), 3)[None].splitlines()
    assert len(lines) == 3
    assert "<" not in lines[2]
    assert len(re.findall(r"(?<!\\)\|", lines[2])) == 4
    assert "![" not in lines[2].replace("\\[", "")


@pytest.mark.parametrize("size", [10, 1_000, 100_000])
def test_a_sample_is_always_small_enough_to_be_shown_in_its_place(
    tmp_path: Path, size: int
) -> None:
    answer = {f"part {n}": "ж" * size for n in range(30)}
    path = results(tmp_path / "a.parquet", [row(f"r{n}", answer) for n in range(20)])
    sample = samples(one_file(path), 20)[None]
    assert 2 < len(sample.splitlines()) < 22
    assert len(sample) < plots.INLINE_CHARACTERS


def test_what_reuse_saved_is_what_the_answers_of_other_batches_had_cost(tmp_path: Path) -> None:
    cost = Decimal("0.000123456789")
    rows = [
        row("r1", {}, batch_id="new", cost_usd=cost, input_tokens=5),
        row("r2", {}, batch_id="old", cost_usd=cost, input_tokens=5),
        row("r3", {}, batch_id="older", cost_usd=cost, input_tokens=5),
        row("r4", None),
    ]
    files: Files = {None: results(tmp_path / "a.parquet", rows)}
    assert reused_cost(files, ["new"]) == 2 * cost
    assert reused_cost(files, ["new", "old", "older"]) == 0
    unpriced = [row("r1", {}, batch_id="old", cost_usd=None, input_tokens=5)]
    assert reused_cost(one_file(results(tmp_path / "b.parquet", unpriced)), []) is None


# through Dagster ----------------------------------------------------------------------------------


def test_a_run_says_what_it_came_to_and_shows_it(mine: Project, emulator: Driver) -> None:
    mine.write(edited(DAILY, ("{{ text }}", "{{ text }} {{ note_id }}")))
    days = ["2026-11-01", "2026-11-02"]
    run = mine.run(first=days[0], last=days[1])
    assert run.success, why(run)
    of_results, of_table = run.facts("results", days[0]), run.facts("table", days[0])
    assert of_results["sample"].splitlines()[0] == "| record | outcome | kind | why |"
    assert of_results["sample"].splitlines()[2].startswith("| n1 | Succeeded |")
    assert of_results["transform/latency_hours"] >= 0
    assert of_results["transform/saved_by_reuse_usd"] == 0
    assert of_results["transform/cache_read_tokens"] == 0
    head, *shares = words(of_table["labels"])
    assert head == "kind"
    assert sum(int(share.split()[1]) for share in shares) == 2
    again = mine.run(first=days[0], last=days[1]).facts("results", days[0])
    assert again["transform/saved_by_reuse_usd"] == pytest.approx(of_results["transform/cost_usd"])
    assert again["transform/latency_hours"] == 0


def test_columns_come_from_records_over_results_to_the_table(
    mine: Project, emulator: Driver
) -> None:
    mine.write(DAILY)
    run = mine.run(first="2026-11-01")
    of_results = run.facts("results", "2026-11-01")["dagster/column_lineage"].deps_by_column
    assert of_results["output"] == [dg.TableColumnDep(RECORDS, "text")]
    of_table = run.facts("table", "2026-11-01")["dagster/column_lineage"].deps_by_column
    assert of_table["note_id"] == [dg.TableColumnDep(RECORDS, "note_id")]
    assert of_table["kind"] == [dg.TableColumnDep(RESULTS_KEY, "output")]
    assert of_table["_cost_usd"] == [dg.TableColumnDep(RESULTS_KEY, "cost_usd")]
    assert "_loaded_at" not in of_table
    schema = run.facts("table", "2026-11-01")["dagster/column_schema"]
    assert set(of_table) <= {column.name for column in schema.columns}


def test_no_sample_is_shown_where_none_is_wanted(mine: Project, emulator: Driver) -> None:
    mine.write(with_block(DAILY, "sample_rows: 0"))
    run = mine.run(first="2026-11-01")
    assert run.success, why(run)
    assert "sample" not in run.facts("results", "2026-11-01")
