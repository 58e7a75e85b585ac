"""The quick judge of answers never says yes to what the schema itself would not take as it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_etl.batches.answer_shape import quick_judge
from batch_etl.batches.schema import Checked, OutputSchema

SIMPLE: dict[str, Any] = {
    "type": "object",
    "required": ["topic", "sure", "n"],
    "properties": {
        "topic": {"type": "string", "enum": ["a", "b"], "description": "What it is about."},
        "sure": {"type": "number", "minimum": 0, "maximum": 1},
        "n": {"type": "integer", "exclusiveMinimum": 0},
        "note": {"type": ["string", "null"], "maxLength": 3},
        "mood": {"type": ["string", "null"], "enum": ["x", None]},
        "tags": {"type": "array", "minItems": 1, "items": {"type": "string"}},
        "more": {"type": "object", "properties": {"b c": {"type": "boolean"}}},
    },
}
SCHEMA = OutputSchema.load(SIMPLE, "schema")
PLAIN: dict[str, Any] = {
    "type": "object",
    "required": ["topic", "sure", "n", "note", "more"],
    "properties": {
        "topic": {"type": ["string", "null"], "enum": ["a", "b(", 'x"y', None]},
        "sure": {"type": "number"},
        "n": {"type": "integer"},
        "note": {"type": ["string", "null"]},
        "more": {
            "type": "object",
            "required": ["b c"],
            "properties": {"b c": {"type": ["boolean", "number"]}},
        },
    },
}
"""Nothing that has to be looked at as a value."""

PLAIN_SCHEMA = OutputSchema.load(PLAIN, "schema")
JUDGES = {id(schema): quick_judge(schema.resolved) for schema in (SCHEMA, PLAIN_SCHEMA)}

_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 3)
    | st.integers()
    | st.floats(-1, 2)
    | st.floats()
    | st.sampled_from(["a", "b", "x", "", "é\u2028", "long text", '"', "\\"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.just("b c"), inner, max_size=1),
    max_leaves=4,
)


def says_yes(text: str, schema: OutputSchema = SCHEMA) -> bool:
    judge = JUDGES[id(schema)]
    assert judge is not None
    (judged,) = judge([text])
    assert judged in (text, None)
    return judged is not None


@st.composite
def near_answers(draw: st.DrawFn) -> str:
    """JSON objects that are near to what the schema wants, written in various ways."""
    good = {"topic": "a", "sure": 0.5, "n": 1}
    names = st.sampled_from([*SIMPLE["properties"], "other"])
    answer = {**good, **draw(st.dictionaries(names, _values, max_size=3))}
    order = draw(st.permutations(list(answer)))
    tight = (",", ":") if draw(st.integers(0, 3)) else (", ", ": ")
    ascii_only = draw(st.booleans())
    text = json.dumps({k: answer[k] for k in order}, separators=tight, ensure_ascii=ascii_only)
    old, new = draw(
        st.sampled_from(
            [("", ""), ("0.5", "0.50"), ("0.5", "5e-1"), ("}", ',"n":1}'), ("{", " {"), ("}", "")]
        )
    )
    return text.replace(old, new, 1) if old else text


@given(near_answers())
def test_an_answer_that_surely_meets_the_schema_is_valid_and_stays_as_it_is(text: str):
    if says_yes(text):
        assert SCHEMA.check_text(text) == Checked(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"topic":"a","sure":0.5,"n":1}',
        '{"n":1,"sure":1,"topic":"b"}',
        '{"topic":"a","sure":0.50,"n":1,"note":null,"mood":"x"}',
        '{"topic":"a","sure":0,"n":7,"note":"éé","mood":null,"tags":["t"],"more":{"b c":true}}',
    ],
)
def test_plain_answers_are_judged_quickly(text: str):
    assert says_yes(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        '{"topic":"c","sure":0.5,"n":1}',
        '{"topic":"a","sure":1.5,"n":1}',
        '{"topic":"a","sure":0.5,"n":0}',
        '{"topic":"a","sure":0.5,"n":1.0}',
        '{"topic":"a","sure":0.5}',
        '{"topic":"a","sure":0.5,"n":1,"n":1}',
        '{"topic":"a","sure":0.5,"n":1,"other":1}',
        '{"topic":"a","sure":0.5,"n":1,"note":"long"}',
        '{"topic":"a","sure":0.5,"n":1,"tags":[]}',
        '{"topic":"a","sure":0.5,"n":99999999999999999999}',
        '{"topic": "a","sure":0.5,"n":1}',
        "[" * 100_000,
    ],
)
def test_what_is_not_surely_valid_is_left_to_the_schema(text: str):
    assert not says_yes(text)


def plain(**changes: str) -> str:
    """An answer to ``PLAIN``, its values as they are written."""
    good = {"topic": '"a"', "sure": "0.5", "n": "1", "note": "null", "more": '{"b c":true}'}
    return "{" + ",".join(f'"{name}":{text}' for name, text in {**good, **changes}.items()) + "}"


_written = st.one_of(
    _values.map(lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False)),
    _values.map(json.dumps),
    st.from_regex(r"-?[0-9]{0,20}(\.[0-9]{0,20})?([eE][-+]?[0-9]{1,3})?", fullmatch=True),
    st.text('"\\/bnu0eE1é\n\x00\x7f\u2028,:{}[]', max_size=8).map(lambda text: f'"{text}"'),
    st.sampled_from(
        ["-0", "-0.0", "01", "1.", ".5", "+1", "1e5", "1E400", "\u0661", "NaN", "True", '"b("',
         '"x\\"y"', '"x"y"', '"\\u0061"', '{"b c":1,"b c":1}', '{"b c":-1.0}', " 1", "1 "]
    ),
)  # fmt: skip


@given(
    st.dictionaries(st.sampled_from([*PLAIN["properties"], "other"]), _written, max_size=3),
    st.sampled_from([("", ""), ('"n":1,', ""), ("}", "} "), (",", ",\n")]),
)
def test_an_answer_that_is_surely_written_as_it_should_be_is_valid_and_stays_as_it_is(
    changes: dict[str, str], edit: tuple[str, str]
):
    text = plain(**changes)
    text = text.replace(*edit) if edit[0] else text
    if says_yes(text, PLAIN_SCHEMA):
        assert PLAIN_SCHEMA.check_text(text) == Checked(text)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"topic": '"b("', "sure": "-12.50", "n": "-7"},
        {"topic": '"x\\"y"', "note": '"né"', "more": '{"b c":false}'},
        {"topic": "null", "sure": "0", "n": "123456789012345678", "more": '{"b c":1.5}'},
    ],
)
def test_what_is_written_plainly_is_judged_quickly(changes: dict[str, str]):
    text = plain(**changes)
    assert PLAIN_SCHEMA.check_text(text) == Checked(text)
    assert says_yes(text, PLAIN_SCHEMA)


def test_a_long_list_of_words_is_judged_as_a_short_one():
    words = [f"word {number}" for number in range(100)]
    schema = {"type": "object", "required": ["w"],
              "properties": {"w": {"type": "string", "enum": words}}}  # fmt: skip
    judge = quick_judge(schema)
    assert judge is not None
    texts = ['{"w":"word 99"}', '{"w":"word 100"}']
    assert judge(texts) == [texts[0], None]


@pytest.mark.parametrize("properties", [10, 100, 1_000])
def test_a_schema_of_many_properties_is_judged_as_one_of_few(properties: int):
    names = [f"n{number}" for number in range(properties)]
    schema = {
        "type": "object",
        "required": names,
        "properties": {name: {"type": "integer"} for name in names},
    }
    judge = quick_judge(schema)
    assert judge is not None
    good = "{" + ",".join(f'"{name}":7' for name in names) + "}"
    bad = good.replace("7", "true", 1)
    assert judge([good, None, bad, good]) == [good, None, None, good]


def test_a_name_that_no_field_can_have_has_no_quick_judge():
    assert quick_judge({"type": "object", "properties": {'a"b': {"type": "null"}}}) is None


def test_what_is_no_text_is_no_answer():
    judge = quick_judge(SIMPLE)
    assert judge is not None
    assert judge([None]) == [None]


@pytest.mark.parametrize(
    "node",
    [
        {"type": "string", "pattern": "^a"},
        {"type": "string", "format": "date"},
        {"type": "string", "const": "a"},
        {"type": "number", "multipleOf": 2},
        {"type": "number", "minimum": 0, "exclusiveMinimum": 1},
        {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
        {"enum": ["a", 1]},
        {"enum": ["a"]},
        {"type": "integer", "enum": [1]},
        {"anyOf": [{"type": "string"}, {"type": "null"}]},
        {"type": ["object", "null"], "minProperties": 1, "properties": {"a": {"type": "null"}}},
    ],
)
def test_a_schema_that_says_more_has_no_quick_judge(node: dict[str, Any]):
    schema = {"type": "object", "properties": {"x": node}}
    assert quick_judge(schema) is None
