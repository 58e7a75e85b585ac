"""Conditions: what their functions say, what they refuse at load, and that they never raise."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_etl.batches.answer_text import decode_exactly
from batch_etl.batches.conditions import (
    FUNCTIONS,
    Condition,
    Conditions,
    Failure,
    close_to,
    markup,
    numbers,
    occurs_in,
    offsets,
    placeholders,
    same_items,
    sum_of,
)
from batch_etl.batches.task import Task
from batch_etl.errors import ConfigError
from batch_etl_tests.batches.engine import task

INVOICE = (
    '{"items": [{"amount": 0.1}, {"amount": 0.2}, {"amount": null}], "total": 0.3, "note": null}'
)


def failure(*conditions: Any, output: Any = None, **record: Any) -> Failure | None:
    known = [Condition.model_validate(one) for one in conditions]
    return Conditions(known).failure(record, decode_exactly(output or INVOICE))


# functions


@pytest.mark.parametrize(
    ("quote", "text", "found"),
    [
        ("the quick fox", "So the  quick\nfox ran", [3, 17]),
        ("the quick fox", "the quick fox", [0, 13]),
        (" the quick ", "the quick", [0, 9]),
        ("a.b", "axb", None),
        ("The", "the", None),
        ("", "text", None),
        ("x", "", None),
        ("x", None, None),
    ],
)
def test_a_quote_is_found_whatever_the_white_space_between_its_words(quote, text, found):
    assert offsets(quote, text) == found
    assert occurs_in(quote, text) == (found is not None)


def test_a_quote_that_is_not_given_proves_nothing_and_is_held_to_nothing():
    assert occurs_in(None, "text")
    assert offsets(None, "text") is None


@given(st.lists(st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1), min_size=1))
def test_every_run_of_words_of_a_text_occurs_in_it(words):
    text = "\n".join(words)
    for end in range(1, len(words) + 1):
        quote = " ".join(words[:end])
        assert occurs_in(quote, text)
        start, after = offsets(quote, text) or (0, 0)
        assert text[start:after].split() == quote.split()


def test_sums_are_exact_and_pass_over_nulls():
    assert sum_of([{"x": Decimal("0.1")}, {"x": 0.2}, {"x": None}, {}], "x") == Decimal("0.3")
    assert sum_of([1, "2.50", None]) == Decimal("3.50")
    assert sum_of(None) == 0
    with pytest.raises(ValueError, match="'x' is no number"):
        sum_of(["x"])
    with pytest.raises(TypeError, match="True is no number"):
        sum_of([True])


@pytest.mark.parametrize(
    ("value", "other", "by", "close"),
    [
        (0.3, Decimal("0.3"), 0, True),
        (Decimal("0.31"), 0.3, 0.01, True),
        (Decimal("0.311"), 0.3, 0.01, False),
        ("1.5", 1.5, 0, True),
        (None, 5, 0, True),
        (5, None, 0, True),
    ],
)
def test_numbers_are_close_by_what_is_allowed(value, other, by, close):
    assert close_to(value, other, by) is close


def test_placeholders_markup_and_numbers_are_found_as_they_stand():
    text = "Hi {name}, {{ x }} ${y} %s %(n)d %1$s 5% {} <b>no</b><br/> a < b > c"
    assert placeholders(text) == ["{name}", "{{ x }}", "${y}", "%s", "%(n)d", "%1$s", "{}"]
    assert markup(text) == ["<b>", "</b>", "<br/>"]
    assert numbers("1,234.50 and 1.234,50, 7. 1\u202f000 v2") == [
        "123450",
        "123450",
        "7",
        "1000",
        "2",
    ]
    assert (placeholders(None), markup(None), numbers(None)) == ([], [], [])


def test_items_are_the_same_in_any_order_and_as_often():
    assert same_items(["a", "b", "a"], ["b", "a", "a"])
    assert not same_items(["a", "b", "a"], ["b", "b", "a"])
    assert same_items([{"x": 1}, [1]], [[1], {"x": 1}])
    assert same_items(None, [])


# what they say


def test_a_condition_that_holds_says_nothing():
    assert failure("close_to(sum_of(output.items, 'amount'), output.total)") is None


def test_numbers_of_an_answer_and_of_a_record_are_exact():
    assert failure("output.items[0].amount + output.items[1].amount == output.total") is None
    record = {"paid": 0.1}
    from batch_etl.batches.conditions import exact

    assert failure("paid + 0.2 == output.total", **exact(record)) is None


def test_a_field_is_a_field_even_where_a_mapping_has_a_method_of_its_name():
    assert failure("output.items|length == 3") is None
    assert failure("output['items']|length == 3") is None


def test_what_fails_says_its_own_sentence_filled_in():
    sentence = "the items come to {{ sum_of(output.items, 'amount') }}, not to {{ asked }}"
    found = failure({"that": "output.total == asked", "otherwise": sentence}, asked=5)
    assert found == Failure("the items come to 0.3, not to 5", can_be_mended=True)


def test_without_a_sentence_the_expression_is_told():
    assert failure("output.total > 1") == Failure(
        "this does not hold: output.total > 1", can_be_mended=True
    )


def test_all_that_fails_is_told_at_once():
    found = failure("output.total > 1", "output.total > 0", {"that": "false", "otherwise": "no"})
    assert found == Failure("this does not hold: output.total > 1; no", can_be_mended=True)


def test_a_sentence_that_cannot_be_filled_in_is_told_as_it_is():
    found = failure({"that": "false", "otherwise": "{{ 1 / 0 }}"})
    assert found == Failure("{{ 1 / 0 }}", can_be_mended=True)


def test_a_long_reason_is_cut():
    found = failure({"that": "false", "otherwise": "{{ text }}"}, text="x" * 9_000)
    assert found is not None
    assert len(found.reason) == 500


@pytest.mark.parametrize(
    "expression",
    [
        "output.total / n > 0",
        "output.nothing > 0",
        "text.nothing",
        "text + 1 > 0",
        "2 ** 99999999 > 0",
        "('x' * 999999999)|length > 0",
        "output.note > 1",
        "output.__class__.__mro__",
        "text.__class__",
        "sum_of(text) > 0",
        "[1][5] == 1",
    ],
)
def test_what_cannot_be_judged_is_told_and_is_no_fault_that_asking_again_mends(expression):
    found = failure(expression, n=0, text="abc")
    assert found is not None
    assert found.can_be_mended is False
    assert found.reason.startswith(f"it cannot be judged whether {expression}: ")


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.decimals(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(_VALUES, _VALUES)
def test_no_answer_and_no_record_make_a_condition_raise(output, value):
    known = [
        f"{name}(output, record['v'])" if name in ("occurs_in", "offsets", "same_items") else
        f"{name}(output) == record.v"
        for name in FUNCTIONS
        if name != "close_to"
    ]  # fmt: skip
    known += ["close_to(output, v, 1)", "output.x == v", "output + v > 0", "v in output"]
    Conditions([Condition(that=one) for one in known]).failure({"v": value}, output)


# at load


REFUSED = [
    (["output."], ["task.conditions.0.that: is no expression that can be read"]),
    ([{"that": "true"}, "a b"], ["task.conditions.1.that: is no expression"]),
    ([""], ["conditions.0.that: is empty"]),
    (["occurs(output.sentiment, text)"], ["there is no function 'occurs'", "'occurs_in'"]),
    (["text == output.sentimant"],
     ["conditions.0: output.sentimant is no property of output_schema; did you mean 'sentiment'"]),
    ([{"that": "true", "otherwise": "{{ output.x }}"}], ["output.x is no property"]),
    ([{"that": "true", "otherwise": "{{ output."}], ["conditions.0.otherwise: is no expression"]),
    ([{"that": "true", "else": "x"}], ["unknown key 'else'"]),
    (["record|length > 2"], ["say which column of the record"]),
    (["range(3)"], ["there is no function 'range'"]),
    ([{"that": "true", "otherwise": "{{ text|nofilter }}"}], ["otherwise: is no", "nofilter"]),
    (["text|nofilter"], ["conditions.0.that: is no expression", "nofilter"]),
    (["x }} {{ y"], ["is no expression"]),
    (["text) or (text"], ["is no expression"]),
    (["text, text"], ["one expression is wanted"]),
    (["text,"], ["one expression is wanted"]),
    (["text] + [text"], ["one expression is wanted"]),
]  # fmt: skip


@pytest.mark.parametrize(("conditions", "words"), REFUSED)
def test_a_condition_that_cannot_work_is_refused_at_load_with_its_place(conditions, words):
    with pytest.raises(ConfigError) as error:
        task(conditions=conditions)
    for word in words:
        assert word in str(error.value)


def test_the_columns_and_fields_that_a_condition_takes_are_known_at_load():
    condition = Condition(
        that="text and record['Order ID'] and record.b and output.x and output['y'] and [1]|length",
        otherwise="{% for one in items %}{{ one }}{% endfor %}{{ c }}{{ output.z }}",
    )
    assert condition.used.columns == {"text", "Order ID", "b", "items", "c"}
    assert condition.used.fields == {"x", "y", "z"}


def test_editors_and_dg_take_the_expression_alone_too():
    import jsonschema_rs

    whole = jsonschema_rs.validator_for(Task.model_json_schema())
    known = {"claude_model": "m", "max_tokens": 1, "prompt": "x"}
    for one in ("text", {"that": "text", "otherwise": "x"}):
        assert whole.is_valid({**known, "conditions": [one]})
    assert not whole.is_valid({**known, "conditions": [{"than": "text"}]})


def test_conditions_are_not_in_the_tasks_fingerprint():
    assert task(conditions=["text"]).fingerprint == task().fingerprint
