"""Conversations, tools, thinking and stop sequences: what is answered, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest

from batch_etl.emulator.lines import Terms, why_errs, why_not_counted
from batch_etl.emulator.messages import THOUGHT, answer_to
from batch_etl.emulator.models import find
from batch_etl.emulator.plainest import plainest
from batch_etl.emulator.records import Record
from batch_etl.emulator.stops import cut_at
from batch_etl.emulator.tool_calls import input_for
from batch_etl_tests.emulator.driver import SCHEMA, asking_for_json, params
from batch_etl_tests.emulator.pictures import image, image_block, text_block

NEW_MODEL = "claude-opus-5"
LABEL = {"name": "label", "description": "Label it.", "input_schema": SCHEMA}
COUNT = {
    "name": "count",
    "input_schema": {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 10, "maximum": 20}},
        "required": ["n"],
    },
}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "label", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "It is broken."}


def asked(*turns: tuple[str, Any], **changes: Any) -> dict[str, Any]:
    said = [{"role": role, "content": content} for role, content in turns]
    return params(messages=said, **changes)


def answered(given: dict[str, Any]) -> dict[str, Any]:
    fault = why_errs(given, Terms())
    assert fault is None, fault
    return answer_to(given, "msg", b"question", 0, {"input_tokens": 1})


def refused(given: dict[str, Any]) -> str:
    fault = why_errs(given, Terms())
    assert fault is not None
    assert fault.type == "invalid_request_error"
    return fault.message


# conversations


def test_few_shot_turns_do_not_change_the_answer() -> None:
    examples = [("user", "The lamp glows."), ("assistant", '{"label":"safe"}')]
    asking = ("user", "<t>He flagged it: broken</t>")
    short, long = (
        answered(asked(*turns, **asking_for_json())) for turns in ([asking], [*examples, asking])
    )
    assert short["content"] == long["content"]


def test_the_result_of_a_tool_is_what_the_next_answer_is_made_of() -> None:
    turns = [("user", "What is it?"), ("assistant", [CALL]), ("user", [RESULT])]
    message = answered(asked(*turns, tools=[LABEL], **asking_for_json()))
    assert json.loads(message["content"][0]["text"])["reason"] == "It is broken."
    assert message["stop_reason"] == "end_turn"


def test_a_picture_that_a_tool_brought_is_owned_up_to() -> None:
    seen = {**RESULT, "content": [image_block(image())]}
    turns = [("user", "What is it?"), ("assistant", [CALL]), ("user", [seen])]
    message = answered(asked(*turns, tools=[LABEL]))
    assert message["emulated"]["unread"][0]["at"] == "content.0.content.0"


UNANSWERED = (
    "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after:"
    " toolu_1. Each `tool_use` block must have a corresponding `tool_result` block in the next"
    " message."
)
CONVERSATIONS: list[tuple[dict[str, Any], str]] = [
    (asked(("user", "x"), ("assistant", [CALL]), ("user", "y")), UNANSWERED),
    (asked(("user", "x"), ("assistant", [CALL])), UNANSWERED),
    (
        asked(("user", [RESULT])),
        "messages.0.content.0: unexpected `tool_use_id` found in `tool_result` blocks: toolu_1.",
    ),
    (asked(("user", [{"type": "img"}])), "messages.0.content.0: Input tag 'img' found"),
    (
        asked(("user", [{**RESULT, "tool_use_id": 1}])),
        "messages.0.content.0.tool_result.tool_use_id: Field required",
    ),
    (
        asked(("user", "x"), ("assistant", "{"), **asking_for_json()),
        "output_config.format: not supported together with assistant message prefill",
    ),
]


@pytest.mark.parametrize(("given", "message"), CONVERSATIONS)
def test_a_conversation_that_does_not_hold_together_errs(given: Any, message: str) -> None:
    assert message in refused(given)


# tools


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "label"}])
def test_a_forced_tool_is_called(choice: dict[str, Any]) -> None:
    given = asked(("user", "<t>He flagged it.</t>"), tools=[LABEL, COUNT], tool_choice=choice)
    message = answered(given)
    [call] = message["content"]
    assert (call["type"], call["name"], call["caller"]) == ("tool_use", "label", {"type": "direct"})
    assert call["input"]["label"] == "flagged"
    assert message["stop_reason"] == "tool_use"
    assert answered(given) == message


@pytest.mark.parametrize("choice", [{"type": "auto"}, {"type": "none"}])
def test_a_tool_that_is_not_forced_is_not_called(choice: dict[str, Any]) -> None:
    message = answered(asked(("user", "Hello there."), tools=[LABEL], tool_choice=choice))
    assert message["content"] == [{"type": "text", "text": "Hello there."}]


RECURSIVE = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 3, "maxLength": 5},
        "children": {"type": "array", "items": {"$ref": "#"}},
        "next": {"oneOf": [{"$ref": "#"}, {"type": "null"}]},
    },
    "required": ["name", "children", "next"],
}
TOOL_SCHEMAS: list[dict[str, Any]] = [
    {"type": "object"},
    COUNT["input_schema"],  # type: ignore[list-item]
    RECURSIVE,
    {
        "type": "object",
        "properties": {
            "low": {"type": "number", "exclusiveMinimum": 3, "multipleOf": 0.5},
            "debt": {"type": "integer", "maximum": -7},
            "tags": {"type": "array", "items": {"type": "string"}, "minItems": 3},
            "when": {"type": "string", "format": "date"},
            "code": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]+$"},
            "kind": {"type": ["string", "null"], "enum": ["a", None]},
        },
        "required": ["low", "debt", "tags", "when", "code", "kind"],
        "additionalProperties": False,
    },
]


@pytest.mark.parametrize("schema", TOOL_SCHEMAS)
def test_a_tool_s_input_is_legal_for_a_schema_of_any_kind(schema: dict[str, Any]) -> None:
    check = jsonschema_rs.validator_for(schema, validate_formats=True)
    for text in ("There are 7 of them.", "name: a much too long name\nn: 12", ""):
        check.validate(input_for(schema, Record(text), ""))
    check.validate(plainest(schema))


STRICT = {**LABEL, "strict": True}
TOOLS: list[tuple[dict[str, Any], str]] = [
    ({"tools": "x"}, "tools: Input should be a valid list"),
    ({"tools": [{"name": "a"}]}, "tools.0.custom.input_schema: Field required"),
    (
        {"tools": [{**LABEL, "name": "no spaces"}]},
        "tools.0.custom.name: String should match pattern '^[a-zA-Z0-9_-]{1,64}$'",
    ),
    ({"tools": [{**LABEL, "input_schema": {}}]}, "tools.0.custom.input_schema.type: Field req"),
    ({"tools": [LABEL, LABEL]}, "tools: Tool names must be unique."),
    (
        {"tools": [{**COUNT, "strict": True}]},
        "tools.0.custom.input_schema: For 'object' type, 'additionalProperties' must be",
    ),
    ({"tools": [{**STRICT, "name": f"t{n}"} for n in range(21)]}, "at most 20 tools may be str"),
    ({"tool_choice": {"type": "any"}}, "tool_choice: may only be specified while providing"),
    ({"tool_choice": {"type": "some"}}, "tool_choice.type: Input should be 'auto', 'any'"),
    (
        {
            "tools": [LABEL],
            "tool_choice": {"type": "any"},
            "thinking": {"type": "enabled", "budget_tokens": 1024},
            "max_tokens": 2000,
        },
        "Thinking may not be enabled when tool_choice forces tool use.",
    ),
]


@pytest.mark.parametrize(("changes", "message"), TOOLS)
def test_a_tool_that_the_api_refuses_errs_its_line(changes: dict[str, Any], message: str) -> None:
    assert message in refused(params(**changes))


def test_the_vendor_s_own_tools_need_no_schema() -> None:
    own = {"type": "web_search_20250305", "name": "web_search"}
    assert why_errs(params(tools=[own]), Terms()) is None


def test_adaptive_thinking_may_be_together_with_a_forced_tool() -> None:
    given = params(
        model=NEW_MODEL, tools=[LABEL], tool_choice={"type": "any"}, thinking={"type": "adaptive"}
    )
    assert [block["type"] for block in answered(given)["content"]] == ["thinking", "tool_use"]


def optional(count: int) -> dict[str, Any]:
    """A schema of so many properties that may be missing."""
    return {
        **SCHEMA,
        "properties": {f"p{n}": {"type": "string"} for n in range(count)},
        "required": [],
    }


def unions(count: int) -> dict[str, Any]:
    kinds = {"type": ["string", "null"]}
    names = [f"p{n}" for n in range(count)]
    return {**SCHEMA, "properties": dict.fromkeys(names, kinds), "required": names}


@pytest.mark.parametrize(
    ("within", "beyond", "message"),
    [
        (optional(24), optional(25), "too many optional parameters (25)"),
        (unions(16), unions(17), "too many parameters with union types (17)"),
    ],
)
def test_strict_schemas_may_cost_only_so_much_together(
    within: dict[str, Any], beyond: dict[str, Any], message: str
) -> None:
    def wanting(schema: dict[str, Any], **more: Any) -> dict[str, Any]:
        return params(output_config={"format": {"type": "json_schema", "schema": schema}}, **more)

    assert why_errs(wanting(within), Terms()) is None
    assert message in refused(wanting(beyond))
    one_more = {"name": "t", "strict": True, "input_schema": {**optional(1), **unions(1)}}
    one_more["input_schema"]["required"] = []
    assert "Schemas contains too many" in refused(wanting(within, tools=[one_more]))


# thinking


def test_thinking_is_shown_where_the_model_shows_it_and_billed_where_it_does_not() -> None:
    old = answered(params(thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2000))
    new = answered(params(thinking={"type": "adaptive"}, model=NEW_MODEL))
    asked_for = answered(
        params(thinking={"type": "adaptive", "display": "summarized"}, model=NEW_MODEL)
    )
    shown = [message["content"][0]["thinking"] for message in (old, new, asked_for)]
    assert shown == [THOUGHT, "", THOUGHT]
    for message in (old, new, asked_for):
        assert message["content"][0]["signature"] == "emulator"
        usage = message["usage"]
        assert 0 < usage["output_tokens_details"]["thinking_tokens"] < usage["output_tokens"]


THINKING: list[tuple[dict[str, Any], str]] = [
    ({"thinking": {"type": "adaptive"}}, "adaptive thinking is not supported on this model"),
    ({"thinking": {"type": "disabled", "display": "omitted"}}, "thinking.disabled.display: Extra"),
    (
        {"thinking": {"type": "adaptive", "display": "raw"}, "model": NEW_MODEL},
        "thinking.adaptive.display: Input should be 'summarized' or 'omitted'",
    ),
    (
        {
            "thinking": {"type": "disabled"},
            "model": NEW_MODEL,
            "output_config": {"effort": "max"},
        },
        "is not supported with effort 'max'",
    ),
]


@pytest.mark.parametrize(("changes", "message"), THINKING)
def test_thinking_that_the_model_refuses_errs(changes: dict[str, Any], message: str) -> None:
    assert message in refused(params(**changes))


@pytest.mark.parametrize("effort", ["low", "medium", "high", "xhigh", "max"])
def test_every_effort_is_taken(effort: str) -> None:
    assert answered(params(output_config={"effort": effort}, model=NEW_MODEL))["content"]


def test_thinking_counts_in_max_tokens() -> None:
    given = params("A rather long answer. " * 9, model=NEW_MODEL, thinking={"type": "adaptive"})
    message = answered({**given, "max_tokens": 20})
    assert message["stop_reason"] == "max_tokens"
    assert message["usage"]["output_tokens"] == 20
    assert len(message["content"][1]["text"]) < 30


def test_tokens_are_counted_with_thinking() -> None:
    given = params(thinking={"type": "enabled", "budget_tokens": 16_000})
    del given["max_tokens"]
    assert why_not_counted(given) is None


# stop sequences, cache marks, metadata


def test_a_stop_sequence_ends_the_answer_and_is_not_part_of_it() -> None:
    message = answered(params("One two. Three STOP four.", stop_sequences=["four", "STOP"]))
    assert message["content"] == [{"type": "text", "text": "One two. Three "}]
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "STOP")


def test_max_tokens_may_end_it_before_the_stop_sequence_does() -> None:
    model = find(NEW_MODEL)
    assert model is not None
    text, stop = cut_at("one two three four END", ["END"], 2, model)
    assert (len(text) < 10, stop.reason, stop.sequence) == (True, "max_tokens", None)


MARK = {"cache_control": {"type": "ephemeral"}}
OTHERS: list[tuple[dict[str, Any], str]] = [
    ({"stop_sequences": "x"}, "stop_sequences: Input should be a valid list"),
    ({"stop_sequences": [5]}, "stop_sequences.0: Input should be a valid string"),
    ({"stop_sequences": ["\n"]}, "stop_sequences: each stop sequence must contain non-whitespace"),
    (
        {"system": [{**text_block("x"), **MARK}] * 5},
        "A maximum of 4 blocks with cache_control may be provided. Found 5.",
    ),
    ({"cache_control": {"type": "x"}}, "cache_control.type: Input should be 'ephemeral'"),
    ({"cache_control": {"type": "ephemeral", "ttl": "2h"}}, "ttl: Input should be '5m' or '1h'"),
    (
        {
            "system": [{**text_block("x"), **MARK}],
            "cache_control": {"type": "ephemeral", "ttl": "1h"},
        },
        "a ttl of '1h' must not come after one of '5m'",
    ),
    ({"service_tier": "priority"}, "service_tier: Input should be 'auto' or 'standard_only'"),
    ({"metadata": {"name": "x"}}, "metadata.name: Extra inputs are not permitted"),
]


@pytest.mark.parametrize(("changes", "message"), OTHERS)
def test_other_settings_are_checked_too(changes: dict[str, Any], message: str) -> None:
    assert message in refused(params(**changes))
