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
from batch_etl.emulator.records import Record
from batch_etl.emulator.schemas import kinds_of, resolve
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
        self.root = root
        self.hints = _segments(hints)

    def node(self, schema: Any, name: str, about: str) -> answers.Answerer:
        if not isinstance(schema, dict):
            return answers.sentence(name, about)
        schema = self._flat(schema)
        about = str(schema.get("description") or schema.get("title") or about)
        if "const" in schema:
            return answers.always(schema["const"])
        if "enum" in schema:
            return answers.one_of(self._options(schema, about), name)
        if "anyOf" in schema:
            siblings = {key: value for key, value in schema.items() if key != "anyOf"}
            branches = [self._joined([siblings, branch]) for branch in schema["anyOf"]]
            return answers.best_of([self.node(branch, name, about) for branch in branches], name)
        kinds = kinds_of(schema) or [_implied(schema)]
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
        items = self._flat(schema.get("items") or {})
        about = str(items.get("description") or about)
        least = int(schema.get("minItems", 0))
        if "enum" in items:
            return answers.several_of(self._options(items, about), name, least)
        one = self.node(items, name, about)
        many: Callable[[Record], list[Any]] | None = None
        match kinds_of(items) or [_implied(items)]:
            case ["string"] if not items.keys() & {"format", "pattern", "const", "anyOf"}:
                many = (
                    answers.keywords if key_of(name) in answers.KEYWORD_NAMES else answers.sentences
                )
            case ["integer"] if "const" not in items:
                many = answers.whole_numbers
            case ["number"] if "const" not in items:
                many = answers.all_numbers
            case _:
                pass
        return answers.listed(one, many, least)

    def _options(self, schema: dict[str, Any], about: str) -> list[answers.Option]:
        """Each enum value with the stems of its name and of what is said about it."""
        segments = [*_segments(about), *self.hints]
        options: list[answers.Option] = []
        for value in schema["enum"]:
            words = words_of_name(str(value))
            said = [part for part in segments if _is_about(part, str(value), words)]
            named = frozenset(stems(words)) or frozenset({stem(words)})
            options.append((value, named, frozenset(stems(" ".join(said))) - named))
        kinds = kinds_of(schema)
        return [option for option in options if not kinds or _has_kind(option[0], kinds)] or options

    def _flat(self, schema: dict[str, Any]) -> dict[str, Any]:
        """The node with ``$ref`` followed and ``allOf`` merged in."""
        if not isinstance(schema, dict):
            return {}
        if "$ref" in schema:
            target = resolve(str(schema["$ref"]), self.root)
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            return self._joined([self._flat(target or {}), rest])
        if "allOf" in schema:
            rest = {key: value for key, value in schema.items() if key != "allOf"}
            return self._joined([rest, *schema["allOf"]])
        return schema

    def _joined(self, parts: list[Any]) -> dict[str, Any]:
        joined: dict[str, Any] = {}
        for part in parts:
            flat = self._flat(part)
            both = {key: joined[key] for key in ("properties", "required") if key in joined}
            joined = {**joined, **flat}
            if "properties" in both:
                joined["properties"] = {**both["properties"], **flat.get("properties", {})}
            if "required" in both:
                joined["required"] = [*both["required"], *flat.get("required", [])]
        return joined


def _implied(schema: dict[str, Any]) -> str:
    if "properties" in schema:
        return "object"
    return "array" if "items" in schema else "string"


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


def _has_kind(value: Any, kinds: list[Any]) -> bool:
    if isinstance(value, bool):
        return "boolean" in kinds
    if isinstance(value, (int, float)):
        return "number" in kinds or ("integer" in kinds and value == int(value))
    return ("null" if value is None else "string") in kinds
