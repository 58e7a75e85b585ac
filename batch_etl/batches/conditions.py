"""Conditions: what an answer must meet beyond its schema, as expressions over record and answer.

    conditions:
      - that: occurs_in(output.quote, text)
        otherwise: "the quote is not in the contract: {{ output.quote }}"
      - that: close_to(sum_of(output.line_items, 'amount'), output.total, 0.01)
        otherwise: the line items do not add up to the total

An expression is Jinja's, in its sandbox, compiled once. It knows ``output`` (the answer), the
record's columns by name or as ``record['Order ID']``, Jinja's filters and tests, and the functions
below. Numbers are exact: 0.1 + 0.2 is 0.3. A null proves nothing and is held to nothing:
``occurs_in`` of a null is true.

An answer that fails is Invalid, with what ``otherwise`` says as its reason, and is asked again with
that reason like one that breaks the schema. An expression that cannot be judged for a record (it
divides by its null) is no fault that the model could mend: the record goes to review at once.

Only columns that the request is made from may be used: an answer is not held to what the model was
not shown, and equal requests have (but for what a template hides) equal inputs. Conditions are no
part of the request: changing one buys nothing again that still holds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple, cast

import jinja2
import jinja2.nodes
import jinja2.sandbox
import pydantic
from pydantic_core import CoreSchema

from batch_etl.batches.template import FAILURES, RECORD
from batch_etl.strict import Strict, did_you_mean

OUTPUT = "output"

_LONGEST_REASON = 500

# functions ---------------------------------------------------------------------------------------


def occurs_in(quote: str | None, text: str | None) -> bool:
    """Whether the quote stands in the text, whatever the white space between words."""
    if quote is None or (text and quote.strip() and quote in text):
        return True
    words = " ".join(quote.split())
    return bool(words) and words in " ".join((text or "").split())


def offsets(quote: str | None, text: str | None) -> list[int] | None:
    """Where the quote first stands in the text: its first character, and the one after its last."""
    words = (quote or "").split()
    if not words or not text:
        return None
    wanted = " ".join(words)
    start = text.find(wanted)
    if start >= 0 and wanted == quote:
        return [start, start + len(wanted)]
    found = re.search(r"\s+".join(map(re.escape, words)), text)
    return list(found.span()) if found else None


def sum_of(items: Iterable[Any] | None, field: str | None = None) -> Decimal:
    """The sum of numbers, or of a field of objects; nulls count nothing."""
    values = (item if field is None else item.get(field) for item in items or ())
    return sum((_exact(value) for value in values if value is not None), Decimal(0))


def close_to(value: Any, other: Any, by: Any = 0) -> bool:
    """Whether two numbers differ by no more than ``by``; a null is held to nothing."""
    if value is None or other is None:
        return True
    return abs(_exact(value) - _exact(other)) <= _exact(by)


_PLACEHOLDER = re.compile(
    r"\{\{.*?\}\}|\$\{[^{}]*\}|\{[^{}\s]*\}|%\([^)\s]+\)[a-zA-Z]|%(?:\d+\$)?[sdif@]"
)
_MARKUP = re.compile(r"</?[A-Za-z][^<>]*>")
_NUMBER = re.compile(r"\d(?:[.,'\u2019\u00a0\u202f]?\d)*")


def placeholders(text: str | None) -> list[str]:
    """``{name}``, ``{{ name }}``, ``${name}``, ``%s``, ``%(name)s``, ``%1$s``, as they stand."""
    return _PLACEHOLDER.findall(text or "")


def markup(text: str | None) -> list[str]:
    """The tags of HTML or XML, as they stand."""
    return _MARKUP.findall(text or "")


def numbers(text: str | None) -> list[str]:
    """The numbers by their digits alone: 1,234.50 and 1.234,50 are both 123450."""
    return [re.sub(r"\D", "", found) for found in _NUMBER.findall(text or "")]


def same_items(items: Iterable[Any] | None, others: Iterable[Any] | None) -> bool:
    """Whether two lists hold the same, each as often, in whatever order."""
    return Counter(map(_hashable, items or ())) == Counter(map(_hashable, others or ()))


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        *(occurs_in, offsets, sum_of, close_to),
        *(placeholders, markup, numbers, same_items),
    )
}


def _exact(value: Any) -> Decimal:
    """A number, or a text that is one."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, str)):
        raise TypeError(f"{value!r} is no number")
    try:
        return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    except InvalidOperation:
        raise ValueError(f"{value!r} is no number") from None


