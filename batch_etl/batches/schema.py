"""The output schema: what an answer must look like, said three times.

    source     what the user wrote (or their pydantic model's JSON Schema), descriptions and all;
               ``resolved`` is the same with every ``$ref`` replaced by what it names
    api        what is sent as ``output_config.format.schema``: only what the API's grammar takes
    enforced   what an answer is held to here: all constraints, and no property that is not named

The API's grammar knows types, enums, ``anyOf``, ``required`` and a few string formats; it wants
``additionalProperties: false`` on every object and knows no recursion, no lengths, no ranges, no
patterns (claude-batches-api.md section 5; the keyword list is that of the structured-outputs page,
read through third parties, and of the SDK's own transform). A keyword it does not know is *moved*:
left out of ``api``, told to the model at the end of the description ("(at most 80 characters)"),
and still enforced here. What can neither be sent nor moved is refused at load, by JSON pointer.

An answer's text becomes JSON by these rules, in order:

1. The whole text is one JSON value (white space and a byte order mark around it do not count).
2. Exactly one fenced block (three backticks, any language) holds one JSON value.
3. Exactly one outermost ``{...}`` in the prose is a JSON object.

``NaN``, ``Infinity``, comments, trailing commas, numbers beyond a double and half surrogates are
not JSON. An object that names a key twice is refused, because readers differ on which one counts.
What is handed on is the model's own text without the white space between tokens: numbers and
escapes stay as written (``1.10`` stays ``1.10``). The API does not promise the casing of enum
values, so an answer that fails only there is given the schema's casing.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Self, TypeAlias, cast

import jsonschema_rs
import msgspec
import pydantic

from batch_etl.errors import ConfigError
from batch_etl.strict import did_you_mean

Json: TypeAlias = dict[str, Any]

_MAX_PROBLEMS = 20
_MAX_PROBLEM_CHARS = 300
_MAX_NODES = 20_000
_MAX_UNCLOSED_BRACES = 4

_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "integer": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and v == int(v),
    "number": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
}

API_FORMATS = frozenset(
    ["date", "time", "date-time", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"]
)
"""String formats that the API's grammar takes."""

_KEPT = frozenset(["type", "enum", "const", "required", "title", "description", "default"])
_ANNOTATIONS = frozenset(
    (
        *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"),
        *("discriminator", "$comment", "$schema", "$id"),
    )
)
_DEFINITIONS = ("$defs", "definitions")
_REFUSED = {
    "patternProperties": "name the properties, or answer with an array of {key, value} objects",
    "prefixItems": "answer with an object whose properties have names",
    "unevaluatedProperties": "drop it: no object may have properties that are not named",
    "unevaluatedItems": "drop it, and say in items what the array holds",
    "$dynamicRef": "use $ref to #/$defs/NAME",
    "$dynamicAnchor": "use $ref to #/$defs/NAME",
    "$anchor": "use $ref to #/$defs/NAME",
    "$vocabulary": "drop it",
    "nullable": 'write type: [string, "null"] instead',
}


def _count(noun: str, words: str) -> Callable[[Any], str]:
    return lambda n: f"{words} {n} {noun}{'' if n == 1 else 's'}"


def _as_json(keyword: str) -> Callable[[Any], str]:
    return lambda value: f"{keyword}: {json.dumps(value, ensure_ascii=False)}"


_LOCAL_ONLY = (
    *("not", "if", "then", "else", "contains", "minContains", "maxContains", "propertyNames"),
    *("dependentRequired", "dependentSchemas", "contentEncoding", "contentMediaType"),
)

