"""Output schemas: what is sent, what is enforced, what is refused, and how answers are read."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Any, Literal

import jsonschema_rs
import pydantic
import pytest
from anthropic import transform_schema
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import TypedDict

from batch_etl.batches.schema import Checked, OutputSchema
from batch_etl.errors import ConfigError

LABELS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "label": {"type": "string", "enum": ["safe", "flagged", "EU"], "description": "Verdict."},
        "reason": {"type": "string", "maxLength": 20},
        "score": {"type": "number", "minimum": 0},
        "tags": {"type": "array", "items": {"enum": ["Spam", "Ham"]}, "minItems": 1},
    },
    "required": ["label"],
}


def load(schema: Any = LABELS) -> OutputSchema:
    return OutputSchema.load(schema, "output_schema")


def of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


# What is sent


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ({"type": "string"}, {"type": "string"}),
        (
            {"type": "string", "maxLength": 80, "description": "Why."},
            {"type": "string", "description": "Why. (at most 80 characters)"},
        ),
        (
            {"type": "string", "minLength": 1, "pattern": "^a"},
            {"type": "string", "description": "(at least 1 character, matching the pattern ^a)"},
        ),
        (
            {"type": "integer", "minimum": 1, "exclusiveMaximum": 10, "multipleOf": 2},
            {"type": "integer", "description": "(1 or more, less than 10, a multiple of 2)"},
        ),
        ({"type": "string", "format": "date"}, {"type": "string", "format": "date"}),
        (
            {"type": "string", "format": "regex"},
            {"type": "string", "description": "(in the format regex)"},
        ),
        (
            {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 3},
            {
                "type": "array",
                "items": {"type": "string"},
                "minItems": 1,
                "description": "(at most 3 items)",
            },
        ),
        (
            {"type": "array", "items": {"type": "string"}, "minItems": 2, "uniqueItems": True},
            {
                "type": "array",
                "items": {"type": "string"},
                "description": "(at least 2 items, without duplicates)",
            },
        ),
        (
            {"oneOf": [{"type": "string", "maxLength": 1}, {"type": "null"}], "x-unit": "m"},
            {
                "anyOf": [
                    {"type": "string", "description": "(at most 1 character)"},
                    {"type": "null"},
                ]
            },
        ),
        (
            {"type": "string", "not": {"const": "n/a"}, "examples": ["a"]},
            {"type": "string", "description": '(not: {"const": "n/a"})'},
        ),
        (
            {"type": ["string", "null"], "default": None},
            {"type": ["string", "null"], "default": None},
        ),
        (
            of(a={"type": "boolean"}),
            {**of(a={"type": "boolean"}), "additionalProperties": False},
        ),
        ({"allOf": [{"type": "null"}], "title": "T"}, {"type": "null", "title": "T"}),
    ],
)
def test_what_the_grammar_does_not_know_moves_into_the_description(
    written: dict[str, Any], sent: dict[str, Any]
) -> None:
    api = load(of(field=written)).api
    assert api["properties"]["field"] == sent
    assert list(api["properties"]["field"]) == list(sent)


def test_every_object_sent_is_closed_and_only_knows_what_the_grammar_knows() -> None:
    nested = of(a=of(b={"type": "array", "items": of(c={"type": "string", "maxLength": 3})}))
    for node in _nodes(load(nested).api):
        assert ("object" in node.get("type", "")) == (node.get("additionalProperties") is False)
        assert not node.keys() & {"maxLength", "$ref", "$defs"}


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in [*node.get("properties", {}).values(), node.get("items")]:
        if child:
            yield from _nodes(child)


def test_required_is_sent_as_written_and_the_order_of_properties_is_kept() -> None:
    api = load().api
    assert api["required"] == ["label"]
    assert list(api["properties"]) == ["label", "reason", "score", "tags"]


def test_the_sdks_own_transform_finds_nothing_more_to_move() -> None:
    api = load().api
    again = transform_schema(json.loads(json.dumps(api)))
    assert again["properties"]["reason"] == api["properties"]["reason"]
    assert again["properties"]["tags"] == api["properties"]["tags"]
    assert again["additionalProperties"] is False


def test_references_are_written_out_and_a_description_beside_one_is_kept() -> None:
    schema = of(
        a={"$ref": "#/$defs/Level", "description": "How bad."}, b={"$ref": "#/definitions/x~1y"}
    ) | {"$defs": {"Level": {"enum": ["low", "high"], "description": "Level."}}}
    schema["definitions"] = {"x/y": of(level={"$ref": "#/$defs/Level"})}
    loaded = load(schema)
    assert loaded.api["properties"] == {
        "a": {"enum": ["low", "high"], "description": "How bad."},
        "b": {
            **of(level={"enum": ["low", "high"], "description": "Level."}),
            "additionalProperties": False,
        },
    }
    assert loaded.source == schema
    assert "$defs" not in loaded.resolved


def test_canonical_bytes_change_with_what_is_sent_or_enforced_and_with_nothing_else() -> None:
    base = load(of(a={"type": "string", "maxLength": 5})).canonical()
    same = load(of(a={"type": "string", "maxLength": 5, "$comment": "mine"}) | {"x-owner": "me"})
    other = load(of(a={"type": "string", "maxLength": 6}))
    described = load(of(a={"type": "string", "maxLength": 5, "description": "d"}))
    assert same.canonical() == base
    assert len({base, other.canonical(), described.canonical()}) == 3


# What is refused at load


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({}, "the schema is empty"),
        ({"type": "array", "items": {"type": "string"}}, "at /type: the root must be an object"),
        ({"type": "object"}, "an object without properties"),
        (of(a={}), "at /properties/a: has no type"),
        (of(a=True), "at /properties/a: true is no description"),
        (of(a={"type": "strin"}), "at /properties/a/type: unknown type 'strin'"),
        (
            of(a={"type": "string", "maxlength": 3}),
            "/maxlength: unknown keyword; did you mean 'maxL",
        ),
        (of(a={"type": "string", "nullable": True}), r"/nullable: .* \[string, \"null\"\]"),
        (
            of(a={"type": "string", "pattern": "("}),
            r"/properties/a/pattern: \"\(\" is not a \"regex\"",
        ),
        (of(a={"type": "string", "minLength": -1}), "/minLength: not a JSON Schema"),
        (of(a={"type": "string", "enum": []}), "at /properties/a/enum: is empty"),
        (
            of(a={"type": "string", "enum": ["y", False]}),
            "/enum/1: false is not .* put it in quotes",
        ),
        (of(a={"enum": [{"b": 1}]}), "/enum/0: only strings"),
        (of(a={"const": 1, "type": "string"}), "/const: 1 is not of type string"),
        (of(a={"type": "array"}), "at /properties/a: an array must say"),
        (of(a={"type": "object", "additionalProperties": {"type": "string"}}), "takes only false"),
        (of(a={"type": "string"}) | {"additionalProperties": True}, "at /additionalProperties"),
        (of(a={"type": "array", "prefixItems": []}), "prefixItems"),
        (of(a={"type": "string"}) | {"patternProperties": {}}, "at /patternProperties: the API"),
        (of(a={"type": "string"}) | {"required": ["a", "aa"]}, "/required/1: no property .*'aa'"),
        (of(a={"properties": {"b": {"type": "null"}}, "enum": ["x"]}), "but not type: object"),
        (of(a={"$ref": "other.json#/x"}), r"/properties/a/\$ref: .* is outside this schema"),
        (of(a={"$ref": "#/properties/b"}), r"only #/\$defs/NAME"),
        (
            of(a={"$ref": "#/$defs/Lvel"}) | {"$defs": {"Level": {"enum": [1]}}},
            "did you mean 'Level'",
        ),
        (of(a={"$ref": "#/$defs/A", "maxLength": 1}) | {"$defs": {"A": {}}}, "move maxLength into"),
        (of(a={"allOf": [{"type": "string"}, {"maxLength": 3}]}), "/allOf: merge its members"),
        (of(a={"type": "string"}) | {"anyOf": [{"required": ["a"]}]}, "anyOf"),
        (of(a={"type": "string", "enum": [date(2026, 1, 1)]}), "/enum/0: .* is a date, not JSON"),
        (of(a={"type": "number", "maximum": float("inf")}), "inf is not a JSON number"),
        (
            {"type": "object", "properties": {1: {"type": "string"}}},
            "key 1 is a int; put it in quotes",
        ),
        (3, "empty or not a mapping"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_by_setting_and_pointer(
    schema: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(schema)
    assert str(caught.value).startswith("output_schema: ")


def test_recursion_is_refused_with_its_circle() -> None:
    node = of(children={"type": "array", "items": {"$ref": "#/$defs/Node"}})
    with pytest.raises(ConfigError, match=r"recursive \(#/\$defs/Node -> #/\$defs/Node\)"):
        load(of(tree={"$ref": "#/$defs/Node"}) | {"$defs": {"Node": node}})


def test_references_that_grow_exponentially_are_refused() -> None:
    defs: dict[str, Any] = {"d0": {"type": "null"}}
    for n in range(1, 20):
        defs[f"d{n}"] = of(a={"$ref": f"#/$defs/d{n - 1}"}, b={"$ref": f"#/$defs/d{n - 1}"})
    with pytest.raises(ConfigError, match="more than 20000 parts"):
        load(of(a={"$ref": "#/$defs/d19"}) | {"$defs": defs})


# Python types as schemas


class Severity(enum.StrEnum):
    LOW = "low"
    HIGH = "high"


class Finding(pydantic.BaseModel):
    severity: Severity
    quote: str = pydantic.Field(max_length=10, description="The words.")


class Review(pydantic.BaseModel):
    verdict: Literal["ok", "bad"]
    findings: list[Finding] = []
    note: str | None = None


class Tree(pydantic.BaseModel):
    children: list[Tree]


class Open(pydantic.BaseModel):
    scores: dict[str, float]


@dataclasses.dataclass
class Point:
    x: int


class Pair(TypedDict):
    left: str


def dotted(name: str, colon: str = ":") -> OutputSchema:
    return load(f"{__name__}{colon}{name}")


@pytest.mark.parametrize("colon", [":", "."])
def test_a_pydantic_model_is_a_schema(colon: str) -> None:
    schema = dotted("Review", colon)
    assert schema.api["properties"]["findings"]["items"]["properties"]["quote"] == {
        "type": "string",
        "description": "The words. (at most 10 characters)",
        "title": "Quote",
    }
    good = '{"verdict":"ok","findings":[{"severity":"low","quote":"short"}]}'
    assert schema.check_text(good) == Checked(good)
    [problem] = schema.check_text(good.replace("short", "far too long")).problems
    assert problem.startswith("/findings/0/quote: ")


@pytest.mark.parametrize(("name", "field"), [("Point", "x"), ("Pair", "left")])
def test_a_dataclass_and_a_typed_dict_are_schemas_too(name: str, field: str) -> None:
    assert list(dotted(name).api["properties"]) == [field]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("Review", "'Review' is no dotted path"),
        ("no_such_package.models:Review", "no module 'no_such_package'"),
        ("batch_etl.no_such:Review", "no module 'batch_etl.no_such'"),
        (f"{__name__}:Reviw", "has no 'Reviw'; did you mean 'Review'"),
        (f"{__name__}:LABELS", "is a dict, not a pydantic model"),
        (f"{__name__}:Severity", "is class Severity, not a pydantic model"),
        (f"{__name__}:Tree", "recursive"),
        (f"{__name__}:Open", "at /properties/scores/additionalProperties"),
    ],
)
def test_a_dotted_path_that_cannot_be_used_says_what_to_do(path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(path)


# What is enforced


@pytest.mark.parametrize(
    ("value", "problems"),
    [
        ({"label": "safe"}, ()),
        ({"label": "safe", "reason": "x" * 20, "score": 0, "tags": ["Ham"]}, ()),
        ({}, ('"label" is a required property',)),
        ({"label": "safe", "reason": "x" * 21}, ("/reason: ",)),
        ({"label": "safe", "score": -1}, ("/score: -1 is less than the minimum of 0",)),
        ({"label": "safe", "tags": []}, ("/tags: [] has less than 1 item",)),
        ({"label": "safe", "tags": ["Ham", "x"]}, ('/tags/1: "x" is not one of',)),
        ({"label": "safe", "more": 1}, ("Additional properties are not allowed",)),
        ([], ('[] is not of type "object"',)),
    ],
)
def test_every_constraint_is_enforced_here_and_objects_are_closed(
    value: Any, problems: tuple[str, ...]
) -> None:
    found = load().validate(value)
    assert load().is_valid(value) == (problems == ())
    assert [a.startswith(b) for a, b in zip(found, problems, strict=True)] == [True] * len(found)


@pytest.mark.parametrize(
    ("format_", "good", "bad"),
    [("date", "2026-02-28", "2026-02-30"), ("email", "a@b.de", "a@"), ("ipv4", "1.2.3.4", "1.2.3")],
)
def test_string_formats_are_checked(format_: str, good: str, bad: str) -> None:
    schema = load(of(a={"type": "string", "format": format_}))
    assert schema.is_valid({"a": good})
    assert not schema.is_valid({"a": bad})


def test_an_answers_many_problems_are_told_in_short() -> None:
    schema = load(of(a={"type": "array", "items": {"type": "string", "maxLength": 5}}))
    problems = schema.validate({"a": ["x" * 5000] * 100})
    assert len(problems) == 20
    assert max(map(len, problems)) <= 300


# How answers are read

BARE = '{"label":"safe","score":1.10}'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BARE, Checked(BARE)),
        ('\n{ "label" : "safe",\t"score": 1.10 } \n', Checked(BARE)),
        (f"\ufeff{BARE}", Checked(BARE)),
        (f"Sure!\n```json\n{BARE}\n```\nBye", Checked(BARE, (), extracted=True)),
        (f"```\n{BARE}\n```", Checked(BARE, (), extracted=True)),
        (f"Here it's {{x}}: {BARE} -- done.", Checked(BARE, (), extracted=True)),
        (f'He said " and {BARE}', Checked(BARE, (), extracted=True)),
        ('{"label":"Safe"}', Checked('{"label":"safe"}', recased=True)),
        ('{"label":"eu","score":1.10}', Checked('{"label":"EU","score":1.10}', recased=True)),
        (
            '{"label":"SAFE","tags":["ham"]}',
            Checked('{"label":"safe","tags":["Ham"]}', recased=True),
        ),
        ('{"label":"safe","reason":"}{"}', Checked('{"label":"safe","reason":"}{"}')),
        (
            '{"label":"safe","reason":"\\u00e9é😀"}',
            Checked('{"label":"safe","reason":"\\u00e9é😀"}'),
        ),
    ],
)
def test_an_answer_is_read_and_kept_as_it_was_written(text: str, expected: Checked) -> None:
    assert load().check_text(text) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the answer is empty"),
        (" \n", "the answer is empty"),
        ("I cannot help with that.", "the answer is not JSON: "),
        ('{"label":"sa', "the answer is not JSON: "),
        ('{"label":"safe","label":"flagged"}', 'an object names the key "label" twice'),
        ('Yes: {"label":"safe","label":"safe"}', 'an object names the key "label" twice'),
        ('{"label":"safe","score":0.50,"score":0.50}', 'an object names the key "score" twice'),
        ('{"label":"safe","score":1,"s\\u0063ore":1.0}', 'an object names the key "score" twice'),
        (f"{BARE}\n{BARE}", "the answer holds 2 JSON values where one was asked for"),
        (f"```\n{BARE}\n```\n```\n{BARE}\n```", "the answer holds 2 JSON values"),
        ('{"label":"safe","score":NaN}', "the answer is not JSON: "),
        ('{"label":"safe",}', "the answer is not JSON: "),
        ('{"label":"safe","score":1e999}', "the answer is not JSON: "),
        ('{"label":"safe","reason":"\ud800"}', "the answer is not JSON: "),
        ("[" * 100_000, "the answer is not JSON: "),
        ('{"a":' * 50_000, "the answer is not JSON: "),
        ('"safe"', '"safe" is not of type "object"'),
        ('{"label":"unsafe"}', '/label: "unsafe" is not one of'),
    ],
)
def test_an_answer_that_cannot_be_used_says_why(text: str, problem: str) -> None:
    checked = load().check_text(text)
    assert checked.output_json is None
    assert checked.problems[0].startswith(problem)


def test_numbers_are_never_rewritten() -> None:
    schema = load(of(a={"type": "array", "items": {"type": "number"}}, b={"enum": ["Yes"]}))
    numbers = "[1.10,1e5,123456789012345678901234567890,-0,0.1000000000000000055511151231257827]"
    assert schema.check_text(f'{{"a":{numbers}}}').output_json == f'{{"a":{numbers}}}'
    recased = schema.check_text(f'{{"a":{numbers},"b":"yes"}}')
    assert recased.recased
    assert recased.output_json is not None
    again = json.loads(recased.output_json, parse_float=Decimal)
    assert again["a"] == json.loads(numbers, parse_float=Decimal)


def test_enum_values_that_differ_only_in_case_are_not_guessed() -> None:
    schema = load(of(a={"enum": ["A", "a", "B"]}))
    assert schema.check_text('{"a":"a"}') == Checked('{"a":"a"}')
    assert schema.check_text('{"a":"b"}').output_json == '{"a":"B"}'


def test_enum_casing_is_mended_inside_unions_and_nested_arrays() -> None:
    item = of(kind={"anyOf": [{"type": "null"}, {"const": "Big"}]}, note={"type": "string"})
    schema = load(of(items={"type": ["array", "null"], "items": item}))
    text = '{"items":[{"kind":"BIG","note":"BIG"},{"kind":null}]}'
    assert schema.check_text(text).output_json == text.replace('"BIG",', '"Big",')


@given(st.text() | st.binary().map(lambda raw: raw.decode("utf-8", "surrogateescape")))
def test_no_text_makes_the_reader_fail(text: str) -> None:
    checked = load().check_text(text)
    assert (checked.output_json is None) == bool(checked.problems)


json_like = st.text(alphabet='{}[]",:\\`\n label safe01.-eE\ud800é', max_size=60)


@given(json_like, st.sampled_from([BARE, '{"label": "SAFE"}', ""]), json_like)
def test_no_text_around_an_answer_makes_the_reader_fail(before: str, body: str, after: str) -> None:
    checked = load().check_text(before + body + after)
    assert (checked.output_json is None) == bool(checked.problems)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10)
values = st.dictionaries(
    st.sampled_from(["label", "reason", "score", "tags", "x"]),
    scalars | st.lists(scalars | st.sampled_from(["Spam", "ham"]), max_size=3),
)


@given(values | st.fixed_dictionaries({"label": st.sampled_from(["safe", "EU"])}), st.booleans())
def test_what_is_accepted_is_exactly_what_a_plain_validator_accepts(
    value: dict[str, Any], spaced: bool
) -> None:
    text = json.dumps(value, indent=2 if spaced else None)
    closed = jsonschema_rs.Draft202012Validator(LABELS | {"additionalProperties": False})
    checked = load().check_text(text)
    if any(word in text for word in ("NaN", "Infinity", "\\ud")):
        return
    if not checked.recased:
        assert (checked.output_json is not None) == closed.is_valid(value)
    if checked.output_json is not None and not checked.recased:
        assert json.loads(checked.output_json) == value
        assert checked.output_json == json.dumps(value, separators=(",", ":"))
