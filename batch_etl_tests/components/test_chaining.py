"""One pipeline's table is another's source: the right rows, in the right order, of one endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner

from batch_etl.cli import cli
from batch_etl.emulator.server import running
from batch_etl_tests.components.make import DAILY, RANGE, YAML, Project, Run, edited, query
from batch_etl_tests.emulator.driver import Driver

SECOND = """\
---
type: batch_etl.components.BatchPipeline
attributes:
  name: second
  source: {type: table, pipeline: mine, id: note_id, where: "kind OR note_id = 'n1'"}
  task:
    claude_model: claude-haiku-4-5
    max_tokens: 200
    prompt: "Why is it {{ kind }}, {{ why }}: {{ text }}?"
"""
DAYS = '  partitions: {type: daily, start: "2026-11-01", end: "2026-11-05"}\n'


def run(
    project: Project,
    pipeline: str,
    *,
    steps: Sequence[str] = ("records", "results", "table"),
    days: tuple[str, str] | None = None,
) -> Run:
    """Steps of one of the two pipelines."""
    loaded = project.load()
    result = dg.materialize(
        [loaded.get_assets_def(dg.AssetKey([pipeline, step])) for step in steps],
        resources=dict(loaded.resources or {}),
        tags=dict(zip(RANGE, days, strict=True)) if days else {},
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )
    return Run(result)


def test_the_flagged_rows_are_the_next_pipelines_records(
    mine: Project, emulator: Driver, home: Path
) -> None:
    mine.write(YAML + SECOND)
    assert run(mine, "mine").success
    second = run(mine, "second")
    assert second.success
    flagged = query(
        home, "SELECT note_id FROM emulator.mine WHERE kind OR note_id = 'n1' ORDER BY 1"
    )
    assert 1 <= len(flagged) < 5
    assert query(home, "SELECT note_id FROM emulator.second ORDER BY 1") == flagged
    columns = [c for (c,) in query(home, "SELECT column_name FROM (DESCRIBE emulator.second)")]
    assert [c for c in columns if not c.startswith("_")] == [
        *("note_id", "written_on", "text", "kind", "why", "answer"),
    ]
    schema = second.facts("records")["dagster/column_schema"]
    assert {c.name: c.type for c in schema.columns}["kind"] == "bool"


def test_lineage_leads_from_table_to_records_and_partitions_are_mapped_one_to_one(
    mine: Project, emulator: Driver
) -> None:
    mine.write(DAILY + edited(SECOND, ("  task:\n", DAYS + "  task:\n")))
    graph = mine.load().resolve_asset_graph()
    records, table = dg.AssetKey(["second", "records"]), dg.AssetKey(["mine", "table"])
    assert graph.get(records).parent_keys == {table}
    mapping = graph.get_partition_mapping(records, table)
    definition = graph.get(table).partitions_def
    assert definition is not None
    wanted = definition.subset_with_partition_keys(["2026-11-02"])
    mapped = mapping.get_upstream_mapped_partitions_result_for_partitions(
        wanted, definition, definition
    )
    assert list(mapped.partitions_subset.get_partition_keys()) == ["2026-11-02"]


def test_a_partition_takes_the_rows_of_its_key(mine: Project, emulator: Driver, home: Path) -> None:
    whole = edited(SECOND, (""", where: "kind OR note_id = 'n1'\"""", ""))
    mine.write(DAILY + edited(whole, ("  task:\n", DAYS + "  task:\n")))
    assert run(mine, "mine", days=("2026-11-01", "2026-11-03")).success
    assert run(mine, "second", days=("2026-11-01", "2026-11-02")).success
    found = query(home, "SELECT _partition, note_id FROM emulator.second ORDER BY 2")
    assert found == [(f"2026-11-0{1 + (n > 2)}", f"n{n}") for n in (1, 2, 3, 4)]
    missing = run(mine, "second", days=("2026-11-03", "2026-11-04"))
    assert "table emulator.mine has no partition '2026-11-04': run pipeline 'mine'" in missing.error


def test_a_whole_pipeline_takes_all_partitions_of_another(
    mine: Project, emulator: Driver, home: Path
) -> None:
    mine.write(DAILY + SECOND)
    assert run(mine, "mine", days=("2026-11-01", "2026-11-02")).success
    second = run(mine, "second")
    assert second.success, second.error
    flagged = "SELECT note_id FROM emulator.mine WHERE kind OR note_id = 'n1' ORDER BY 1"
    assert query(home, "SELECT note_id FROM emulator.second ORDER BY 1") == query(home, flagged)


def test_what_cannot_be_read_is_named(mine: Project, emulator: Driver) -> None:
    mine.write(YAML + SECOND)
    assert run(mine, "mine").success
    mistakes = {
        ("pipeline: mine", "pipeline: mime"): "did you mean 'mine'? Run it with this endpoint",
        ("id: note_id", "id: note_no"): "id: there is no column 'note_no'; did you mean 'note_id'?",
        ('where: "kind', 'where: "knd'): '"knd" not found',
        ("id: note_id", "id: note_id, columns: [wy]"): "columns: there is no column 'wy'",
    }
    for change, words in mistakes.items():
        mine.write(YAML + edited(SECOND, change))
        assert words in run(mine, "second", steps=("records",)).error
    mine.write(YAML + edited(SECOND, ("  task:\n", DAYS + "  task:\n")))
    first = ("2026-11-01", "2026-11-01")
    partitioned = run(mine, "second", steps=("records",), days=first)
    assert "pipeline 'mine' has no partitions" in partitioned.error


def test_before_the_first_run_of_the_other_there_is_a_sentence(
    mine: Project, emulator: Driver
) -> None:
    mine.write(YAML + SECOND)
    assert "pipeline 'mine' has no table yet" in run(mine, "second", steps=("records",)).error


def test_a_bound_in_where_is_refused_at_load(mine: Project) -> None:
    mine.write(YAML + edited(SECOND, ("kind OR", "_partition = :partition OR")))
    with pytest.raises(Exception, match="mine") as caught:
        mine.load()
    assert "leave its bounds away" in str(caught.value.__cause__)


def test_a_pipeline_that_reads_its_own_table_is_refused_at_load(mine: Project) -> None:
    mine.write(YAML + edited(SECOND, ("pipeline: mine", "pipeline: second")))
    with pytest.raises(Exception, match="mine") as caught:
        mine.load()
    assert "a pipeline cannot read its own table" in str(caught.value.__cause__)


def test_answers_of_one_endpoint_are_no_records_for_another(
    mine: Project, emulator: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The records were read while the emulator answered; then another server is asked."""
    mine.write(YAML + SECOND)
    assert run(mine, "mine").success
    second = run(mine, "second")
    assert second.success, second.error
    with running() as url:
        monkeypatch.setenv("BATCH_ETL_ENDPOINT", "anthropic")
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
        results = run(mine, "second", steps=("results",)).error
        assert "these records are answers of endpoint 'emulator'" in results
        anew = run(mine, "second", steps=("records",)).error
        assert "no table of pipeline 'mine' with answers of endpoint 'custom:127.0.0.1" in anew


def test_explain_reads_the_other_pipelines_table(
    mine: Project, emulator: Driver, home: Path
) -> None:
    mine.write(YAML + SECOND)
    assert run(mine, "mine").success
    said = CliRunner().invoke(cli, ["explain", "second", "--defs", str(mine.folder)])
    flagged = query(home, "SELECT count(*) FROM emulator.mine WHERE kind OR note_id = 'n1'")[0][0]
    assert said.exit_code == 0, said.output
    assert f"records   {flagged}: {flagged} new" in said.output
