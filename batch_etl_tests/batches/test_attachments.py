"""Attachments, examples and tools of a task: what cannot work is refused at load, with the reason.

What the API's own rules refuse follows from docs/batches-api.md, section 5.
"""

from __future__ import annotations

import json

import pytest

from batch_etl.batches.changes import task_changes
from batch_etl.batches.request import Renderer
from batch_etl.batches.task import ANSWER_TOOL
from batch_etl.errors import ConfigError
from batch_etl_tests.batches.engine import SENTIMENT, task
from batch_etl_tests.batches.test_request import batch, renderer

IMAGE = {"type": "image", "column": "scan"}
DOCUMENT = {"type": "document", "column": "file"}
TOOL = {"name": "look_up", "input_schema": {"type": "object"}}


REFUSED = [
    ({"attachments": [{"type": "image"}]}, ["attachments.0.column", "required"]),
    ({"attachments": [{"type": "video", "column": "x"}]}, ["attachments.0.type"]),
    ({"attachments": [{**IMAGE, "colum": "x"}]}, ["unknown key 'colum'", "did you mean 'column'"]),
    ({"attachments": [{**IMAGE, "holds": "text"}]}, ["an image is no text"]),
    ({"attachments": [{**IMAGE, "citations": True}]}, ["citations: is for documents"]),
    ({"attachments": [{**IMAGE, "title_column": "x"}]}, ["title_column: is for documents"]),
    ({"attachments": [{**DOCUMENT, "reduce_to_px": 9}]}, ["reduce_to_px: is for images"]),
    ({"attachments": [{**IMAGE, "holds": "url", "reduce_to_px": 9}]}, ["is not seen here"]),
    ({"attachments": [{**IMAGE, "reduce_to_px": 8001}]}, ["less than or equal to 8000"]),
    ({"attachments": [{**IMAGE, "holds": "url", "folder": "x"}]}, ["folder: is for paths"]),
    ({"attachments": [{**DOCUMENT, "citations": True}]},
     ["output_config.format does not go with citations"]),
    ({"prompt": None}, ["task.prompt: required, unless there is a `conversation`"]),
    ({"examples": [{"user": "x"}]}, ["examples.0.assistant", "required"]),
    ({"examples": [{"user": " ", "assistant": "x"}]}, ["examples.0.user: is empty"]),
    ({"examples": [{"user": "x", "assistant": {"sentiment": "fine"}}]},
     ["examples.0.assistant: ", "/sentiment"]),
    ({"examples": [{"user": "x", "assistant": "positive"}]}, ["examples.0.assistant: "]),
    ({"answer_from": "tool", "output_schema": None}, ["answer_from", "add output_schema"]),
    ({"answer_from": "tool", "params": {"tools": [TOOL], "tool_choice": {"type": "any"}}},
     ["sets params.tool_choice itself"]),
    ({"answer_from": "tool", "params": {"tools": [{"name": "answer"}]}},
     ["rename the one in params"]),
    ({"answer_from": "tool", "claude_model": "claude-opus-5-5"},
     ["claude-opus-5-5 refuses a forced tool_choice (tool)"]),
    ({"answer_from": "tool", "retry": {"stronger_models": ["claude-sonnet-5-5"]}},
     ["retry.stronger_models.0", "refuses a forced tool_choice"]),
    ({"answer_from": "tool", "claude_model": "claude-opus-4-5",
      "params": {"thinking": {"type": "enabled", "budget_tokens": 10}}},
     ["a forced tool_choice (tool) does not go with thinking.type 'enabled'"]),
    ({"attachments": [{**IMAGE, "cache_control": {"type": "ephemeral"}}] * 5},
     ["5 blocks have a cache_control, and the API takes 4"]),
    ({"params": {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "lookup"}}},
     ["tool_choice names the tool 'lookup', which is not among the tools"]),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), REFUSED)
def test_what_cannot_work_is_refused_at_load(changes, words):
    with pytest.raises(ConfigError) as error:
        task(**changes)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"attachments": [IMAGE]}, "'scan'"),
        ({"attachments": [{**DOCUMENT, "title_column": "titel"}]}, "'file'"),
        ({"conversation": "talk"}, "'talk'"),
    ],
)
def test_a_column_that_no_record_has_is_named_before_anything_is_sent(changes, name):
    from batch_etl.batches.errors import RenderError

    with pytest.raises(RenderError, match=f"names the field {name}, which no record has"):
        Renderer(task(**changes), "id", ["id", "text"], "p")


CHANGES = [
    {"attachments": [IMAGE]},
    {"attachments": [{**IMAGE, "reduce_to_px": 100}]},
    {"attachments": [{**IMAGE, "holds": "url"}]},
    {"examples": [{"user": "x", "assistant": {"sentiment": "positive"}}]},
    {"conversation": "talk"},
    {"answer_from": "tool"},
]


def test_each_of_these_changes_the_answer_and_has_a_fingerprint_of_its_own():
    prints = [task(**changes).fingerprint for changes in [{}, *CHANGES]]
    assert len(set(prints)) == len(prints)


@pytest.mark.parametrize("changes", CHANGES)
def test_what_has_changed_in_a_task_is_told(changes):
    told = task_changes(task().definition, task(**changes).definition)
    names = {"params.tools", "params.tool_choice", "params.output_config", *changes}
    assert told
    assert all(line.split(":")[0] in names for line in told)


def test_only_the_columns_that_a_request_is_made_from_are_read():
    own = task(attachments=[IMAGE, {**DOCUMENT, "title_column": "name"}], conversation="talk")
    columns = ["id", "scan", "text", "x", "file", "name", "talk"]
    assert own.asks_with(columns) == ["scan", "text", "file", "name", "talk"]
    assert sorted(Renderer(own, "id", columns, "p").columns) == sorted({*columns} - {"x"})
    assert task(prompt="{{ record.text }}").asks_with(columns) == columns


def test_an_answer_can_be_a_tools_input():
    own = task(answer_from="tool", params={"tools": [TOOL]})
    records = batch(id=["a"], text=["x"])
    params = json.loads(renderer(own, records).render(records).params[0])
    assert "output_config" not in params
    assert params["tool_choice"] == {"type": "tool", "name": ANSWER_TOOL}
    look_up, answer = params["tools"]
    assert look_up == TOOL
    assert answer["strict"] is True
    assert answer["input_schema"] == {**SENTIMENT, "additionalProperties": False}


def test_an_example_may_be_content_blocks_and_its_cache_control_counts():
    block = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}
    own = task(examples=[{"user": [block], "assistant": {"sentiment": "positive"}}])
    assert own.cache_ttl == "5m"
