"""Sets of labels that lie in files of their own: ``enum: {from_file: labels.csv}``.

Whoever owns the labels edits a table, not a pipeline. The file is read when the pipeline is loaded,
and the schema then is the same as if its values had been written there: the same is sent, checked
and fingerprinted, so that a changed file asks again.

    .csv, .tsv     the labels are those of ``column`` (the first, if it is left out); with
                   ``descriptions`` another column says what each of them means
    .yaml, .json   a list of labels, or a mapping of labels to what they mean

What is said of the labels is added to the property's description as ``label: meaning; ...``: so the
model reads it, and so do the column's comment and the data dictionary. Labels are texts, in the
file's order; an empty one and one that comes twice are errors.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pydantic

from batch_etl.batches.schema_keywords import DEFINITIONS, IN_LIST, Json
from batch_etl.batches.schema_place import PlaceError, escape, first_line, nearest
from batch_etl.strict import Strict, explain

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_DOCUMENTS = (".yaml", ".yml", ".json")


class LabelFile(Strict):
    """Where the values of an enum are."""

    from_file: str = pydantic.Field(description="A .csv, .tsv, .yaml or .json file.")
    column: str | None = pydantic.Field(
        default=None, description="CSV, TSV: the column of the labels."
    )
    descriptions: str | None = pydantic.Field(
        default=None, description="CSV, TSV: the column that says what each label means."
    )


def named_in(spec: Mapping[str, Any] | str | None) -> list[str]:
    """The files that an inline schema names, each as it is written there."""
    found: list[str] = []

    def note(node: Json, at: str) -> Json:
        found.append(_label_file(node, at).from_file)
        return node

    if isinstance(spec, Mapping):
        _rewritten(spec, "", note)
    return found


def without_files(spec: Json) -> Json:
    """The schema with each such enum left out: what can be judged before the folder is known."""
    return _rewritten(spec, "", lambda node, _: {k: v for k, v in node.items() if k != "enum"})


def with_labels(spec: Mapping[str, Any], folder: Path) -> Json:
    """The schema with the labels in the place of their files, which are relative to ``folder``.

    Raises :class:`PlaceError` with the file, and its line where there is one.
    """
    return _rewritten(spec, "", lambda node, at: _filled(node, at, folder))


def _rewritten(node: Any, at: str, change: Callable[[Json, str], Json]) -> Any:
    """A copy in which each schema whose enum is a mapping is what ``change`` makes of it."""
    if not isinstance(node, Mapping):
        return node
    schema = dict(cast("Json", node))
    if isinstance(schema.get("enum"), Mapping):
        schema = dict(change(schema, at))
    for keyword in ("properties", *DEFINITIONS):
        members: Any = schema.get(keyword)
        if isinstance(members, Mapping):
            named = cast("Json", members)
            schema[keyword] = {
                name: _rewritten(child, f"{at}/{keyword}/{escape(name)}", change)
                for name, child in named.items()
            }
    if "items" in schema:
        schema["items"] = _rewritten(schema["items"], f"{at}/items", change)
    for keyword in IN_LIST:
        branches: Any = schema.get(keyword)
        if isinstance(branches, list):
            schema[keyword] = [
                _rewritten(child, f"{at}/{keyword}/{n}", change)
                for n, child in enumerate(cast("list[Any]", branches))
            ]
    return schema


def _label_file(node: Json, at: str) -> LabelFile:
    try:
        return LabelFile.model_validate(node["enum"])
    except pydantic.ValidationError as error:
        raise PlaceError(f"{at}/enum", explain(error, "enum")) from None


def _filled(node: Json, at: str, folder: Path) -> Json:
    wanted = _label_file(node, at)
    path = folder / wanted.from_file
    try:
        labels = _checked(_read(path, wanted))
    except _LabelError as fault:
        raise PlaceError(f"{at}/enum", f"{path}: {fault}") from None
    meanings = "; ".join(f"{label}: {meaning}" for label, meaning in labels.items() if meaning)
    said = " ".join(part for part in (node.get("description"), meanings) if part)
    return {**node, "enum": list(labels), **({"description": said} if said else {})}


class _LabelError(Exception):
    """What is wrong with a file, for :func:`_filled` to say of which."""


def _checked(found: Iterator[tuple[str, str]]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for number, (label, meaning) in enumerate(found, 1):
        if not label:
            raise _LabelError(f"label {number} is empty")
        if label in labels:
            raise _LabelError(f"label {number}, {label!r}, is there twice")
        labels[label] = " ".join(meaning.split())
    if not labels:
        raise _LabelError("no labels in it")
    return labels


def _read(path: Path, wanted: LabelFile) -> Iterator[tuple[str, str]]:
    """The labels and what they mean ("" where nothing is said)."""
    kind = path.suffix.lower()
    text = _text(path)
    if kind in _DELIMITERS:
        yield from _table(text, _DELIMITERS[kind], wanted)
    elif kind in _DOCUMENTS:
        if wanted.column or wanted.descriptions:
            raise _LabelError("`column` and `descriptions` are for .csv and .tsv files")
        yield from _document(text)
    else:
        raise _LabelError(f"labels are read from .csv, .tsv, .yaml and .json, not {kind!r}")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        names = [one.name for one in path.parent.glob("*")] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, names, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise _LabelError(f"there is no such file{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise _LabelError(f"cannot be read as UTF-8 text ({error})") from None


def _table(text: str, delimiter: str, wanted: LabelFile) -> Iterator[tuple[str, str]]:
    rows = csv.DictReader(text.splitlines(), delimiter=delimiter, restval="")
    header = list(rows.fieldnames or [])
    if not header:
        raise _LabelError("the first line must name the columns")
    for name in (wanted.column, wanted.descriptions):
        if name is not None and name not in header:
            raise _LabelError(f"there is no column {name!r}{nearest(name, header)}")
    for row in rows:
        said = row[wanted.descriptions] if wanted.descriptions else ""
        yield row[wanted.column or header[0]].strip(), said


def _document(text: str) -> Iterator[tuple[str, str]]:
    import yaml

    try:
        loaded: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise _LabelError(f"is no YAML: {first_line(str(error))}") from None
    entries: list[tuple[Any, Any]]
    if isinstance(loaded, list):
        entries = [(label, "") for label in cast("list[Any]", loaded)]
    elif isinstance(loaded, dict):
        entries = list(cast("dict[Any, Any]", loaded).items())
    else:
        raise _LabelError("must be a list of labels, or a mapping of labels to their meaning")
    for label, meaning in entries:
        if not isinstance(label, str) or not isinstance(meaning, str | None):
            raise _LabelError(f"{label!r}: labels and meanings are texts; put them in quotes")
        yield label.strip(), meaning or ""
