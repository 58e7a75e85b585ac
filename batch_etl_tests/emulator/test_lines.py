"""Which params err, and in which words. The first table is the API's own, captured."""

from __future__ import annotations

from typing import Any

import pytest

from batch_etl.emulator.lines import LineError, Terms, why_errs
from batch_etl.emulator.schemas import why_refused
from batch_etl_tests.emulator.driver import SCHEMA, params

ANY: dict[str, Any] = {"type": "string"}
IMAGE = {"type": "base64", "media_type": "image/png", "data": "aGVsbG8="}


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in params().items() if key != name}


def turn(*blocks: dict[str, Any], role: str = "user") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": list(blocks)}]}


CAPTURED: list[tuple[Any, str]] = [
    (without("messages"), "messages: Field required"),
    (params(messages=[]), "messages: at least one message is required"),
    (params(max_tokens=0), "max_tokens: must be greater than or equal to 1"),
    (
        params(max_tokens=9999999),
        (
            "max_tokens: 9999999 > 64000, which is the maximum allowed number of output tokens"
            " for claude-haiku-4-5-20251001"
        ),
    ),
    (params(stream=True), '"stream=True" is not supported in the Message Batches API'),
    (params(betas=["x"]), "betas: Extra inputs are not permitted"),
    (params(extra_body={}), "extra_body: Extra inputs are not permitted"),
    (params(tool_choice={"type": "tool", "name": "x"}), "Tool 'x' not found in provided tools"),
    (
        params(**turn({"type": "image", "source": {"type": "url", "url": "https://x/y.png"}})),
        "Unable to download the file. Please verify the URL and try again.",
    ),
    (params(**turn({"type": "image", "source": IMAGE})), "Could not process image"),
]


@pytest.mark.parametrize(("given", "message"), CAPTURED)
def test_a_captured_fault_has_the_captured_words(given: Any, message: str) -> None:
    fault = why_errs(given, Terms())
    assert fault is not None
    assert (fault.type, fault.message) == ("invalid_request_error", message)


OTHERS: list[tuple[Any, str]] = [
    ([], "params: Input should be a valid dictionary"),
    (None, "params: Input should be"),
    (without("model"), "model: Field required"),
    (without("max_tokens"), "max_tokens: Field required"),
    (params(model=5), "model: Input should be a valid string"),
    (params(max_tokens="9"), "max_tokens: Input should be a valid integer"),
    (params(max_tokens=True), "max_tokens: Input should be a valid integer"),
    (params(messages="hi"), "messages: Input should be a valid list"),
    (params(messages=["hi"]), "messages.0: Input should be"),
    (params(messages=[{"role": "user"}]), "messages.0.content: Field required"),
    (params(messages=[{"role": "bot", "content": "x"}]), "messages.0.role: Input should be"),
    (params(messages=[{"role": "user", "content": " "}]), "messages.0.content: must be non-empty"),
    (params(messages=[{"role": "user", "content": 5}]), "messages.0.content: Input should be"),
    (params(**turn({"type": "text", "text": ""})), "text content blocks must be non-empty"),
    (params(**turn({"type": "text"})), "messages.0.content.0.text: Field required"),
    (params(model="claude-opus-5", temperature=0.2), "temperature: only the default value"),
    (params(model="claude-opus-5", **turn(role="assistant")), "must be non-empty"),
    (
        params(model="claude-opus-5", messages=[{"role": "assistant", "content": "{"}]),
        "prefill",
    ),
    (params(thinking={"type": "enabled", "budget_tokens": 5}), "budget_tokens: Input should be"),
    (params(thinking={"type": "enabled", "budget_tokens": 2000}), "must be greater than `think"),
    (
        params(model="claude-opus-5", thinking={"type": "enabled", "budget_tokens": 2000}),
        '"thinking.type.enabled" is not supported for this model.',
    ),
    (params(model="claude-opus-5-5", thinking={"type": "disabled"}), "is not supported"),
    (params(model="claude-opus-5-5", tool_choice={"type": "any"}), "forced tool use"),
    (params(speed="fast"), "speed: Extra inputs are not permitted"),
    (params(output_config={"format": {"type": "json"}}), "output_config.format.type: Input sh"),
    (params(output_config={"effort": "huge"}), "output_config.effort: Input should be"),
    (params(output_config={"formats": {}}), "output_config.formats: Extra inputs"),
    (params(output_config=[]), "output_config: Input should be a valid dictionary"),
    (
        params(output_config={"format": {"type": "json_schema"}}),
        "output_config.format.schema: Field required",
    ),
    (
        params(output_config={"format": {"type": "json_schema", "schema": {"type": "object"}}}),
        "output_config.format.schema: For 'object' type, 'additionalProperties' must be",
    ),
]


