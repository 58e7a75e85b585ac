"""Label sets in files become the schema's enums, or an error that names file and place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batch_etl.batches.task import Task
from batch_etl.errors import ConfigError
from batch_etl_tests.batches.engine import DEFINITION

FILES = {
    "labels.csv": "label,meaning,owner\nclaim,A demand for money.,ann\nnotice,,bo\n",
    "bom.csv": "\ufefflabel\nclaim\nnotice\n",
    "labels.tsv": "code\tlabel\n1\tclaim\n2\tnotice\n",
    "list.yaml": "- claim\n- notice\n",
    "mapping.yaml": "claim: A demand for money.\nnotice:\n",
    "list.json": '["claim", "notice"]',
    "twice.csv": "label\nclaim\nnotice\nclaim\n",
    "gap.csv": 'label,meaning\nclaim,x\n"",y\n',
    "empty.csv": "",
    "none.csv": "label\n",
    "number.yaml": "- claim\n- 7\n",
    "text.yaml": "claim",
    "broken.yaml": "[claim",
    "labels.txt": "claim\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "latin.csv").write_bytes("label\nR\xe9clamation\n".encode("latin-1"))
    return tmp_path


def asking(enum: Any, **more: Any) -> Task:
    label = {"type": "string", "enum": enum, **more}
    schema = {"type": "object", "required": ["label"], "properties": {"label": label}}
    return Task.load({**DEFINITION, "output_schema": schema}, "task")


def label_of(task: Task) -> dict[str, Any]:
    assert task.answer_schema is not None
    return task.answer_schema.source["properties"]["label"]


@pytest.mark.parametrize(
    "enum",
    [
        {"from_file": "labels.csv"},
        {"from_file": "labels.csv", "column": "label"},
        {"from_file": "bom.csv"},
        {"from_file": "labels.tsv", "column": "label"},
        {"from_file": "list.yaml"},
        {"from_file": "mapping.yaml"},
        {"from_file": "list.json"},
    ],
    ids=str,
)
def test_the_labels_are_those_of_the_file_in_its_order(enum: Any, folder: Path) -> None:
    assert label_of(asking(enum).anchored(folder))["enum"] == ["claim", "notice"]


@pytest.mark.parametrize(
    "enum",
    [{"from_file": "labels.csv", "descriptions": "meaning"}, {"from_file": "mapping.yaml"}],
    ids=str,
)
def test_what_the_labels_mean_is_said_after_the_propertys_description(
    enum: Any, folder: Path
) -> None:
    described = label_of(asking(enum, description="What it is.").anchored(folder))
    assert described["description"] == "What it is. claim: A demand for money."


def test_a_task_with_a_file_is_the_same_as_one_with_the_labels_written_in_it(folder: Path) -> None:
    from_file = asking({"from_file": "labels.csv"}).anchored(folder)
    assert from_file.fingerprint == asking(["claim", "notice"]).fingerprint
    (folder / "labels.csv").write_text("label\nclaim\nnotice\nother\n")
    assert asking({"from_file": "labels.csv"}).anchored(folder).fingerprint != from_file.fingerprint


def test_enums_of_items_branches_and_definitions_may_be_files_too(folder: Path) -> None:
    labels = {"type": "string", "enum": {"from_file": "labels.csv"}}
    schema = {
        "type": "object",
        "$defs": {"label": labels},
        "required": ["many", "maybe", "named", "enum"],
        "properties": {
            "many": {"type": "array", "items": labels},
            "maybe": {"anyOf": [labels, {"type": "null"}]},
            "named": {"$ref": "#/$defs/label"},
            "enum": {"type": "string"},
        },
    }
    task = Task.load({**DEFINITION, "output_schema": schema}, "task").anchored(folder)
    assert task.answer_schema is not None
    valid = {"many": ["claim"], "maybe": None, "named": "notice", "enum": "x"}
    assert task.answer_schema.is_valid(valid)
    for key, wrong in (("many", ["x"]), ("maybe", "x"), ("named", "x")):
        assert not task.answer_schema.is_valid({**valid, key: wrong})


def test_a_task_without_files_is_anchored_anywhere() -> None:
    task = asking(["claim"])
    assert task.anchored(Path("/nowhere")) is task


def test_a_task_whose_files_were_not_read_is_never_sent() -> None:
    task = asking({"from_file": "labels.csv"})
    with pytest.raises(ConfigError, match=r"labels\.csv has not been read"):
        _ = task.constant_params
    with pytest.raises(ConfigError, match=r"labels\.csv has not been read"):
        _ = task.fingerprint


REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({"from_file": "label.csv"}, ["label.csv: there is no such file", "did you mean"]),
    ({"from_file": "labels.csv", "column": "lable"}, ["no column 'lable'; did you mean 'label'?"]),
    ({"from_file": "labels.csv", "descriptions": "sense"}, ["no column 'sense'"]),
    ({"from_file": "twice.csv"}, ["label 3, 'claim', is there twice"]),
    ({"from_file": "gap.csv"}, ["label 2 is empty"]),
    ({"from_file": "empty.csv"}, ["the first line must name the columns"]),
    ({"from_file": "none.csv"}, ["no labels in it"]),
    ({"from_file": "number.yaml"}, ["7: labels and meanings are texts; put them in quotes"]),
    ({"from_file": "text.yaml"}, ["must be a list of labels, or a mapping"]),
    ({"from_file": "broken.yaml"}, ["is no YAML"]),
    ({"from_file": "list.yaml", "column": "x"}, ["`column` and `descriptions` are for .csv"]),
    ({"from_file": "labels.txt"}, ["labels are read from .csv, .tsv, .yaml and .json"]),
    ({"from_file": "latin.csv"}, ["latin.csv: cannot be read as UTF-8 text"]),
]


@pytest.mark.parametrize(("enum", "words"), REFUSED, ids=lambda value: str(value)[:60])
def test_a_file_that_cannot_be_used_is_refused_with_its_name_and_place(
    enum: dict[str, Any], words: list[str], folder: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        asking(enum).anchored(folder)
    message = str(caught.value)
    for word in ("task.output_schema: at /properties/label/enum: ", enum["from_file"], *words):
        assert word in message


@pytest.mark.parametrize(
    ("enum", "word"),
    [
        ({"from_file": "labels.csv", "colum": "label"}, "unknown key 'colum'; did you mean"),
        ({"file": "labels.csv"}, "unknown key 'file'; did you mean 'from_file'?"),
        ({}, "Field required"),
    ],
    ids=str,
)
def test_an_unknown_key_is_refused_when_the_yaml_is_loaded(enum: Any, word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        asking(enum)
    assert "output_schema: at /properties/label/enum: enum" in str(caught.value)
    assert word in str(caught.value)
