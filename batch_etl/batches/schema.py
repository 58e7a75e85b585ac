"""The output schema: what an answer must look like, said three times.

    source     what the user wrote (or their pydantic model's JSON Schema), descriptions and all;
               ``resolved`` is the same with every ``$ref`` replaced by what it names
    api        what is sent as ``output_config.format.schema``: only what the API's grammar takes
    enforced   what an answer is held to here: all constraints, and no property that is not named

The API's grammar knows types, enums, ``anyOf``, ``required`` and a few string formats; it wants
``additionalProperties: false`` on every object and knows no recursion, no lengths, no ranges, no
patterns (docs/batches-api.md, section 5; the keyword list is that of the structured-outputs page,
read through third parties, and of the SDK's own transform). A keyword it does not know is *moved*:
left out of ``api``, told to the model at the end of the description ("(at most 80 characters)"),
and still enforced here. What can neither be sent nor moved is refused at load, by JSON pointer.

How an answer's text becomes JSON, and what is refused on the way, is told in ``answer_text``. The
API does not promise the casing of enum values, so an answer that fails only there is given the
schema's casing.

One module for each step, none of which knows this one:

    schema_source      a spec (inline, or a type's path) becomes plain JSON
    schema_check       what cannot be used is refused
    schema_references  ``$ref`` is replaced
    schema_forms       ``api`` and ``enforced``
    answer_text        an answer's text becomes JSON
    enum_casing        an answer's enum values get the schema's casing
    schema_keywords, schema_place   the words and the places that they all speak of
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import jsonschema_rs
import msgspec

from batch_etl.batches.answer_text import (
    NOT_JSON,
    decode,
    decode_exactly,
    encode,
    encode_exactly,
    find_json,
    written_so,
)
from batch_etl.batches.enum_casing import has_enums, recase
from batch_etl.batches.schema_check import check_schema
from batch_etl.batches.schema_forms import api_form, enforced_form
from batch_etl.batches.schema_keywords import API_FORMATS, Json
from batch_etl.batches.schema_place import PlaceError, first_line, pointer_of, sentence
from batch_etl.batches.schema_references import resolve
from batch_etl.batches.schema_source import read_spec
from batch_etl.errors import ConfigError

__all__ = ["API_FORMATS", "Checked", "OutputSchema"]

_MAX_PROBLEMS = 20


class Checked(msgspec.Struct, frozen=True):
    """What became of one answer's text."""

    output_json: str | None
    """The answer as compact JSON text, numbers as written; None when there are problems."""
    problems: tuple[str, ...] = ()
    """Short sentences led by the JSON pointer of the place; empty when the answer is valid."""
    extracted: bool = False
    """The JSON was found inside other text (a fenced block, or an object in prose)."""
    recased: bool = False
    """Enum values were given the schema's casing."""


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class OutputSchema:
    """A checked output schema, ready to be sent and to judge answers. Made by :meth:`load`."""

    source: Json
    """The user's schema; the warehouse types its columns by it."""
    resolved: Json
    """``source`` without ``$ref`` and definitions: each reference replaced by its target."""
    api: Json
    """The schema to send, in the user's order: ``{"type": "json_schema", "schema": api}``."""
    _enforced: Json
    _validator: jsonschema_rs.Validator
    _has_enums: bool
    tool: str | None = None
    """The tool whose input is the answer; None: the answer is the message's text."""

    @classmethod
    def load(cls, spec: Mapping[str, Any] | str, where: str) -> Self:
        """Check a schema and derive its forms.

        ``spec`` is an inline JSON Schema (2020-12) or the dotted path of a pydantic model, a
        dataclass or a TypedDict (``package.module:Model`` or ``package.module.Model``). ``where``
        names the place in the user's file; :class:`ConfigError` leads with it.
        """
        try:
            source = read_spec(spec)
            check_schema(source)
            resolved = resolve(source)
            if resolved.get("type") != "object":
                raise PlaceError(
                    "/type", "the root must be an object: type: object, with properties"
                )
            return cls._derived(source, resolved)
        except PlaceError as fault:
            raise ConfigError(f"{where}: {fault}") from None

    @classmethod
    def _derived(cls, source: Json, resolved: Json) -> Self:
        enforced = enforced_form(resolved)
        try:
            validator = jsonschema_rs.Draft202012Validator(
                enforced, validate_formats=True, offline=True
            )
        except jsonschema_rs.ValidationError as error:
            raise PlaceError(pointer_of(error.instance_path), first_line(error.message)) from None
        return cls(source, resolved, api_form(resolved), enforced, validator, has_enums(resolved))

    def canonical(self) -> bytes:
        """The bytes to fingerprint: all that is sent and all that is enforced, nothing else.

        Order counts (the model answers in the order of the properties); comments do not.
        """
        return msgspec.json.encode([self.api, self._enforced])

    def is_valid(self, value: Any) -> bool:
        """Whether a decoded answer meets every constraint."""
        return self._validator.is_valid(value)

    def validate(self, value: Any) -> tuple[str, ...]:
        """The problems of a decoded answer, at most 20, each cut at 300 characters."""
        problems: list[str] = []
        for error in self._validator.iter_errors(value):
            if len(problems) == _MAX_PROBLEMS:
                break
            problems.append(sentence(pointer_of(error.instance_path), error.message))
        return tuple(problems)

    def check_text(self, text: str) -> Checked:
        """Parse and judge one answer's text; never raises, whatever the text."""
        try:
            value = decode(text)
            if self._validator.is_valid(value):
                encoded = encode(value)  # equal bytes: compact, numbers as written, no key twice
                if encoded == text.encode():
                    return Checked(text)
                compact = msgspec.json.format(text, indent=-1)
                if written_so(value, text, compact):
                    return Checked(compact)
        except NOT_JSON:
            pass
        return self._check_closely(text)

    def _check_closely(self, text: str) -> Checked:
        try:
            found = find_json(text)
            if isinstance(found, str):
                return Checked(None, (found,))
            return self._judge(found.compact, found.value, found.extracted)
        except NOT_JSON as error:
            return Checked(None, (sentence("", f"the answer cannot be read: {error}"),))

    def _judge(self, compact: str, value: Any, extracted: bool) -> Checked:
        if self._validator.is_valid(value):
            return Checked(compact, (), extracted)
        if self._has_enums:
            exact = recase(self.resolved, decode_exactly(compact))
            if self._validator.is_valid(exact):
                return Checked(encode_exactly(exact).decode(), (), extracted, recased=True)
        return Checked(None, self.validate(value), extracted)
