"""Prompt templates: the fast path says what Jinja says, and the sandbox holds."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import jinja2
import jinja2.sandbox
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_etl.batches.template import Template, _text


def rendered(source: str, *records: dict[str, Any]) -> list[str]:
    columns = list(records[0])
    values = [[record[name] for record in records] for name in columns]
    return list(Template(source).rendering(columns)(values))


def by_jinja(source: str, record: dict[str, Any]) -> str:
    """Jinja's own rendering, with nulls and times as the module promises them."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, finalize=_text
    )
    return environment.from_string(source).render({**record, "record": record})


NAMES = ["a", "b_2", "Ärger", "range", "dict"]
VALUES = (
    st.none()
    | st.text(max_size=20)
    | st.integers()
    | st.floats(allow_nan=False)
    | st.booleans()
    | st.dates()
    | st.datetimes()
    | st.times()
    | st.decimals(allow_nan=False, places=2)
    | st.lists(st.integers(), max_size=2)
)
CONSTANT = st.text(max_size=12).filter(lambda text: not any(mark in text for mark in "{}#%"))
PIECES = st.lists(
    CONSTANT
    | st.sampled_from(NAMES).map(lambda name: "{{ " + name + " }}")
    | st.sampled_from(["{# a note #}", "{{- a }}", "{{ a -}}", "{% raw %}{{ a }}{% endraw %}"])
    | st.sampled_from(["{{ a|string }}", "{{ b_2 or 'none' }}", "{% if a %}yes{% endif %}"]),
    max_size=8,
)


@given(PIECES, st.fixed_dictionaries(dict.fromkeys(NAMES, VALUES)))
def test_a_template_renders_as_jinja_itself_renders_it(pieces, record):
    source = "".join(pieces)
    assert rendered(source, record) == [by_jinja(source, record)]


@pytest.mark.parametrize(
    ("source", "value", "prompt"),
    [
        ("{{ a }}", None, ""),
        ("{{ a }}", "", ""),
        ("{{ a }}", 7, "7"),
        ("{{ a }}", 1.5, "1.5"),
        ("{{ a }}", True, "True"),
        ("{{ a }}", Decimal("1.10"), "1.10"),
        ("{{ a }}", dt.date(2026, 11, 23), "2026-11-23"),
        ("{{ a }}", dt.datetime(2026, 11, 23, 1, 2, tzinfo=dt.UTC), "2026-11-23T01:02:00+00:00"),
        ("{{ a }}", dt.time(1, 2, 3), "01:02:03"),
        ("{{ a }}", "{{ b }}{% raw %}", "{{ b }}{% raw %}"),
        ("{{ a }}", "<b>&amp;</b>", "<b>&amp;</b>"),
        ("{% if a %}yes{% else %}no{% endif %}", None, "no"),
        ("{{ a|upper }}", "grüße", "GRÜSSE"),
        ("{{ a|tojson }}", ["x", 1], '["x", 1]'),
        ("{{ a|default('none', true) }}", None, "none"),
        ("{{ a.city }}", {"city": "Ulm"}, "Ulm"),
        ("{{ a['the city'] }}", {"the city": "Ulm"}, "Ulm"),
        ("{{ a[0] }}-{{ a|length }}", ["x", "y"], "x-2"),
        ("{% for one in a %}[{{ one }}]{% endfor %}", ["x", None], "[x][]"),
        ("{{ record['a'] }}", "x", "x"),
        ("{# nothing but a note #}", "x", ""),
        ("the same for all", "x", "the same for all"),
        ("{% if true %}the same for all{% endif %}", "x", "the same for all"),
        ("a line\n", "x", "a line"),
    ],
)
def test_values_show_in_a_prompt_as_a_reader_expects(source, value, prompt):
    assert rendered(source, {"a": value}) == [prompt]


def test_a_column_whose_name_is_no_identifier_is_read_through_record():
    assert rendered('{{ record["Order ID"] }}', {"Order ID": 5}, {"Order ID": None}) == ["5", ""]


def test_a_column_may_have_the_name_of_one_of_jinjas_globals():
    """Jinja itself lets a variable go before a global."""
    assert rendered("{{ range }}/{{ dict }}", {"range": 3, "dict": "x"}) == ["3/x"]


def test_jinjas_globals_work_and_are_no_fields():
    source = "{% for i in range(2) %}{{ i }}{{ a }}{% endfor %}"
    assert Template(source).fields == {"a"}
    assert rendered(source, {"a": "x"}) == ["0x1x"]


@pytest.mark.parametrize(
    ("source", "fields"),
    [
        ("no field", set()),
        ("{{ a }} {{ b.c }} {{ d|upper }}", {"a", "b", "d"}),
        ("{% for x in xs %}{{ x }}{% endfor %}", {"xs"}),
        ("{% set y = a %}{{ y }}", {"a"}),
        ("{{ record['x'] }} {{ a }}", {"a"}),
    ],
)
def test_the_fields_of_a_template_are_what_it_takes_from_a_record(source, fields):
    assert Template(source).fields == fields


def test_rows_are_rendered_in_order_and_one_by_one():
    prompts = Template("{{ a.b }}").rendering(["a"])([[{"b": 1}, {"b": 2}, {}]])
    assert [next(prompts), next(prompts)] == ["1", "2"]
    with pytest.raises(jinja2.UndefinedError, match="has no attribute 'b'"):
        next(prompts)


@pytest.mark.parametrize(
    "source",
    [
        "{{ a.__class__ }}",
        "{{ a.__class__.__mro__[1].__subclasses__() }}",
        "{{ record.__init__.__globals__ }}",
        "{{ ''['__class__'] }}",
        "{{ a.__len__.__self__ }}",
        "{{ '{0.__class__}'.format(a) }}",
        "{{ a|attr('__class__') }}",
        "{{ xs.append(1) }}",
        "{{ record.update({'a': 1}) }}",
        "{{ record.clear() }}",
    ],
)
def test_the_sandbox_refuses_ways_out_and_changes_of_the_record(source):
    with pytest.raises(jinja2.TemplateError):
        rendered(source, {"a": "text", "xs": [1]})


@pytest.mark.parametrize(
    ("source", "line"),
    [("{{ a", 1), ("first\n{% if a %}\nno end", 2), ("a\nb\n{{ a | nosuchfilter }}", 3)],
)
def test_a_syntax_error_names_its_line(source, line):
    with pytest.raises(jinja2.TemplateSyntaxError) as error:
        Template(source)
    if "no end" not in source:
        assert error.value.lineno == line
