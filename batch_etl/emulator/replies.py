"""Answers from a record and an output schema: deterministic, seeded, always legal, never a model.
Pure.

A schema is compiled once into a tree of small functions; each takes a :class:`Record` and gives a
value and how much the record speaks for it (0: nothing does).

This module reads schemas; what each kind of node answers is in ``answers``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from batch_etl.emulator import answers
from batch_etl.emulator.nodes import Nodes, enum_values, implied_kind
from batch_etl.emulator.records import Record
from batch_etl.emulator.schemas import kinds_of
from batch_etl.emulator.shared import once
from batch_etl.emulator.words import key_of, stem, stems, words_of_name


@once
def compile_schema(schema: dict[str, Any], hints: str = "") -> answers.Answerer:
    """``schema``: one that :func:`schemas.why_refused` lets pass. ``hints``: the system prompt."""
    return _Compiler(schema, hints).node(schema, "answer", "")


def answer(schema: dict[str, Any], record: Record, hints: str = "") -> Any:
    """A value that is valid under ``schema``."""
    return compile_schema(schema, hints)(record)[0]


def extract(record: Record) -> str:
    """What is answered when no schema asks for anything: the record's first sentences."""
    text = " ".join(record.sentences[:2]) or record.text.strip()
    return answers.clip(text, 400) or "(nothing to read)"


class _Compiler:
    """Turns nodes of one schema into answerers; ``name`` and ``about`` are the property's name and
    description.
    """

    def __init__(self, root: dict[str, Any], hints: str) -> None:
        self._nodes = Nodes(root)
        self.hints = _segments(hints)

    def node(self, schema: Any, name: str, about: str) -> answers.Answerer:
        if not isinstance(schema, dict):
            return answers.sentence(name, about)
        schema = self._nodes.flat(schema)
        about = str(schema.get("description") or schema.get("title") or about)
        if "const" in schema:
            return answers.always(schema["const"])
        if "enum" in schema:
            return answers.one_of(self._options(schema, about), name)
        if "anyOf" in schema:
            branches = self._nodes.branches(schema)
            return answers.best_of([self.node(branch, name, about) for branch in branches], name)
        kinds = kinds_of(schema) or [implied_kind(schema)]
        if len(kinds) == 1:
            return self._kind(kinds[0], schema, name, about)
        return answers.best_of([self._kind(kind, schema, name, about) for kind in kinds], name)

    def _kind(  # noqa: PLR0911  a case a kind
        self, kind: str, schema: dict[str, Any], name: str, about: str
    ) -> answers.Answerer:
        match kind:
            case "object":
                return self._object(schema, about)
            case "array":
                return self._array(schema, name, about)
            case "boolean":
                return answers.whether(name, about)
            case "integer" | "number":
                return answers.number(kind, name, about)
            case "null":
                return answers.always(None)
            case _ if "format" in schema:
                return answers.formatted(str(schema["format"]), name)
            case _ if "pattern" in schema:
                return answers.patterned(str(schema["pattern"]), name)
            case _ if key_of(name) in answers.COPY_NAMES:
                return answers.copied
            case _:
                return answers.sentence(name, about)

    def _object(self, schema: dict[str, Any], about: str) -> answers.Answerer:
        required = set(schema.get("required", ()))
        members = [
            (key, key in required, self.node(child, key, "" if key in required else about))
            for key, child in schema.get("properties", {}).items()
        ]

        def build(record: Record) -> answers.Answer:
            found: dict[str, Any] = {}
            total = 0.0
            for key, needed, member in members:
                value, evidence = member(record)
                if needed or evidence > 0:
                    found[key] = value
                    total += evidence
            return found, total

        return build

    def _array(self, schema: dict[str, Any], name: str, about: str) -> answers.Answerer:
        items = self._nodes.flat(schema.get("items") or {})
        about = str(items.get("description") or about)
        least = int(schema.get("minItems", 0))
        if "enum" in items:
            return answers.several_of(self._options(items, about), name, least)
        one = self.node(items, name, about)
        many: Callable[[Record], list[Any]] | None = None
        match kinds_of(items) or [implied_kind(items)]:
            case ["string"] if not items.keys() & {"format", "pattern", "const", "anyOf"}:
                many = (
                    answers.keywords if key_of(name) in answers.KEYWORD_NAMES else answers.sentences
                )
            case ["integer"] if "const" not in items:
                many = answers.whole_numbers
            case ["number"] if "const" not in items:
                many = answers.all_numbers
            case ["object"]:
                many = self._several_objects(items, one)
            case _:
                pass
        return answers.listed(one, many, least)

    def _several_objects(
        self, items: dict[str, Any], one: answers.Answerer
    ) -> Callable[[Record], list[Any]] | None:
        """What lists objects of this kind; None where one object is all that can be said."""
        members = {
            key: self._nodes.flat(child) for key, child in items.get("properties", {}).items()
        }
        plain = all(_is_plain_string(child) for child in members.values())
        if set(members) == {"name", "value"} and plain:
            return answers.named_values
        if rows := answers.table_rows({key: kinds_of(child) for key, child in members.items()}):
            return rows
        enum = next((child for child in members.values() if "enum" in child), None)
        if enum is None:
            return None
        return answers.one_a_value(self._options(enum, str(enum.get("description", ""))), one)

    def _options(self, schema: dict[str, Any], about: str) -> list[answers.Option]:
        """Each enum value with the stems of its name and of what is said about it."""
        segments = [*_segments(about), *self.hints]
        options: list[answers.Option] = []
        for value in enum_values(schema):
            words = words_of_name(str(value))
            said = [part for part in segments if _is_about(part, str(value), words)]
            named = frozenset(stems(words)) or frozenset({stem(words)})
            options.append((value, named, frozenset(stems(" ".join(said))) - named))
        return options


def _segments(text: str) -> list[str]:
    return [
        part.strip()
        for part in re.split(r"[;\n]|\.\s|,\s+(?=[\w\"'`-]+\s*[:=(])", text)
        if part.strip()
    ]


def _is_about(segment: str, value: str, words: str) -> bool:
    """Whether a piece of description speaks of the value: it starts with it, or quotes it."""
    start = segment.lstrip("-*•\"'`0123456789.) ").lower()
    return (
        start.startswith((value.lower(), words.lower()))
        or f'"{value}"' in segment
        or f"`{value}`" in segment
    )


def _is_plain_string(schema: dict[str, Any]) -> bool:
    own = schema.keys() & {"enum", "const", "format", "pattern", "anyOf"}
    return kinds_of(schema) == ["string"] and not own
