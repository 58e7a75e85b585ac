"""What a YAML block becomes in Dagster."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest
import yaml
from dagster.components.core.component_tree import ComponentTree

from batch_etl.components import BatchPipeline
from batch_etl.components.steps import Pipeline
from batch_etl.environment import read
from batch_etl.resources import from_settings
from batch_etl_tests.components.make import DAILY, YAML, Project, edited
from batch_etl_tests.ready import DEFS, READY

TWO_WEEKS = ["content_moderation", "feedback_analysis"]
STEPS = ["records", "results", "table"]


@pytest.fixture(scope="module")
def ready() -> dg.Definitions:
    from batch_etl.definitions import defs

    return defs()


def node(definitions: dg.Definitions, pipeline: str, step: str) -> Any:
    return definitions.resolve_asset_graph().get(dg.AssetKey([pipeline, step]))


def test_each_ready_pipeline_is_three_assets(ready: dg.Definitions) -> None:
    keys = ready.resolve_asset_graph().get_all_asset_keys()
    assert {tuple(key.path) for key in keys} >= {(p, s) for p in READY for s in STEPS}


@pytest.mark.parametrize("pipeline", READY)
def test_edges_go_from_records_over_results_to_table(ready: dg.Definitions, pipeline: str) -> None:
    parents = {
        step: {key.path[-1] for key in node(ready, pipeline, step).parent_keys} for step in STEPS
    }
    assert parents == {"records": set(), "results": {"records"}, "table": {"records", "results"}}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("pipeline", READY)
def test_every_asset_says_whose_it_is_and_what_it_holds(
    ready: dg.Definitions, pipeline: str, step: str
) -> None:
    asset = node(ready, pipeline, step)
    assert asset.group_name == pipeline
    assert [owner.startswith("team:") for owner in asset.owners] == [True]
    assert asset.tags["batch_etl/pipeline"] == pipeline
    assert yaml_of(pipeline)["description"].strip() in (asset.description or "")


@pytest.mark.parametrize("pipeline", READY)
def test_kinds_are_icons_that_dagster_has(ready: dg.Definitions, pipeline: str) -> None:
    kinds = {step: node(ready, pipeline, step).kinds for step in STEPS}
    assert kinds == {"records": {"parquet"}, "results": {"claude", "parquet"}, "table": {"duckdb"}}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("pipeline", TWO_WEEKS)
def test_a_backfill_of_the_two_weeks_is_one_run(
    ready: dg.Definitions, pipeline: str, step: str
) -> None:
    asset = node(ready, pipeline, step)
    keys = asset.partitions_def.get_partition_keys()
    assert (keys[0], keys[-1], len(keys)) == ("2026-11-01", "2026-11-14", 14)
    assert asset.backfill_policy == dg.BackfillPolicy.single_run()


def test_one_pool_writes_the_duckdb_file(ready: dg.Definitions) -> None:
    pools = {step: node(ready, READY[0], step).pools for step in STEPS}
    assert pools == {"records": set(), "results": set(), "table": {"duckdb_writer"}}


@pytest.mark.parametrize("pipeline", TWO_WEEKS)
def test_a_changed_task_makes_results_stale_and_nothing_else_does(
    ready: dg.Definitions, pipeline: str
) -> None:
    task = component(pipeline).task
    assert node(ready, pipeline, "results").code_version == task.version
    assert node(ready, pipeline, "records").code_version is None


@pytest.mark.parametrize("pipeline", TWO_WEEKS)
def test_a_prompt_reaches_the_task_byte_for_byte(pipeline: str) -> None:
    """Dagster's own templates would render ``{{ text }}``, or fail on it."""
    written = yaml_of(pipeline)["task"]
    assert "{{ text }}" in written["prompt"]
    task = component(pipeline).task
    assert (task.prompt, task.system) == (written["prompt"], written["system"])
    assert task.output_schema == written["output_schema"]


def yaml_of(pipeline: str) -> dict:
    blocks = yaml.safe_load_all((DEFS / pipeline / "defs.yaml").read_text(encoding="utf-8"))
    return next(block["attributes"] for block in blocks)


def component(pipeline: str) -> BatchPipeline:
    return BatchPipeline.from_attributes_dict(attributes=yaml_of(pipeline))


def test_a_users_yaml_of_20_lines_loads(mine: Project) -> None:
    assert len(YAML.splitlines()) <= 20
    mine.write()
    keys = mine.load().resolve_asset_graph().get_all_asset_keys()
    assert {key.to_user_string() for key in keys} == {"mine/records", "mine/results", "mine/table"}


def test_without_partitions_there_is_no_backfill_policy(mine: Project) -> None:
    mine.write()
    asset = node(mine.load(), "mine", "results")
    assert (asset.partitions_def, asset.backfill_policy) == (None, None)


def test_two_pipelines_can_share_one_file(mine: Project) -> None:
    other = edited(YAML, ("name: mine", "name: yours"))
    mine.write(f"{YAML}\n---\n{other}")
    keys = mine.load().resolve_asset_graph().get_all_asset_keys()
    assert {key.path[0] for key in keys} == {"mine", "yours"}


def test_tags_and_owners_of_the_yaml_are_on_all_three_assets(mine: Project) -> None:
    extra = "  owners: [ann@example.com]\n  tags: {domain: notes}\n  source:\n"
    mine.write(edited(YAML, ("  source:\n", extra)))
    definitions = mine.load()
    for step in STEPS:
        asset = node(definitions, "mine", step)
        assert (asset.owners, asset.tags["domain"]) == (["ann@example.com"], "notes")


def test_a_subclass_adds_keys_and_changes_assets() -> None:
    class Noted(BatchPipeline):
        note: str = ""

        def build_assets(self, pipeline: Pipeline) -> list[dg.AssetsDefinition]:
            assets = super().build_assets(pipeline)
            return [
                asset.map_asset_specs(lambda spec: spec.replace_attributes(group_name=self.note))
                for asset in assets
            ]

    attributes = {**yaml.safe_load(DAILY)["attributes"], "note": "notes"}
    noted = Noted.from_attributes_dict(attributes=attributes)
    assets = noted.build_defs(ComponentTree.for_test().load_context)
    definitions = dg.Definitions.merge(assets, dg.Definitions(resources=from_settings(read({}))))
    graph = definitions.resolve_asset_graph()
    assert {graph.get(key).group_name for key in graph.get_all_asset_keys()} == {"notes"}
