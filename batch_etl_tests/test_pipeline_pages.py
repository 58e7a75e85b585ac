"""docs/pipelines/ is true: a page a pipeline, its queries answered by the demo of all pipelines.

One run of ``batch-etl demo --all`` serves all tests here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from batch_etl.environment import SETTINGS
from batch_etl_tests.pipeline_pages import PAGES, ROOT, pages, queries, rewritten
from batch_etl_tests.ready import EVALUATIONS, READY, records

DOCUMENTED = sorted([*READY, *EVALUATIONS])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "data"


@pytest.fixture(scope="module")
def told(home: Path) -> str:
    """What ``batch-etl demo --all`` prints."""
    foreign = {*SETTINGS, "DAGSTER_HOME", "BATCH_ETL_DEFS"}
    own = {name: value for name, value in os.environ.items() if name not in foreign}
    done = subprocess.run(
        [Path(sys.executable).parent / "batch-etl", "demo", "--all", "--home", home],
        check=False,
        capture_output=True,
        text=True,
        env={**own, "COLUMNS": "140"},  # no line of the table is wrapped
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def warehouse(told: str, home: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as connection:
        yield connection


def test_every_ready_pipeline_has_a_page_and_a_line_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    linked = re.findall(
        r"^\| \[`(\w+)`\]\(docs/pipelines/(\w+)\.md\) \| .+ \|$", readme, re.MULTILINE
    )
    assert [name for name, _ in linked] == [page for _, page in linked]
    assert sorted(name for name, _ in linked) == DOCUMENTED
    assert [page.stem for page in pages()] == DOCUMENTED


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_page_says_what_how_to_run_it_and_asks_a_question_in_sql(name: str) -> None:
    text = (PAGES / f"{name}.md").read_text("utf-8")
    assert text.startswith(f"# {name}\n")
    assert f"batch-etl demo --pipeline {name}" in text
    assert all(f"emulator.{name}" in sql for sql in queries(text))
    assert queries(text)
    assert text.count("```sql") == len(queries(text)), "each query has its output below"
    assert f"`batch_etl/defs/{name}/`" in text
    told = re.search(r"^\| records \| (\d+) ", text, re.MULTILINE)
    assert told
    assert name in EVALUATIONS or int(told[1]) == len(records(name))


@pytest.mark.acceptance
def test_the_demo_of_all_ends_with_a_line_for_each_pipeline(
    told: str, warehouse: duckdb.DuckDBPyConnection
) -> None:
    lines = re.findall(r"^ (\w+) +([\d,]+) +[\d,]+ +\d+ +\$[\d.]+ +(.+?) *$", told, re.MULTILINE)
    counted = {name: int(count.replace(",", "")) for name, count, _ in lines}
    assert sorted(counted) == DOCUMENTED
    for name in READY:
        rows = warehouse.sql(f"SELECT _outcome FROM emulator.{name}").fetchall()
        assert counted[name] == len(rows)
    outcomes = [int(count) for _, _, said in lines for count in re.findall(r"(\d+) [A-Z]", said)]
    assert sum(outcomes) == sum(counted.values())
    whole = f"{len(DOCUMENTED)} pipelines +{sum(counted.values()):,} "
    assert re.search(rf"^ {whole}", told, re.MULTILINE)


@pytest.mark.acceptance
@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_outputs_in_a_page_are_those_of_its_queries(
    name: str, warehouse: duckdb.DuckDBPyConnection
) -> None:
    """``make docs`` writes them anew."""
    text = (PAGES / f"{name}.md").read_text("utf-8")
    assert rewritten(text, warehouse) == text


@pytest.mark.acceptance
def test_every_quote_of_a_contract_stands_in_it_and_the_rare_clauses_are_found(
    warehouse: duckdb.DuckDBPyConnection,
) -> None:
    found = warehouse.sql(
        "SELECT contract_id, clause.clause, position(clause.quote IN text) "
        "FROM (SELECT *, unnest(clauses) AS clause FROM emulator.contract_analysis)"
    ).fetchall()
    assert all(offset > 0 for _, _, offset in found)
    far = {clause for contract, clause, offset in found if contract == "c-012" and offset > 50_000}
    assert {"liability", "renewal"} <= far