_HINTS: dict[str, Callable[[Any], str]] = {
    "minLength": _count("character", "at least"),
    "maxLength": _count("character", "at most"),
    "pattern": lambda v: f"matching the pattern {v}",
    "format": lambda v: f"in the format {v}",
    "minimum": lambda v: f"{v} or more",
    "maximum": lambda v: f"{v} or less",
    "exclusiveMinimum": lambda v: f"more than {v}",
    "exclusiveMaximum": lambda v: f"less than {v}",
    "multipleOf": lambda v: f"a multiple of {v}",
    "minItems": _count("item", "at least"),
    "maxItems": _count("item", "at most"),
    "uniqueItems": lambda v: "without duplicates" if v else "",
    "minProperties": _count("key", "at least"),
    "maxProperties": _count("key", "at most"),
    **{key: _as_json(key) for key in _LOCAL_ONLY},
}
_KNOWN = (
    _KEPT
    | _ANNOTATIONS
    | _HINTS.keys()
    | _REFUSED.keys()
    | {"$ref", "properties", "items", "anyOf", "oneOf", "allOf", "additionalProperties"}
    | set(_DEFINITIONS)
)


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

    @classmethod
    def load(cls, spec: Mapping[str, Any] | str, where: str) -> Self:
        """Check a schema and derive its forms.

        ``spec`` is an inline JSON Schema (2020-12) or the dotted path of a pydantic model, a
        dataclass or a TypedDict (``package.module:Model`` or ``package.module.Model``). ``where``
        names the place in the user's file; :class:`ConfigError` leads with it.
        """
        try:
            inline = _schema_of_type(spec) if isinstance(spec, str) else spec
            source = cast("Json", _plain(inline, "", 0))
            _check_is_schema(source)
            for pointer, node in _nodes(source, ""):
                _check_node(node, pointer)
            resolved = cast("Json", _Resolver(source).resolved)
            if resolved.get("type") != "object":
                raise _PlaceError(
                    "/type", "the root must be an object: type: object, with properties"
                )
            return cls._derived(source, resolved)
        except _PlaceError as fault:
            raise ConfigError(f"{where}: {fault}") from None

    @classmethod
    def _derived(cls, source: Json, resolved: Json) -> Self:
        enforced = _enforced(resolved)
        try:
            validator = jsonschema_rs.Draft202012Validator(
                enforced, validate_formats=True, offline=True
            )
        except jsonschema_rs.ValidationError as error:
            raise _PlaceError(_pointer(error.instance_path), _first_line(error.message)) from None
        return cls(source, resolved, _api(resolved), enforced, validator, _has_enums(resolved))

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
            problems.append(_sentence(_pointer(error.instance_path), error.message))
        return tuple(problems)

    def check_text(self, text: str) -> Checked:
        """Parse and judge one answer's text; never raises, whatever the text."""
        try:
            value = _decode(text)
            if self._validator.is_valid(value):
                encoded = _encode(value)  # equal bytes: compact, numbers as written, no key twice
                if encoded == text.encode():
                    return Checked(text)
                compact = msgspec.json.format(text, indent=-1)
                if encoded == compact.encode():
                    return Checked(compact)
        except _NOT_JSON:
            pass
        return self._check_closely(text)

    def _check_closely(self, text: str) -> Checked:
        try:
            found = _find_json(text)
            if isinstance(found, str):
                return Checked(None, (found,))
            return self._judge(found.compact, found.value, found.extracted)
        except _NOT_JSON as error:
            return Checked(None, (_sentence("", f"the answer cannot be read: {error}"),))

    def _judge(self, compact: str, value: Any, extracted: bool) -> Checked:
        if self._validator.is_valid(value):
            return Checked(compact, (), extracted)
        if self._has_enums:
            exact = _recase(self.resolved, _decode_exactly(compact))
            if self._validator.is_valid(exact):
                return Checked(_encode_exactly(exact).decode(), (), extracted, recased=True)
        return Checked(None, self.validate(value), extracted)


# Loading: a spec becomes plain JSON data


class _PlaceError(Exception):
    """A refused place of the schema; ``load`` puts the setting's name before it."""

    def __init__(self, pointer: str, message: str) -> None:
        super().__init__(f"at {pointer}: {message}" if pointer else message)


def _schema_of_type(path: str) -> Json:
    target = _import_type(path)
    try:
        adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(target)
        return adapter.json_schema()
    except (pydantic.errors.PydanticUserError, TypeError) as error:
        raise _PlaceError("", f"{path} has no JSON Schema: {_first_line(str(error))}") from None


def _import_type(path: str) -> Any:
    module_name, colon, name = path.partition(":")
    if not colon:
        module_name, _, name = path.rpartition(".")
    if not module_name or not name:
        raise _PlaceError("", f"{path!r} is no dotted path: write package.module:Model")
    module = _import_module(module_name, path)
    target: Any = module
    for part in name.split("."):
        if not hasattr(target, part):
            raise _PlaceError(
                "", f"module {module_name!r} has no {name!r}{_nearest(name, vars(module))}"
            )
        target = getattr(target, part)
    if not _is_schema_type(target):
        raise _PlaceError(
            "",
            f"{path} is {_kind(target)}, not a pydantic model:"
            " name a BaseModel, a dataclass or a TypedDict",
        )
    return target


