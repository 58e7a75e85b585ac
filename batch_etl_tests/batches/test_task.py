"""Tasks: checked whole at load, and fingerprinted by what changes the answer, nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from batch_etl.batches.task import Task
from batch_etl.errors import ConfigError
from batch_etl_tests.batches.engine import DEFINITION, SENTIMENT, task


def schema(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


REFUSED = [
    ({"promt": "x"}, ["task: unknown key 'promt'", "did you mean 'prompt'"]),
    ({"model": "claude-haiku-4-5"}, ["unknown key 'model'", "claude_model"]),
    ({"prompt": None}, ["task.prompt: ", "required"]),
    ({"prompt": "  \n"}, ["task.prompt: the prompt is empty"]),
    ({"prompt": "a\n{{ text"}, ["task.prompt: template line 2: "]),
    ({"prompt": "a\n{% if x %}\nb"}, ["task.prompt: template line"]),
    ({"prompt": 5}, ["task.prompt: ", "(got 5)"]),
    ({"max_tokens": 0}, ["task.max_tokens: ", "greater than or equal to 1", "(got 0)"]),
    ({"max_tokens": 10**6}, ["max_tokens is 1000000", "at most 64000"]),
    ({"max_attempts": 0}, ["task.max_attempts: "]),
    ({"max_attempts": 11}, ["task.max_attempts: "]),
    ({"system": "Hi {{ name }}"}, ["task.system: ", "cannot hold {{ }}", "`prompt`"]),
    ({"system": "{% if a %}b{% endif %}"}, ["task.system: ", "{% %}"]),
    ({"system": [{"type": "text", "text": "{{ a }}"}]}, ["task.system: ", "{{ }}"]),
    ({"params": {"stream": True}}, ["task.params: 'stream': a batch cannot be streamed"]),
    ({"params": {"stream": False}}, ["task.params: 'stream'"]),
    ({"params": {"speed": "fast"}}, ["'speed': fast mode is not available in batches"]),
    ({"params": {"model": "x"}}, ["'model' belongs in the task's own key `claude_model`"]),
    ({"params": {"messages": []}}, ["'messages'", "`prompt`"]),
    ({"params": {"system": "x"}}, ["'system'", "`system`"]),
    ({"params": {"temprature": 0}}, ["'temprature' is no Messages parameter",
                                     "did you mean 'temperature'"]),
    ({"params": {"output_config": {"format": {}}}}, ["made from `output_schema`"]),
    ({"claude_model": "claude-haiku-45"}, ["claude-haiku-45", "claude-haiku-4-5"]),
    ({"claude_model": "gpt-9"}, ["gpt-9"]),
    ({"claude_model": "claude-sonnet-4"}, ["claude-sonnet-4"]),
    ({"output_schema": {"type": "string"}}, ["output_schema: at /type: the root must be"]),
    ({"output_schema": {"type": "objekt"}}, ["output_schema: "]),
    ({"output_schema": "no.such.module:Model"}, ["output_schema: ", "no.such.module"]),
    ({"packing": {"max_requests": 100_001}}, ["task.packing.max_requests: ", "100000"]),
    ({"packing": {"max_bytes": 10**9}}, ["task.packing.max_bytes: "]),
    ({"packing": {"max_request": 5}}, ["task.packing: unknown key 'max_request'",
                                       "did you mean 'max_requests'"]),
    ({"retry": {"invalid": "mend"}}, ["task.retry.invalid: ", "'repair', 'again' or 'review'"]),
    ({"retry": {"refuse": "review"}}, ["task.retry: unknown key 'refuse'", "'refused'"]),
    ({"retry": {"max_tokens_factor": 1}}, ["task.retry.max_tokens_factor: ", "greater than 1"]),
    ({"retry": {"max_tokens_limit": 99}}, ["retry.max_tokens_limit: 99 is below max_tokens (100)"]),
    ({"retry": {"refused": "stronger_model"}}, ["task.retry: ", "stronger_models must name one"]),
    ({"retry": {"stronger_models": ["claude-sonnet-4-6", "claude-opus-55"]}},
     ["task: retry.stronger_models.1: ", "claude-opus-55", "did you mean 'claude-opus-5-5'"]),
    ({"retry": {"stronger_models": ["claude-opus-5"]}, "params": {"temperature": 0.5}},
     ["retry.stronger_models.0: claude-opus-5 refuses temperature"]),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), REFUSED)
def test_a_task_that_cannot_work_is_refused_with_place_and_remedy(changes, words):
    with pytest.raises(ConfigError) as error:
        task(**changes)
    for word in words:
        assert word in str(error.value)


def test_all_faults_of_a_task_are_told_at_once():
    with pytest.raises(ConfigError) as error:
        task(max_tokens=0, prompt="{{ a", params={"stream": True})
    assert {line.split(":")[0] for line in str(error.value).splitlines()} == {
        "task.max_tokens",
        "task.prompt",
        "task.params",
    }


@pytest.mark.parametrize("values", [None, [], "text", 5])
def test_a_task_that_is_no_mapping_is_refused(values):
    with pytest.raises(ConfigError, match="task"):
        Task.load(values, "task")


def test_an_unknown_model_is_sent_where_that_is_asked_for():
    own = task(claude_model="claude-next-9", allow_unknown_model=True)
    assert own.constant_params["model"] == "claude-next-9"


def test_an_unknown_model_may_stand_in_the_ladder_where_that_is_asked_for():
    ladder = {"stronger_models": ["claude-next-9"]}
    assert task(retry=ladder, allow_unknown_model=True).retry.stronger_models == ("claude-next-9",)
    with pytest.raises(ConfigError, match="claude-next-9"):
        task(retry=ladder)


def test_an_unknown_model_does_not_open_the_door_to_other_faults():
    with pytest.raises(ConfigError, match="stream"):
        task(claude_model="claude-next-9", allow_unknown_model=True, params={"stream": True})


def test_braces_are_fine_in_a_system_prompt():
    system = 'Answer like {"a": {"b": 1}}, 100 %}.'
    assert task(system=system).constant_params["system"] == system


def test_a_task_cannot_be_changed_once_it_is_loaded():
    with pytest.raises(ValueError, match="frozen"):
        task().max_tokens = 5  # type: ignore[misc]


def test_parameters_are_sent_as_they_are_with_the_schema_beside_them():
    own = task(params={"output_config": {"effort": "low"}, "metadata": {"user_id": "u"}},
               claude_model="claude-opus-5")  # fmt: skip
    assert own.constant_params["metadata"] == {"user_id": "u"}
    config = own.constant_params["output_config"]
    assert config["effort"] == "low"
    assert config["format"]["type"] == "json_schema"
    assert "additionalProperties" in config["format"]["schema"]


LARGER = schema(sentiment={"type": "string", "enum": ["positive", "negative", "mixed"]})
TWO = {"first": {"type": "string"}, "second": {"type": "string"}}

CHANGES_THE_ANSWER: list[dict[str, Any]] = [
    {"claude_model": "claude-sonnet-4-6"},
    {"max_tokens": 101},
    {"prompt": "Classify: {{ text }}"},
    {"system": "Be brief."},
    {"system": [{"type": "text", "text": "Be brief."}]},
    {"output_schema": None},
    {"output_schema": LARGER},
    {"output_schema": schema(**TWO)},
    {"params": {"stop_sequences": ["x"]}},
    {"params": {"stop_sequences": ["y"]}},
    {"params": {"temperature": 0.5}},
    {"betas": ["context-1m-2025-08-07"]},
    {"betas": ["context-1m-2025-08-07", "compact-2026-09-04"]},
]

CHANGES_NOTHING: list[dict[str, Any]] = [
    {"packing": {"max_requests": 10}},
    {"packing": {"max_bytes": 5_000}},
    {"max_attempts": 7},
    {"retry": {"invalid": "again", "truncated": "review", "max_tokens_limit": 5_000}},
    {"retry": {"refused": "stronger_model", "stronger_models": ["claude-opus-5"]}},
    {"allow_unknown_model": True},
    {"params": {}},
    {"betas": []},
    {"system": None},
]


def test_each_change_that_changes_the_answer_has_a_fingerprint_of_its_own():
    prints = [task(**changes).fingerprint for changes in [{}, *CHANGES_THE_ANSWER]]
    assert len(set(prints)) == len(prints)


@pytest.mark.parametrize("changes", CHANGES_NOTHING)
def test_how_a_task_is_packed_and_tried_is_not_in_its_fingerprint(changes):
    assert task(**changes).fingerprint == task().fingerprint


def test_the_order_of_keys_in_the_yaml_is_not_in_the_fingerprint():
    forth = {"temperature": 0.5, "stop_sequences": ["x"]}
    back = dict(reversed(forth.items()))
    assert task(params=forth).fingerprint == task(params=back).fingerprint
    turned = Task.load(dict(reversed(DEFINITION.items())), "task")
    assert turned.fingerprint == task().fingerprint


@pytest.mark.parametrize("changes", [{}, *CHANGES_THE_ANSWER, *CHANGES_NOTHING])
def test_equal_fingerprints_mean_equal_bytes_sent(changes):
    from batch_etl_tests.batches.test_request import batch, renderer

    records = batch(id=["a"], text=["x"])
    sent = list(renderer(task(**changes), records).render(records).params)
    plain = list(renderer(task(), records).render(records).params)
    if task(**changes).fingerprint == task().fingerprint:
        assert sent == plain


def test_the_order_of_a_schemas_properties_is_in_the_fingerprint():
    """The model answers in that order, so the bytes sent and the request_keys differ too."""
    forth = {**schema(**TWO), "required": []}
    back = {**forth, "properties": dict(reversed(TWO.items()))}
    assert task(output_schema=forth).fingerprint != task(output_schema=back).fingerprint


def test_the_version_is_the_fingerprints_start():
    assert task().fingerprint.startswith(task().version)
    assert len(task().version) == 12


def test_the_definition_says_all_that_changes_the_answer():
    definition = task(betas=["b-1"], system="S").definition
    assert definition["params"]["model"] == "claude-haiku-4-5"
    assert definition["params"]["system"] == "S"
    assert definition["prompt"] == DEFINITION["prompt"]
    assert definition["betas"] == ["b-1"]
    assert definition["schema"] == SENTIMENT