def _hashable(value: Any) -> Any:
    is_mutable = isinstance(value, (list, dict))
    return repr(cast("Any", value)) if is_mutable else value


# the language ------------------------------------------------------------------------------------


class _Language(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Jinja's expressions, where a field is a field (``output.items``) and numbers are exact."""

    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "%", "**"])

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, dict):
            members = cast("dict[str, Any]", obj)
            if attribute in members:
                return members[attribute]
            return self.undefined(obj=members, name=attribute)
        return super().getattr(obj, attribute)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" or (operator == "*" and not (_is_number(left) and _is_number(right))):
            raise TypeError(f"{operator} is for small numbers, and not for these")
        return super().call_binop(context, operator, _plain(left), _plain(right))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, Decimal))


def _plain(value: Any) -> Any:
    return _exact(value) if isinstance(value, float) else value


_LANGUAGE = _Language(undefined=jinja2.StrictUndefined, autoescape=False)
_LANGUAGE.globals.clear()  # pyright: ignore[reportUnknownMemberType]
_LANGUAGE.globals.update(FUNCTIONS)  # pyright: ignore[reportUnknownMemberType]


class _Used(NamedTuple):
    """What an expression or a sentence takes from outside."""

    columns: frozenset[str]
    fields: frozenset[str]
    """Of the answer."""


def _used(tree: jinja2.nodes.Node) -> _Used:
    """Raises ``ValueError`` for a name that cannot be one."""
    columns, fields, told = set[str](), set[str](), set[int]()
    for node in tree.find_all((jinja2.nodes.Getattr, jinja2.nodes.Getitem)):
        name = node.node.name if isinstance(node.node, jinja2.nodes.Name) else None
        part = _constant_part(node)
        if name in (OUTPUT, RECORD) and part is not None:
            (fields if name == OUTPUT else columns).add(part)
            told.add(id(node.node))
    for node in tree.find_all(jinja2.nodes.Name):
        if node.name == RECORD and id(node) not in told:
            raise ValueError("say which column of the record: record['name']")
        if node.ctx == "load" and node.name not in (OUTPUT, RECORD, *FUNCTIONS):
            columns.add(node.name)
    for call in tree.find_all(jinja2.nodes.Call):
        if isinstance(call.node, jinja2.nodes.Name) and call.node.name not in FUNCTIONS:
            near = did_you_mean(call.node.name, [*FUNCTIONS])
            raise ValueError(f"there is no function {call.node.name!r}{near}")
    return _Used(frozenset(columns - _own_names(tree)), frozenset(fields))


def _constant_part(node: jinja2.nodes.Getattr | jinja2.nodes.Getitem) -> str | None:
    if isinstance(node, jinja2.nodes.Getattr):
        return node.attr
    part = node.arg
    return part.value if isinstance(part, jinja2.nodes.Const) and type(part.value) is str else None


def _own_names(tree: jinja2.nodes.Node) -> set[str]:
    """The names that a template gives itself, in a loop say."""
    return {node.name for node in tree.find_all(jinja2.nodes.Name) if node.ctx != "load"}