def _import_module(name: str, path: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise _PlaceError(
                "",
                f"no module {error.name!r} (from {path!r}):"
                " install it, or check the path and the folder you start from",
            ) from None
        raise _PlaceError("", f"importing {name!r} failed: {error}") from error
    except Exception as error:
        raise _PlaceError(
            "", f"importing {name!r} failed: {type(error).__name__}: {error}"
        ) from error


def _is_schema_type(target: Any) -> bool:
    if not isinstance(target, type):
        return False
    candidate = cast("type[Any]", target)
    return (
        issubclass(candidate, pydantic.BaseModel)
        or dataclasses.is_dataclass(candidate)
        or hasattr(candidate, "__required_keys__")  # a TypedDict, from typing or its extensions
    )


def _kind(target: Any) -> str:
    return f"class {target.__name__}" if isinstance(target, type) else f"a {type(target).__name__}"


def _plain(value: Any, at: str, depth: int) -> Any:
    """A deep copy as plain JSON data; YAML's other values (dates, sets) are refused by pointer."""
    if depth > 200:
        raise _PlaceError(at, "nested more than 200 deep")
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        if value - value != 0:
            raise _PlaceError(at, f"{value} is not a JSON number")
        return value
    if isinstance(value, Mapping):
        entries = cast("Mapping[Any, Any]", value)
        return {_key(k, at): _plain(v, f"{at}/{_escape(k)}", depth + 1) for k, v in entries.items()}
    if isinstance(value, (list, tuple)):
        items = cast("list[Any]", value)
        return [_plain(v, f"{at}/{i}", depth + 1) for i, v in enumerate(items)]
    raise _PlaceError(at, f"{value!r} is a {type(value).__name__}, not JSON; put it in quotes")


def _key(key: Any, at: str) -> str:
    if not isinstance(key, str):
        raise _PlaceError(at, f"the key {key!r} is a {type(key).__name__}; put it in quotes")
    return key


# Load-time checks, each on one node of the source


def _check_is_schema(source: Any) -> None:
    if not isinstance(source, dict) or not source:
        raise _PlaceError(
            "", "the schema is empty or not a mapping: write type: object and properties"
        )
    schema = cast("Json", source) | {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    try:
        jsonschema_rs.meta.validate(schema)
    except jsonschema_rs.ValidationError as error:
        at = _pointer(error.instance_path)
        if error.instance_path and error.instance_path[-1] == "type":
            raise _PlaceError(
                at, f"unknown type {error.instance!r}: use {', '.join(_TYPES)}"
            ) from None
        raise _PlaceError(at, f"not a JSON Schema: {_first_line(error.message)}") from None


def _nodes(node: Any, at: str) -> Iterator[tuple[str, Json]]:
    """Every subschema that describes a part of the answer, with its JSON pointer."""
    if not isinstance(node, dict):
        raise _PlaceError(at, f"{json.dumps(node)} is no description of a value: give it a type")
    schema = cast("Json", node)
    yield at, schema
    for keyword in ("properties", *_DEFINITIONS):
        for name, child in schema.get(keyword, {}).items():
            yield from _nodes(child, f"{at}/{keyword}/{_escape(name)}")
    if "items" in schema:
        yield from _nodes(schema["items"], f"{at}/items")
    for keyword in ("anyOf", "oneOf", "allOf"):
        for index, child in enumerate(schema.get(keyword, ())):
            yield from _nodes(child, f"{at}/{keyword}/{index}")


def _check_node(node: Json, at: str) -> None:
    _check_keywords(node, at)
    _check_reference(node, at)
    _check_described(node, at)
    _check_object(node, at)
    _check_literals(node, at)


def _check_keywords(node: Json, at: str) -> None:
    for keyword in node:
        if keyword in _REFUSED:
            raise _PlaceError(_at(at, keyword), f"the API does not take it; {_REFUSED[keyword]}")
        if keyword not in _KNOWN and not keyword.startswith("x-"):
            raise _PlaceError(_at(at, keyword), f"unknown keyword{_nearest(keyword, _KNOWN)}")
    if len(node.get("allOf", "1")) != 1:
        raise _PlaceError(f"{at}/allOf", "merge its members into one schema: objects are closed")


def _check_reference(node: Json, at: str) -> None:
    if "$ref" not in node:
        return
    reference: str = node["$ref"]
    if not reference.startswith("#"):
        raise _PlaceError(f"{at}/$ref", f"{reference!r} is outside this schema: copy it into $defs")
    if not re.fullmatch(r"#/(\$defs|definitions)/[^/]+", reference):
        raise _PlaceError(f"{at}/$ref", f"{reference!r}: only #/$defs/NAME can be referred to")
    extra = node.keys() - _ANNOTATIONS - {"$ref", *_DEFINITIONS}
    if extra:
        raise _PlaceError(f"{at}/$ref", f"move {', '.join(sorted(extra))} into what it refers to")


def _check_described(node: Json, at: str) -> None:
    ways = ("type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref")
    if not any(way in node for way in ways):
        raise _PlaceError(at or "/", "has no type: give it type, enum, const, anyOf or $ref")
    if "array" in _types(node) and "items" not in node:
        raise _PlaceError(at, "an array must say what its items are: add items")
    branches = [way for way in ("anyOf", "oneOf", "allOf") if way in node]
    if branches and "properties" in node:
        raise _PlaceError(
            _at(at, branches[0]), "beside properties: make each alternative a whole object"
        )


def _check_object(node: Json, at: str) -> None:
    if "object" not in _types(node):
        if "properties" in node:
            raise _PlaceError(at or "/", "has properties but not type: object")
        return
    if node.get("additionalProperties", False) is not False:
        raise _PlaceError(
            f"{at}/additionalProperties",
            "the API takes only false; name the properties, or answer with an array of"
            " {key, value} objects",
        )
    if not node.get("properties"):
        raise _PlaceError(at or "/", "an object without properties can only be answered with {}")
    for index, name in enumerate(node.get("required", ())):
        if name not in node["properties"]:
            near = did_you_mean(name, list(node["properties"]))
            raise _PlaceError(f"{at}/required/{index}", f"no property is called {name!r}{near}")


def _check_literals(node: Json, at: str) -> None:
    if node.get("enum") == []:
        raise _PlaceError(f"{at}/enum", "is empty: no answer could be valid")
    places = [(f"{at}/enum/{i}", value) for i, value in enumerate(node.get("enum", ()))]
    places += [(f"{at}/const", node["const"])] if "const" in node else []
    types = _types(node)
    for place, value in places:
        if isinstance(value, (dict, list)):
            raise _PlaceError(place, "only strings, numbers, booleans and null can be listed")
        if types and not any(_TYPES[name](value) for name in types):
            quotes = "; put it in quotes" if types == ["string"] else ""
            raise _PlaceError(
                place, f"{json.dumps(value)} is not of type {' or '.join(types)}{quotes}"
            )


def _types(node: Json) -> list[str]:
    types: Any = node.get("type", [])
    return [types] if isinstance(types, str) else cast("list[str]", types)


# References: replaced by what they name


class _Resolver:
    """Replace every ``$ref`` by its target, refusing recursion and exponential growth."""

    def __init__(self, source: Json) -> None:
        self._source = source
        self._nodes = 0
        root = {key: value for key, value in source.items() if key not in _DEFINITIONS}
        self.resolved = self._resolve(root, "", ())

    def _resolve(self, node: Any, at: str, trail: tuple[str, ...]) -> Any:
        if not isinstance(node, dict):
            return node
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            raise _PlaceError(
                at, f"more than {_MAX_NODES} parts once its references are written out"
            )
        schema = cast("Json", node)
        if "$ref" in schema:
            return self._follow(schema, at, trail)
        return _unwrap(_mapped(schema, lambda child, step: self._resolve(child, at + step, trail)))

    def _follow(self, schema: Json, at: str, trail: tuple[str, ...]) -> Any:
        reference: str = schema["$ref"]
        if reference in trail:
            circle = " -> ".join((*trail[trail.index(reference) :], reference))
            raise _PlaceError(f"{at}/$ref", f"is recursive ({circle}), which the API does not take")
        keyword, name = reference[2:].split("/")
        definitions = self._source.get(keyword, {})
        name = name.replace("~1", "/").replace("~0", "~")
        if name not in definitions:
            raise _PlaceError(
                f"{at}/$ref", f"{reference!r} names nothing{did_you_mean(name, list(definitions))}"
            )
        target = self._resolve(definitions[name], reference[1:], (*trail, reference))
        return target | {k: v for k, v in schema.items() if k not in ("$ref", *_DEFINITIONS)}


_BY_NAME = ("properties", "dependentSchemas")
_IN_LIST = ("anyOf", "oneOf", "allOf")
_SINGLE = ("items", "not", "if", "then", "else", "contains", "propertyNames")


def _mapped(node: Json, change: Callable[[Any, str], Any]) -> Json:
    """A copy of the node with each of its subschemas changed; ``change`` also gets the step."""
    copy: Json = {}
    for key, value in node.items():
        if key in _BY_NAME:
            copy[key] = {k: change(v, f"/{key}/{_escape(k)}") for k, v in value.items()}
        elif key in _IN_LIST:
            copy[key] = [change(v, f"/{key}/{i}") for i, v in enumerate(value)]
        elif key in _SINGLE:
            copy[key] = change(value, f"/{key}")
        else:
            copy[key] = value
    return copy


def _unwrap(node: Json) -> Json:
    """``allOf`` of one member (an old way to describe a reference) is that member."""
    if "allOf" not in node or not (node.keys() - {"allOf"} <= _ANNOTATIONS):
        return node
    return node["allOf"][0] | {key: value for key, value in node.items() if key != "allOf"}


# The two derived forms


def _api(node: Json) -> Json:
    """The legal form of a resolved node: unknown keywords become a hint in the description."""
    legal: Json = {}
    hints: list[str] = []
    for key, value in node.items():
        if key in _KEPT:
            legal[key] = value
        elif key == "properties":
            legal[key] = {name: _api(child) for name, child in value.items()}
        elif key == "items":
            legal[key] = _api(value)
        elif key in _IN_LIST:
            legal["allOf" if key == "allOf" else "anyOf"] = [_api(child) for child in value]
        elif _is_legal(node, key, value):
            legal[key] = value
        elif key in _HINTS:
            hints.append(_HINTS[key](value))
    if "object" in _types(node):
        legal["additionalProperties"] = False
    return _with_hints(legal, [hint for hint in hints if hint])


def _is_legal(node: Json, key: str, value: Any) -> bool:
    if key == "format":
        return value in API_FORMATS and "string" in _types(node)
    return key == "minItems" and value in (0, 1)


def _with_hints(legal: Json, hints: list[str]) -> Json:
    if hints:
        described = f"{legal.get('description', '')} ({', '.join(hints)})"
        legal["description"] = described.strip()
    return legal


def _enforced(node: Any) -> Any:
    """What is validated: every constraint, objects closed as in ``api``, no annotations."""
    closed: Json = {}
    for key, value in node.items():
        if key == "properties":
            closed[key] = {name: _enforced(child) for name, child in value.items()}
        elif key == "items":
            closed[key] = _enforced(value)
        elif key in _IN_LIST:
            closed[key] = [_enforced(child) for child in value]
        elif key not in _ANNOTATIONS and not key.startswith("x-"):
            closed[key] = value
    if "object" in _types(node):
        closed["additionalProperties"] = False
    return closed


# Enum casing


def _branches(node: Json) -> Iterator[Json]:
    yield node
    for keyword in _IN_LIST:
        for child in node.get(keyword, ()):
            yield from _branches(child)


def _has_enums(node: Json) -> bool:
    for branch in _branches(node):
        if any(isinstance(value, str) for value in _literals(branch)):
            return True
        children = [*branch.get("properties", {}).values(), *_items(branch)]
        if any(_has_enums(child) for child in children):
            return True
    return False


def _items(node: Json) -> list[Json]:
    return [node["items"]] if "items" in node else []


def _literals(node: Json) -> list[Any]:
    return [*node.get("enum", ()), *([node["const"]] if "const" in node else ())]


def _recase(node: Json, value: Any) -> Any:
    """The value with each string that meets exactly one enum value but for case written so."""
    if isinstance(value, str):
        literals = [x for branch in _branches(node) for x in _literals(branch)]
        return _recased(value, [x for x in literals if isinstance(x, str)])
    cased: Any = value
    for branch in _branches(node):
        if isinstance(value, list) and "items" in branch:
            cased = _recase_items(branch["items"], cast("list[Any]", cased))
        elif isinstance(value, dict) and "properties" in branch:
            cased = _recase_properties(branch["properties"], cast("Json", cased))
    return cased


def _recase_items(items: Json, values: list[Any]) -> list[Any]:
    return [_recase(items, value) for value in values]


def _recase_properties(properties: Json, value: Json) -> Json:
    return {k: _recase(properties[k], v) if k in properties else v for k, v in value.items()}


def _recased(value: str, literals: list[str]) -> str:
    if value in literals:
        return value
    folded = value.casefold()
    matches = {literal for literal in literals if literal.casefold() == folded}
    return matches.pop() if len(matches) == 1 else value


# From an answer's text to JSON


class _Found(msgspec.Struct, frozen=True):
    value: Any
    compact: str
    extracted: bool = False


_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_decode_exactly = msgspec.json.Decoder(float_hook=Decimal).decode
_encode_exactly = msgspec.json.Encoder(decimal_format="number").encode
_NOT_JSON = (msgspec.MsgspecError, ValueError, RecursionError)

_FENCE = re.compile(r"```[^\n`]*\n(.*?)```", re.DOTALL)
_TOKEN_IN_OBJECT = re.compile(r'"(?:[^"\\]|\\.)*"|[{}]', re.DOTALL)


def _find_json(text: str) -> _Found | str:
    """The one JSON value of the text, or a sentence that says why there is none."""
    whole = text.strip().strip("\ufeff").strip()
    if not whole:
        return "the answer is empty"
    try:
        return _parsed(whole, extracted=False)
    except _RepeatedKeyError as repeated:
        return str(repeated)
    except _NOT_JSON as error:
        return _extract(whole) or _sentence("", f"the answer is not JSON: {error}")


def _extract(text: str) -> _Found | str | None:
    for candidates in (_FENCE.findall(text), list(_outermost_objects(text))):
        try:
            found = [value for value in map(_parsed_or_none, candidates) if value is not None]
        except _RepeatedKeyError as repeated:
            return str(repeated)
        if len(found) > 1:
            return f"the answer holds {len(found)} JSON values where one was asked for"
        if found:
            return found[0]
    return None


def _parsed_or_none(text: str) -> _Found | None:
    try:
        return _parsed(text, extracted=True)
    except _RepeatedKeyError:
        raise
    except _NOT_JSON:
        return None


def _parsed(text: str, *, extracted: bool) -> _Found:
    value = _decode(text)
    compact = msgspec.json.format(text, indent=-1)
    if _encode(value) != compact.encode():
        json.loads(text, object_pairs_hook=_refuse_repeated, parse_int=str)
    return _Found(value, compact, extracted)


class _RepeatedKeyError(ValueError):
    """An object names a key twice."""


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise _RepeatedKeyError(
                _sentence("", f"an object names the key {json.dumps(key)} twice")
            )
        seen.add(key)


def _outermost_objects(text: str) -> Iterator[str]:
    """Each balanced ``{...}`` that is in no other; braces in strings do not count. Linear time."""
    start, unclosed = text.find("{"), 0
    while start >= 0 and unclosed < _MAX_UNCLOSED_BRACES:
        end = _closing_brace(text, start)
        if end < 0:
            unclosed += 1
            end = start + 1
        else:
            yield text[start:end]
        start = text.find("{", end)


def _closing_brace(text: str, start: int) -> int:
    depth = 0
    for token in _TOKEN_IN_OBJECT.finditer(text, start):
        if token[0] == "{":
            depth += 1
        elif token[0] == "}":
            depth -= 1
            if depth == 0:
                return token.end()
    return -1


# Words


def _escape(name: object) -> str:
    return str(name).replace("~", "~0").replace("/", "~1")


def _pointer(path: list[str | int]) -> str:
    return "".join(f"/{_escape(step)}" for step in path)


def _at(pointer: str, keyword: str) -> str:
    return f"{pointer}/{_escape(keyword)}"


def _sentence(pointer: str, message: str) -> str:
    sentence = f"{pointer}: {message}" if pointer else message
    if len(sentence) <= _MAX_PROBLEM_CHARS:
        return sentence
    half = (_MAX_PROBLEM_CHARS - 5) // 2
    return f"{sentence[:half]} ... {sentence[-half:]}"


def _first_line(message: str) -> str:
    return message.partition("\n")[0]


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""
