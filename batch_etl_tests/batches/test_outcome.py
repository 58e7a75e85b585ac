"""Decoding result lines: every shape of the API's lines, and never an exception.

Lines follow docs/batches-api.md, section 3.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_etl.batches.outcome import BILLED, KINDS, decode, too_large
from batch_etl.batches.retry import worth_another_try
from batch_etl.batches.schema import OutputSchema
from batch_etl_tests.batches.engine import SENTIMENT

SCHEMA = OutputSchema.load(SENTIMENT, "schema")
GOOD = '{"sentiment":"positive"}'
USAGE = {
    "input_tokens": 10,
    "cache_creation_input_tokens": 3,
    "cache_read_input_tokens": 2,
    "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 2},
    "output_tokens": 16,
    "service_tier": "batch",
    "inference_geo": "not_available",
}
MESSAGE = {
    "model": "claude-haiku-4-5-20251001",
    "id": "msg_011",
    "type": "message",
    "role": "assistant",
    "content": [{"type": "text", "text": GOOD}],
    "container": None,
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "stop_details": None,
    "usage": USAGE,
    "diagnostics": None,
}
OLD_MESSAGE = {
    key: MESSAGE[key]
    for key in ("model", "id", "type", "role", "content", "stop_reason", "stop_sequence", "usage")
}
THINKING = {"type": "thinking", "thinking": "", "signature": "x"}


def text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}


def line(result: Any, **more: Any) -> bytes:
    return json.dumps({"custom_id": "c-1", "result": result, **more}).encode()


def message(**changes: Any) -> dict[str, Any]:
    return {"type": "succeeded", "message": {**MESSAGE, **changes}}


def without(*keys: str) -> dict[str, Any]:
    return {
        "type": "succeeded",
        "message": {key: value for key, value in MESSAGE.items() if key not in keys},
    }


def errored(error: Any, **envelope: Any) -> dict[str, Any]:
    return {"type": "errored", "error": {"type": "error", "error": error, **envelope}}


LINES = [
    ("the newest full shape", message(), "Succeeded", None),
    ("an older, shorter shape", {"type": "succeeded", "message": OLD_MESSAGE}, "Succeeded", None),
    ("an empty thinking block first", message(content=[THINKING, text(GOOD)]), "Succeeded", None),
    (
        "text in two blocks",
        message(content=[text(GOOD[:9]), THINKING, text(GOOD[9:])]),
        "Succeeded",
        None,
    ),
    ("text beside what is no text", message(content=[{"type": "x", "text": "?"}, text(GOOD)]),
     "Succeeded", None),
    ("a fenced answer", message(content=[text(f"```json\n{GOOD}\n```")]), "Succeeded", None),
    ("an enum in other casing", message(content=[text('{"sentiment":"Positive"}')]),
     "Succeeded", None),
    ("max_tokens with whole JSON", message(stop_reason="max_tokens"), "Succeeded", None),
    (
        "max_tokens within the JSON",
        message(stop_reason="max_tokens", content=[text(GOOD[:10])]),
        "Truncated",
        "the answer was cut off (max_tokens)",
    ),
    (
        "the context window's end within the JSON",
        message(stop_reason="model_context_window_exceeded", content=[text(GOOD[:10])]),
        "Truncated",
        "the answer was cut off (model_context_window_exceeded)",
    ),
    ("max_tokens spent on thinking", message(stop_reason="max_tokens", content=[THINKING]),
     "Truncated", "the answer was cut off (max_tokens)"),
    ("a stop sequence", message(stop_reason="stop_sequence", stop_sequence="x"), "Succeeded", None),
    (
        "a refusal with details",
        message(
            stop_reason="refusal",
            content=[],
            stop_details={"type": "refusal", "category": "bio", "explanation": "No."},
        ),
        "Refused",
        "the model refused: bio: No.",
    ),
    (
        "a refusal without category",
        message(stop_reason="refusal", stop_details={"type": "refusal", "category": None,
                                                     "explanation": None}),
        "Refused",
        "the model refused",
    ),
    ("a refusal without details", message(stop_reason="refusal", content=[]), "Refused",
     "the model refused"),
    (
        "a refusal after valid JSON",
        message(stop_reason="refusal", content=[text(GOOD)]),
        "Refused",
        "the model refused",
    ),
    ("a tool call", message(stop_reason="tool_use", content=[{"type": "tool_use", "input": {}}]),
     "Invalid", "the model stopped for tool_use instead of answering"),
    ("a pause", message(stop_reason="pause_turn"), "Invalid",
     "the model stopped for pause_turn instead of answering"),
    ("a stop reason that nobody knows", message(stop_reason="compaction"), "Succeeded", None),
    ("no stop reason", without("stop_reason"), "Succeeded", None),
    ("prose", message(content=[text("It is positive.")]), "Invalid", None),
    ("JSON that breaks the schema", message(content=[text('{"sentiment":"mixed"}')]), "Invalid",
     None),
    ("no content", message(content=[]), "Invalid", "the answer is empty"),
    ("content null", message(content=None), "Invalid", "the answer is empty"),
    ("content absent", without("content"), "Invalid", "the answer is empty"),
    ("a text block without text", message(content=[{"type": "text"}]), "Invalid",
     "the answer is empty"),
    ("usage absent", without("usage"), "Succeeded", None),
    ("usage null", message(usage=None), "Succeeded", None),
    ("usage with nulls", message(usage={"input_tokens": 5, "output_tokens": 6,
                                        "cache_creation": None,
                                        "cache_read_input_tokens": None}), "Succeeded", None),
    (
        "the double nesting, details an object",
        errored({"details": {"error_visibility": "user_facing"}, "type": "not_found_error",
                 "message": "model: x"}, request_id=None),
        "Errored",
        "not_found_error: model: x",
    ),
    (
        "details null",
        errored({"details": None, "type": "api_error", "message": "M"}, request_id="workerreq_1"),
        "Errored",
        "api_error: M",
    ),
    ("details absent", errored({"type": "overloaded_error", "message": "M"}), "Errored",
     "overloaded_error: M"),
    ("no message", errored({"type": "api_error"}), "Errored", "api_error: no message"),
    ("no inner error", errored(None), "Errored", "unknown_error: no message"),
    ("no error", {"type": "errored"}, "Errored", "unknown_error: no message"),
    ("canceled", {"type": "canceled"}, "Canceled",
     "the batch was cancelled before this request ran"),
    ("expired", {"type": "expired"}, "Expired",
     "not processed before the batch's 24 hours were over"),
    ("an unknown result type", {"type": "postponed"}, "Errored",
     "the API answered with result type 'postponed', which this version cannot read"),
    ("a result without a type", {}, "Errored", None),
    ("a result that is text", "succeeded", "Errored", None),
    ("a result null", None, "Errored", None),
    ("an error of another shape", {"type": "errored", "error": "broken"}, "Errored", None),
    ("an answer without a message", {"type": "succeeded"}, "Invalid", None),
    ("a message of another shape", {"type": "succeeded", "message": ["?"]}, "Invalid", None),
    ("content of another shape", message(content="text"), "Invalid", None),
    ("usage that cannot be", message(usage={"input_tokens": -1}), "Invalid", None),
    ("usage beyond all numbers", message(usage={"input_tokens": 10**30}), "Invalid", None),
]  # fmt: skip


@pytest.mark.parametrize(("result", "kind", "reason"), [pytest.param(*case[1:], id=case[0])
                                                        for case in LINES])  # fmt: skip
def test_a_line_tells_its_outcome(result, kind, reason):
    decoded = decode(line(result), SCHEMA)
    assert decoded is not None
    assert decoded.custom_id == "c-1"
    outcome = decoded.outcome
    assert outcome.kind == kind
    if reason is not None or kind == "Succeeded":
        assert outcome.reason == reason
    assert bool(outcome.reason) is (kind != "Succeeded")
    assert (outcome.output is not None) is (kind == "Succeeded")


@pytest.mark.parametrize("result", [pytest.param(case[1], id=case[0]) for case in LINES])
def test_fields_that_nobody_has_heard_of_change_nothing(result):
    new: dict[str, Any] = {"x_new": {"nobody": ["has", "heard", "of"]}}

    def grown(value: Any) -> Any:
        if isinstance(value, dict):
            return {**new, **{key: grown(one) for key, one in value.items()}, **new}
        return [grown(one) for one in value] if isinstance(value, list) else value

    assert decode(line(grown(result), **new), SCHEMA) == decode(line(result), SCHEMA)


def test_an_answer_keeps_the_vendors_words_and_its_tokens():
    outcome = decode(line(message()), SCHEMA).outcome  # type: ignore[union-attr]
    assert outcome.output == GOOD
    assert outcome.text is None
    assert (outcome.stop_reason, outcome.model) == ("end_turn", "claude-haiku-4-5-20251001")
    assert outcome.message_id == "msg_011"
    assert outcome.tokens == (10, 16, 2, 1, 2)


def test_cache_writes_without_their_split_count_as_five_minute_ones():
    usage = {**USAGE, "cache_creation": None}
    outcome = decode(line(message(usage=usage)), SCHEMA).outcome  # type: ignore[union-attr]
    assert outcome.tokens == (10, 16, 2, 3, None)


def test_what_the_model_wrote_is_kept_where_it_differs_from_the_output():
    fenced = f"```json\n{GOOD}\n```"
    outcome = decode(line(message(content=[text(fenced)])), SCHEMA).outcome  # type: ignore[union-attr]
    assert (outcome.output, outcome.text) == (GOOD, fenced)
    wrong = decode(line(message(content=[text("prose")])), SCHEMA).outcome  # type: ignore[union-attr]
    assert (wrong.output, wrong.text) == (None, "prose")


@pytest.mark.parametrize(
    ("said", "kind", "output"),
    [
        ("Hello", "Succeeded", '"Hello"'),
        ('say "hi"\n', "Succeeded", '"say \\"hi\\"\\n"'),
        ("", "Invalid", None),
    ],
)
def test_without_a_schema_any_text_is_an_answer(said, kind, output):
    outcome = decode(line(message(content=[text(said)])), None).outcome  # type: ignore[union-attr]
    assert (outcome.kind, outcome.output) == (kind, output)


def test_without_a_schema_a_text_cut_off_is_truncated():
    outcome = decode(line(message(stop_reason="max_tokens")), None).outcome  # type: ignore[union-attr]
    assert (outcome.kind, outcome.text) == ("Truncated", GOOD)


def test_a_line_that_says_it_succeeded_is_never_sent_again():
    """It is billed, whatever this version makes of it."""
    for name, result, *_ in LINES:
        if isinstance(result, dict) and result.get("type") == "succeeded":
            outcome = decode(line(result), SCHEMA).outcome  # type: ignore[union-attr]
            assert not worth_another_try(outcome.kind, outcome.error_type), name
            assert outcome.kind in BILLED, name


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"12",
        b"{}",
        b"\xff\xfe",
        b'{"custom_id": 5, "result": {"type": "expired"}}',
        b'{"custom_id": null, "result": {"type": "expired"}}',
        b'{"result": {"type": "expired"}}',
        line(message())[:-3],
        line(message()) + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"custom_id": "\\ud800", "result": {"type": "expired"}}',
    ],
)
def test_a_line_that_names_no_request_is_nobodys(raw):
    assert decode(raw, SCHEMA) is None


@pytest.mark.parametrize(
    "raw",
    [
        b'{"custom_id": "c-1"}',
        b'{"custom_id": "c-1", "result": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        b'{"custom_id": "c-1", "result": {"type": "expired", "type": 5}}',
        line(message(content=[text("?")])).replace(b"?", b"\\ud800"),
    ],
)
def test_a_line_that_names_its_request_and_says_nothing_readable_has_an_outcome(raw):
    decoded = decode(raw, SCHEMA)
    assert decoded is None or decoded.outcome.kind in KINDS


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from([0.5, 1e300]) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(sorted({"type", "message", "error", "usage", "content", "text"}))
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_make_decoding_raise(raw):
    decoded = decode(raw, SCHEMA)
    assert decoded is None or decoded.outcome.kind in KINDS


@given(
    st.sampled_from(["succeeded", "errored", "expired", "canceled", "new"]),
    st.dictionaries(
        st.sampled_from(["message", "error", "content", "x"]),
        JSON | st.dictionaries(st.sampled_from(list(MESSAGE)), JSON, max_size=5),
        max_size=3,
    ),
    st.booleans(),
)
def test_a_line_with_a_custom_id_always_has_an_outcome(kind, more, checked):
    decoded = decode(line({**more, "type": kind}), SCHEMA if checked else None)
    assert decoded is not None
    assert decoded.outcome.kind in KINDS
    assert (decoded.outcome.output is None) is (decoded.outcome.kind != "Succeeded")


def test_a_request_too_large_says_by_how_much_and_what_to_do():
    outcome = too_large(2_000_000, 1_500_000)
    assert (outcome.kind, outcome.error_type) == ("Errored", "request_too_large")
    assert outcome.reason == (
        "the request has 2,000,000 bytes and a batch takes 1,500,000; "
        "shorten the record or the prompt"
    )