@pytest.mark.parametrize(("given", "message"), OTHERS)
def test_a_documented_rule_is_kept(given: Any, message: str) -> None:
    fault = why_errs(given, Terms())
    assert fault is not None
    assert message in fault.message


def test_an_unknown_model_is_not_found() -> None:
    found = why_errs(params(model="claude-does-not-exist-9"), Terms())
    assert found == LineError("model: claude-does-not-exist-9", "not_found_error")


@pytest.mark.parametrize(
    "given",
    [
        params(),
        params(temperature=0.3, top_k=5),
        params(max_tokens=64000),
        params(model="claude-opus-5", max_tokens=128000),
        params(messages=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "{"}]),
        params(system="", service_tier="auto", metadata={"user_id": "u"}),
        params(output_config={"format": {"type": "json_schema", "schema": SCHEMA}}),
    ],
)
def test_what_the_api_takes_is_taken(given: Any) -> None:
    assert why_errs(given, Terms()) is None


def test_the_long_output_beta_lifts_the_limit() -> None:
    long = params(model="claude-opus-5", max_tokens=300_000)
    assert why_errs(long, Terms()) is not None
    assert why_errs(long, Terms(betas=frozenset({"output-300k-2026-03-24"}))) is None


@pytest.mark.parametrize(
    "given",
    [
        params(temperature=1.0),
        params(**turn({"type": "text", "text": "x", "citations": [{"a": 1}]})),
        params(messages=[{"role": "assistant", "content": [{"type": "document", "source": {}}]}]),
    ],
)
def test_the_new_version_has_rules_of_its_own(given: Any) -> None:
    assert why_errs(given, Terms(version="2026-10-21")) is not None


def an_object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


RECURSIVE = {**an_object(child={"$ref": "#"}), "required": ["child"]}

REFUSED: list[tuple[Any, str]] = [
    ([], "valid dictionary"),
    ({}, "must not be empty"),
    (an_object(a={"type": "string", "maxLength": 5}), "schema.properties.a: For 'string' type"),
    (an_object(a={"type": "integer", "minimum": 0}), "'minimum' is not supported"),
    (an_object(a={"type": "array", "items": ANY, "minItems": 2}), "'minItems' values other than"),
    (an_object(a={"type": "array", "items": {"type": "object"}}), "properties.a.items: For 'obj"),
    (an_object(a={"$ref": "https://x/y"}), "External $ref"),
    (an_object(a={"$ref": "#/$defs/none"}), "points to nothing"),
    (RECURSIVE, "Recursive"),
    (an_object(a={"type": "text"}), "type must be one of"),
    (an_object(a={"enum": []}), "must be a non-empty list"),
    (an_object(a={"enum": [{"b": 1}]}), "enum and const values must be"),
    (an_object(a={"oneOf": [ANY]}), "'oneOf' is not supported"),
    (an_object(a={"type": "string", "format": "phone"}), "String format 'phone'"),
    ({**an_object(), "required": ["a"]}, "'a' is not in properties"),
    (an_object(a={"anyOf": []}), "must be a non-empty list"),
]


@pytest.mark.parametrize(("schema", "message"), REFUSED)
def test_a_schema_that_the_api_would_refuse_is_refused_with_its_place(
    schema: Any, message: str
) -> None:
    assert message in (why_refused(schema) or "")


def test_a_schema_far_too_deep_is_too_complex() -> None:
    schema: dict[str, Any] = ANY
    for _ in range(2_000):
        schema = {"anyOf": [schema]}
    given = params(output_config={"format": {"type": "json_schema", "schema": schema}})
    fault = why_errs(given, Terms())
    assert fault is not None
    assert "too complex" in fault.message
