"""What `dg scaffold defs` writes loads, checks and runs as it is, and overwrites nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from jsonschema import Draft202012Validator

from batch_etl.components import BatchPipeline
from batch_etl.components.scaffold import PipelineScaffolder, pipeline_yaml
from batch_etl.errors import ConfigError


def request(folder: Path, **settings: Any) -> dg.ScaffoldRequest[Any]:
    values: dict[str, Any] = {
        "type_name": "batch_etl.components.BatchPipeline",
        "target_path": folder,
        "scaffold_format": "yaml",
        "project_root": None,
        "params": None,
    }
    return dg.ScaffoldRequest(**values | settings)


def test_the_example_is_a_pipeline_and_each_comment_in_it_could_be_one(tmp_path: Path) -> None:
    PipelineScaffolder().scaffold(request(tmp_path / "My Reviews-2"))
    text = (tmp_path / "My Reviews-2" / "defs.yaml").read_text("utf-8")
    attributes = yaml.safe_load(text)["attributes"]
    assert BatchPipeline.model_validate(attributes).name == "my_reviews_2"
    validator = Draft202012Validator(BatchPipeline.model_json_schema())
    assert list(validator.iter_errors(attributes)) == []
    other = [
        line.strip(" #") for line in text.splitlines() if line.startswith("  # ") and ": " in line
    ]
    blocks = [yaml.safe_load(line) for line in other if line.partition(":")[0].isidentifier()]
    assert len(blocks) == 7
    for block in blocks:
        key = next(iter(block))
        partitioned = key == "partitions"
        source = attributes["source"] | ({"partition_column": "written_on"} if partitioned else {})
        BatchPipeline.model_validate({**attributes, "source": source, **block})


def test_the_records_beside_it_are_read(tmp_path: Path) -> None:
    PipelineScaffolder().scaffold(request(tmp_path / "mine"))
    made = yaml.safe_load((tmp_path / "mine" / "defs.yaml").read_text("utf-8"))["attributes"]
    source = BatchPipeline.model_validate(made).source.anchored(tmp_path / "mine")
    assert sum(portion.batch.num_rows for portion in source.read(None)) == 3


@pytest.mark.parametrize(
    ("folder", "name"), [("2nd", "p_2nd"), ("Ü-x", "x"), ("--", "my_pipeline")]
)
def test_the_name_is_one_that_sql_allows(folder: str, name: str) -> None:
    assert yaml.safe_load(pipeline_yaml(folder))["attributes"]["name"] == name


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "records.csv").write_text("mine")
    PipelineScaffolder().scaffold(request(folder))
    with pytest.raises(ConfigError, match=r"defs\.yaml is there already"):
        PipelineScaffolder().scaffold(request(folder))
    PipelineScaffolder().scaffold(request(folder, append=True))
    assert len(list(yaml.safe_load_all((folder / "defs.yaml").read_text()))) == 2
    assert (folder / "records.csv").read_text() == "mine"


def test_python_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"call batch_etl\.build_batch_pipeline"):
        PipelineScaffolder().scaffold(request(tmp_path / "mine", scaffold_format="python"))
    assert not (tmp_path / "mine").exists()