class Condition(Strict):
    """What must hold of an answer, and what to say where it does not."""

    that: str = pydantic.Field(description="The expression; it holds where it is true.")
    otherwise: str | None = pydantic.Field(
        default=None,
        description="The sentence for the model and for people; a template like the prompt.",
    )

    @pydantic.model_validator(mode="before")
    @classmethod
    def _may_be_the_expression_alone(cls, values: Any) -> Any:
        return {"that": values} if isinstance(values, str) else values

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: pydantic.GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """For editors and ``dg check yaml``: the expression alone will do."""
        return {"anyOf": [{"type": "string"}, handler(core)]}

    @pydantic.field_validator("that", "otherwise")
    @classmethod
    def _parses(cls, source: str | None, told: pydantic.ValidationInfo) -> str | None:
        if source is None:
            return None
        if not source.strip():
            raise ValueError("is empty")
        try:
            if told.field_name == "that":
                _used(_parsed(source))
                _compiled(source)
            else:
                _used(_LANGUAGE.parse(source))
                _LANGUAGE.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise ValueError(f"is no expression that can be read: {error.message}") from None
        return source

    @property
    def used(self) -> _Used:
        """The columns and the answer's fields that it takes."""
        found = [_used(_parsed(self.that))]
        if self.otherwise is not None:
            found.append(_used(_LANGUAGE.parse(self.otherwise)))
        columns = frozenset[str]().union(*(one.columns for one in found))
        return _Used(columns, frozenset[str]().union(*(one.fields for one in found)))


def _parsed(expression: str) -> jinja2.nodes.Node:
    """One expression and nothing else: neither a list of them nor brackets that close others."""
    tree = _LANGUAGE.parse("{{ [" + expression + "\n] }}")
    output = tree.body[0]
    found = output.nodes if isinstance(output, jinja2.nodes.Output) else []
    items = found[0].items if len(found) == 1 and isinstance(found[0], jinja2.nodes.List) else []
    if len(tree.body) != 1 or len(items) != 1 or expression.rstrip().endswith(","):
        raise jinja2.TemplateSyntaxError("one expression is wanted", 1)
    return tree


def _compiled(expression: str) -> Callable[[Mapping[str, Any]], Any]:
    return _LANGUAGE.compile_expression(f"({expression}\n)", undefined_to_none=False)


class Failure(NamedTuple):
    """Why an answer does not meet the conditions."""

    reason: str
    can_be_mended: bool
    """Whether asking again can help: not where a condition could not be judged."""


class Conditions:
    """A task's conditions, compiled."""

    def __init__(self, conditions: Sequence[Condition]) -> None:
        self._compiled = [_Compiled(one) for one in conditions]
        self._all = _compiled(" and ".join(f"({one.that}\n)" for one in conditions))
        self.columns: frozenset[str] = frozenset[str]().union(
            *(one.used.columns for one in conditions)
        )
        """The record's columns that they take."""

    def failure(self, record: Mapping[str, Any], output: Any) -> Failure | None:
        """What an answer to this record fails; None where it meets all. Never raises."""
        values = {**record, RECORD: record, OUTPUT: output}
        if self._all_hold(values):
            return None
        found = [failure for one in self._compiled if (failure := one.failure(values))]
        if not found:
            return None
        reason = "; ".join(one.reason for one in found)
        return Failure(reason, all(one.can_be_mended for one in found))

    def _all_hold(self, values: Mapping[str, Any]) -> bool:
        """As each alone, in half the time."""
        try:
            return bool(self._all(values))
        except FAILURES:
            return False


class _Compiled:
    def __init__(self, condition: Condition) -> None:
        self._that = condition.that
        self._holds = _compiled(condition.that)
        sentence = condition.otherwise
        self._plain = sentence or f"this does not hold: {condition.that.strip()}"
        self._sentence = _LANGUAGE.from_string(sentence) if sentence else None

    def failure(self, values: Mapping[str, Any]) -> Failure | None:
        try:
            if self._holds(values):
                return None
        except FAILURES as error:
            told = error.message if isinstance(error, jinja2.TemplateError) else str(error)
            return Failure(
                _cut(f"it cannot be judged whether {self._that.strip()}: {told}"),
                can_be_mended=False,
            )
        return Failure(_cut(self._said(values)), can_be_mended=True)

    def _said(self, values: Mapping[str, Any]) -> str:
        if self._sentence is None:
            return self._plain
        try:
            return self._sentence.render(values).strip()
        except FAILURES:
            return self._plain


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_REASON else text[: _LONGEST_REASON - 4] + " ..."


def exact(value: Any) -> Any:
    """A record's value with its floats as exact numbers, as an answer's are."""
    if isinstance(value, float):
        return _exact(value)
    if isinstance(value, list):
        return [exact(one) for one in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {key: exact(one) for key, one in cast("dict[str, Any]", value).items()}
    return value
