"""A spec becomes plain JSON: what the user wrote, or the schema of the type that they named.

A spec is an inline JSON Schema or the dotted path of a pydantic model, a dataclass or a TypedDict.
A path is imported, which runs the user's code: whatever that raises becomes a sentence about the
path, and nothing is imported for an inline schema. YAML gives more than JSON has (dates, sets,
keys that are numbers); such a value is refused by its pointer, never converted on the quiet.
Everything after this module works on ``dict``, ``list``, ``str``, ``int``, ``float``, ``bool`` and
``None`` alone, in a copy that no one else can change.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any, cast

import pydantic

from batch_etl.batches.schema_keywords import Json
from batch_etl.batches.schema_place import PlaceError, escape, first_line, nearest


def read_spec(spec: Mapping[str, Any] | str) -> Json:
    """The schema that an inline mapping or a dotted path stands for; a mapping is copied.

    Raises :class:`PlaceError` for a path that leads to no type, and for values that are not JSON.
    """
    inline = _schema_of_type(spec) if isinstance(spec, str) else spec
    return cast("Json", _plain(inline, "", 0))


def _schema_of_type(path: str) -> Json:
    target = _import_type(path)
    try:
        adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(target)
        return adapter.json_schema()
    except (pydantic.errors.PydanticUserError, TypeError) as error:
        raise PlaceError("", f"{path} has no JSON Schema: {first_line(str(error))}") from None


def _import_type(path: str) -> Any:
    module_name, colon, name = path.partition(":")
    if not colon:
        module_name, _, name = path.rpartition(".")
    if not module_name or not name:
        raise PlaceError("", f"{path!r} is no dotted path: write package.module:Model")
    module = _import_module(module_name, path)
    target: Any = module
    for part in name.split("."):
        if not hasattr(target, part):
            raise PlaceError(
                "", f"module {module_name!r} has no {name!r}{nearest(name, vars(module))}"
            )
        target = getattr(target, part)
    if not _is_schema_type(target):
        raise PlaceError(
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
            raise PlaceError(
                "",
                f"no module {error.name!r} (from {path!r}):"
                " install it, or check the path and the folder you start from",
            ) from None
        raise PlaceError("", f"importing {name!r} failed: {error}") from error
    except Exception as error:
        raise PlaceError(
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
        raise PlaceError(at, "nested more than 200 deep")
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        if value - value != 0:
            raise PlaceError(at, f"{value} is not a JSON number")
        return value
    if isinstance(value, Mapping):
        entries = cast("Mapping[Any, Any]", value)
        return {_key(k, at): _plain(v, f"{at}/{escape(k)}", depth + 1) for k, v in entries.items()}
    if isinstance(value, (list, tuple)):
        items = cast("list[Any]", value)
        return [_plain(v, f"{at}/{i}", depth + 1) for i, v in enumerate(items)]
    raise PlaceError(at, f"{value!r} is a {type(value).__name__}, not JSON; put it in quotes")


def _key(key: Any, at: str) -> str:
    if not isinstance(key, str):
        raise PlaceError(at, f"the key {key!r} is a {type(key).__name__}; put it in quotes")
    return key
