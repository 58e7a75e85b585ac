"""The `source` block: its `type` chooses the model, and its errors stand where the YAML does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field, ValidationError

from batch_etl.sources import AnySource, FilesSource, SourceBlock


class Block(BaseModel):
    source: AnySource = Field(description="Where the records come from.")


FILES = {"path": "notes.csv", "id": "note_id"}


def problems(source: Any) -> list[tuple[tuple[str | int, ...], str]]:
    with pytest.raises(ValidationError) as caught:
        Block.model_validate({"source": source})
    return [(error["loc"], error["msg"]) for error in caught.value.errors()]


@pytest.mark.parametrize("said", [{}, {"type": "files"}])
def test_files_are_the_default(said: dict[str, Any]) -> None:
    source: SourceBlock = Block.model_validate({"source": FILES | said}).source
    assert source == FilesSource(path="notes.csv", id="note_id")


def test_a_source_that_is_made_already_is_taken_as_it_is() -> None:
    source = FilesSource(path="notes.csv", id="note_id")
    assert Block(source=source).source is source


@pytest.mark.parametrize(
    ("source", "place", "words"),
    [
        (
            FILES | {"type": "fils"},
            ("source",),
            "'fils' is no kind of source; did you mean 'files'",
        ),
        (FILES | {"type": None}, ("source",), "None is no kind of source; known are"),
        (FILES | {"type": ["sql"]}, ("source",), "['sql'] is no kind of source"),
        (FILES | {"idd": "x"}, ("source",), "unknown key 'idd'; did you mean 'id'?"),
        ({"path": "notes.csv"}, ("source", "id"), "Field required"),
        ({"path": 3, "id": "x"}, ("source", "path", "str"), "valid string"),
        ("notes.csv", ("source",), "valid dictionary"),
        (None, ("source",), "valid dictionary"),
    ],
)
def test_a_mistake_stands_at_its_yaml_key(
    source: Any, place: tuple[str | int, ...], words: str
) -> None:
    found = problems(source)
    assert found[0][0] == place
    assert words in found[0][1]


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (FILES, ""),
        (FILES | {"type": "files"}, ""),
        (FILES | {"type": "fils"}, "'fils' is not one of ["),
        (FILES | {"idd": "x"}, "Additional properties are not allowed ('idd' was unexpected)"),
        ({"path": "notes.csv"}, "'id' is a required property"),
        ("notes.csv", "'notes.csv' is not of type 'object'"),
    ],
)
def test_the_json_schema_says_the_same_to_dg_check_yaml(source: Any, complaint: str) -> None:
    validator = Draft202012Validator(Block.model_json_schema())
    found = [str(error.message) for error in validator.iter_errors({"source": source})]
    assert any(message.startswith(complaint) for message in found) if complaint else not found


def test_a_relative_path_is_taken_from_the_folder_it_is_anchored_in(tmp_path: Path) -> None:
    (tmp_path / "notes.csv").write_text("note_id\nn1\n")
    source = Block.model_validate({"source": FILES}).source.anchored(tmp_path)
    rows = [row for portion in source.read() for row in portion.batch.to_pylist()]
    assert rows == [{"note_id": "n1"}]
