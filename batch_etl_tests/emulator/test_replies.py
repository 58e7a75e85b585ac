"""Answers: always legal, made of the record's words, the same every time."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_etl.emulator.plainest import plainest
from batch_etl.emulator.records import Record, asking_turn, record_in
from batch_etl.emulator.replies import answer, extract
from batch_etl.emulator.schemas import FORMATS, why_refused

NAMES = ("label", "summary", "email", "is_urgent", "score", "tags", "reason", "total", "when")


def an_object(children: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    def build(properties: dict[str, Any], optional: int) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties)[optional:],
            "additionalProperties": False,
        }

    members = st.dictionaries(st.sampled_from(NAMES), children, max_size=4)
    return st.builds(build, members, st.integers(0, 4))


def described(schema: dict[str, Any], text: str | None) -> dict[str, Any]:
    return schema if text is None else {**schema, "description": text}


WORDS = st.sampled_from([None, "safe: ordinary; flagged: broken", "from 1 to 5", "the e-mail"])
PLAIN_VALUES = st.sampled_from(["safe", "very-bad", "", 1, 2.5, True, None])
LEAVES: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.sampled_from(["string", "integer", "number", "boolean", "null"]).map(lambda k: {"type": k}),
    st.sampled_from(sorted(FORMATS)).map(lambda kind: {"type": "string", "format": kind}),
    st.sampled_from(["^[A-Z]{3}-\\d+$", "^(ja|nein)$", "[^a-z]x+", "^\\w+$"]).map(
        lambda pattern: {"type": "string", "pattern": pattern}
    ),
    st.lists(PLAIN_VALUES, min_size=1, max_size=4).map(lambda values: {"enum": values}),
    PLAIN_VALUES.map(lambda value: {"const": value}),
    st.lists(st.sampled_from(["string", "integer", "null"]), min_size=1, unique=True).map(
        lambda kinds: {"type": kinds}
    ),
)


def nested(children: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of(
        an_object(children),
        st.builds(
            lambda items, least: {"type": "array", "items": items, "minItems": least},
            children,
            st.integers(0, 1),
        ),
        st.lists(children, min_size=1, max_size=3).map(lambda branches: {"anyOf": branches}),
        children.map(lambda child: {"allOf": [child]}),
    )


NODES = st.recursive(st.builds(described, LEAVES, WORDS), nested, max_leaves=12)


def with_definition(schema: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    properties = {**schema["properties"], "one": {"$ref": "#/$defs/shared"}}
    return {**schema, "properties": properties, "$defs": {"shared": shared}}


SCHEMAS = st.one_of(an_object(NODES), st.builds(with_definition, an_object(NODES), NODES))
TEXTS = st.one_of(
    st.text(max_size=200),
    st.sampled_from(
        [
            "",
            "Classify.\n\n<t>email: ann@example.com\nscore: 12\nThe box was broken!</t>",
            "Total: 1,234.50 EUR on 2026-03-04. ABC-12 \U0001f600 \u0645\u0631\u062d",
        ]
    ),
)


@settings(max_examples=150, deadline=None)
@given(SCHEMAS, TEXTS, st.integers(0, 3))
def test_any_answer_is_valid_under_its_schema(schema: Any, text: str, seed: int) -> None:
    assert why_refused(schema) is None
    value = answer(schema, Record(text, seed))
    jsonschema_rs.validator_for(schema, validate_formats=True).validate(value)
    assert answer(schema, Record(text, seed)) == value


@settings(max_examples=150, deadline=None)
@given(SCHEMAS)
def test_the_plainest_value_is_valid_under_its_schema(schema: Any) -> None:
    assert why_refused(schema) is None
    jsonschema_rs.validator_for(schema, validate_formats=True).validate(plainest(schema))


def ask(text: str, **properties: Any) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return answer(schema, Record(text))


MODERATION = {
    "enum": ["safe", "flagged", "escalate"],
    "description": "safe: ordinary talk; flagged: insults, spam, scams; escalate: violent threats",
}


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Moderate.\n\n<post>Stop the insulting spam, you scammer</post>", "flagged"),
        ("Moderate.\n\n<post>He threatened me with violence</post>", "escalate"),
        ("Is it safe, flagged or escalate?\n\n<post>threats of violence</post>", "escalate"),
    ],
)
def test_an_enum_value_is_chosen_by_the_record_s_words(text: str, label: str) -> None:
    assert ask(text, label=MODERATION) == {"label": label}


def test_a_draw_decides_when_no_word_does_and_spreads_over_the_values() -> None:
    drawn = {ask(f"<r>qqq {n}</r>", label=MODERATION)["label"] for n in range(60)}
    assert drawn == {"safe", "flagged", "escalate"}


def test_named_lines_formats_and_numbers_are_found() -> None:
    text = (
        "Read the invoice.\n\n<invoice>Vendor: Acme & Sons\nInvoice no: 77\nDue 2026-03-04\n"
        "write to pay@acme.example\nTotal: 1,240.50\nurgent</invoice>"
    )
    found = ask(
        text,
        vendor={"type": "string"},
        invoice_no={"type": "integer"},
        total={"type": "number"},
        due={"type": "string", "format": "date"},
        contact={"type": "string", "format": "email"},
        is_urgent={"type": "boolean"},
        is_paid={"type": "boolean"},
        phone={"anyOf": [{"type": "string", "format": "uuid"}, {"type": "null"}]},
        severity={"type": "integer", "description": "from 1 to 5"},
    )
    assert 1 <= found.pop("severity") <= 5
    assert found == {
        "vendor": "Acme & Sons",
        "invoice_no": 77,
        "total": 1240.5,
        "due": "2026-03-04",
        "contact": "pay@acme.example",
        "is_urgent": True,
        "is_paid": False,
        "phone": None,
    }


def test_long_whole_numbers_are_copied_to_the_last_digit() -> None:
    whole, long = {"type": "integer"}, 12345678901234567
    row = {"what": {"type": "string"}, "count": whole, "account": whole}
    items = {"type": "object", "properties": row, "required": [*row]}
    found = ask(
        f"<t>account number {long}\nIban: -{long + 2}\nMugs 6 {long + 4}</t>",
        account=whole,
        iban=whole,
        accounts={"type": "array", "items": whole},
        rows={"type": "array", "items": items},
        size={"type": "number"},
    )
    assert found["account"] == long
    assert found["iban"] == -(long + 2)
    assert found["accounts"] == [long, -(long + 2), 6, long + 4]
    assert {"what": "Mugs", "count": 6, "account": long + 4} in found["rows"]
    assert isinstance(found["size"], float)


def test_arrays_hold_what_the_record_speaks_of() -> None:
    kinds = {"enum": ["billing", "shipping", "quality"]}
    found = ask(
        "<t>My bill was wrong and shipping late. I paid 12 and 30.</t>",
        issues={"type": "array", "items": kinds},
        amounts={"type": "array", "items": {"type": "integer"}},
        tags={"type": "array", "items": {"type": "string"}},
    )
    assert set(found["issues"]) == {"shipping"} or set(found["issues"]) == {"billing", "shipping"}
    assert found["amounts"] == [12, 30]
    assert "shipping" in found["tags"]


CLAUSES = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["clause", "quote"],
        "properties": {
            "clause": {
                "type": "string",
                "enum": ["payment", "liability", "renewal"],
                "description": "payment: fees, invoice, payable; liability: liable, damage; "
                "renewal: renews, automatically",
            },
            "quote": {"type": "string", "description": "The words of the contract."},
        },
    },
}


def test_a_list_of_objects_has_one_for_each_value_that_a_sentence_speaks_for() -> None:
    text = "The invoice is payable at once. It rains. It renews automatically. Fees are payable."
    assert ask(f"<t>{text}</t>", clauses=CLAUSES)["clauses"] == [
        {"clause": "payment", "quote": "The invoice is payable at once."},
        {"clause": "renewal", "quote": "It renews automatically."},
    ]
    assert ask("<t>It rains.</t>", clauses=CLAUSES) == {"clauses": []}


def test_a_list_of_names_and_values_is_that_of_the_record_s_lines() -> None:
    pair = {"name": {"type": "string"}, "value": {"type": "string"}}
    items = {"type": "object", "properties": pair, "required": ["name", "value"]}
    found = ask(
        "<t>Kettle\nColour: red\nSize: 2 l\nColour: blue</t>",
        facts={"type": "array", "items": items},
    )
    assert found["facts"] == [
        {"name": "Colour", "value": "red"},
        {"name": "Size", "value": "2 l"},
    ]


def test_a_list_of_texts_with_numbers_is_that_of_the_record_s_rows() -> None:
    number = {"type": "number"}
    row = {"what": {"type": "string"}, "quantity": {"type": "integer"}, "price": number}
    items = {"type": "object", "properties": row, "required": [*row]}
    text = "Vendor: Acme 77\nMug, green  6  14.00\nFreight 1 1,180.5\nTotal: 1,264.50\n3 4 5"
    assert ask(f"<t>{text}</t>", rows={"type": "array", "items": items})["rows"] == [
        {"what": "Mug, green", "quantity": 6, "price": 14.0},
        {"what": "Freight", "quantity": 1, "price": 1180.5},
    ]


def test_a_quote_stands_in_the_record_and_limits_of_the_description_are_kept_to() -> None:
    text = "word " * 100 + "end"
    found = ask(
        f"<t>{text}</t>",
        quote={"type": "string"},
        reason={"type": "string", "description": "Why (at most 30 characters)."},
        translation={"type": "string"},
    )
    assert found["quote"] in text
    assert len(found["reason"]) <= 30
    assert found["translation"] == text


def test_without_a_schema_the_answer_is_taken_from_the_record() -> None:
    record = Record("Summarise.\n\n<doc>The cat sat. The dog ran. The cow slept.</doc>")
    assert extract(record) == "The cat sat. The dog ran."
    assert extract(Record("")) == "(nothing to read)"


@pytest.mark.parametrize(
    ("turn", "record"),
    [
        ("Label this: <t>one two</t> please", "one two"),
        ('Label:\n"""\none\n"""', "one"),
        (
            "Label the text.\n\nA much longer paragraph of text.\n\nNow.",
            "A much longer paragraph of text.",
        ),
        ("Label.\n\nname: Ann\n\nIt broke.", "name: Ann\n\nIt broke."),
        ("only this", "only this"),
    ],
)
def test_the_record_is_told_apart_from_its_instructions(turn: str, record: str) -> None:
    assert record_in(turn) == record


def test_a_repair_turn_asks_about_the_record_before_it_and_few_shot_turns_do_not_matter() -> None:
    def turns(*texts: str) -> dict[str, Any]:
        roles = ("user", "assistant")
        return {"messages": [{"role": roles[n % 2], "content": t} for n, t in enumerate(texts)]}

    assert asking_turn(turns("record")) == "record"
    assert asking_turn(turns("record", "{,", "Your answer is not valid JSON: ...")) == "record"
    assert asking_turn(turns("example", "{}", "record")) == "record"
