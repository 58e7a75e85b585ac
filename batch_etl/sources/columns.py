"""One schema over many files, and declared types.

Files of one source may differ in their columns: a missing column is null there. Where two files
give one column different types the wider one serves both (int32 and int64, a number and a null);
types that nothing serves are refused, naming both files, unless both are JSON (then text, see
``jsontext.py``) or ``types`` declares the column.

Declared types convert values exactly or refuse them. An empty text becomes null in every type but
``string``. A time without a zone is UTC; ``timestamp_s`` and ``timestamp_ms`` are whole numbers
since 1970.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute
from pydantic import AfterValidator

from batch_etl.errors import SourceError
from batch_etl.sources.times import UTC_MICROSECONDS, as_times

pc: Any = pyarrow.compute  # its functions are made at import: type checkers see none

_ID_TYPES: tuple[Callable[[pa.DataType], bool], ...] = (
    pa.types.is_string,
    pa.types.is_integer,
    pa.types.is_decimal,
    pa.types.is_date,
    pa.types.is_timestamp,
)

_DECLARED: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "date": pa.date32(),
    "timestamp": UTC_MICROSECONDS,
    "timestamp_s": UTC_MICROSECONDS,
    "timestamp_ms": UTC_MICROSECONDS,
}
_DECIMAL = re.compile(r"decimal\((\d{1,2}), ?(\d{1,2})\)")


def no_column(key: str, name: str, names: list[str], where: str = "") -> SourceError:
    """The complaint that ``name``, given at ``key``, is no column; the nearest one is named."""
    by_folded = {each.casefold(): each for each in names}
    near = get_close_matches(name.casefold(), by_folded, n=1)
    hint = f"; did you mean {by_folded[near[0]]!r}?" if near else "."
    return SourceError(
        f"{key}: there is no column {name!r}{where}{hint} The columns are {', '.join(names)}"
    )


def declared_type(name: str) -> pa.DataType:
    """The Arrow type of a name in ``types``. Raises ValueError that lists the names."""
    if decimal := _DECIMAL.fullmatch(name):
        return pa.decimal128(int(decimal[1]), int(decimal[2]))
    if name not in _DECLARED:
        raise ValueError(f"unknown type {name!r}; known are {', '.join(_DECLARED)}, decimal(18,2)")
    return _DECLARED[name]


def _types_known(types: dict[str, str]) -> dict[str, str]:
    for name in types.values():
        declared_type(name)
    return types


Types = Annotated[dict[str, str], AfterValidator(_types_known)]
"""A source's key ``types``: the declared type of each column by its name."""


def can_identify(kind: pa.DataType) -> bool:
    """Whether a column of this type can be the records' id."""
    return any(is_fit(kind) for is_fit in _ID_TYPES)


def plain(kind: pa.DataType) -> pa.DataType:
    """The type without its encoding: dictionaries and the wide and viewed texts as text."""
    if pa.types.is_dictionary(kind):
        return plain(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    return kind


def wider(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type that holds all values of both unchanged, or None."""
    one, other = plain(one), plain(other)
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    for family in (pa.types.is_signed_integer, pa.types.is_unsigned_integer, pa.types.is_floating):
        if family(one) and family(other):
            return max(one, other, key=lambda kind: kind.bit_width)
    return None


@dataclass(frozen=True)
class FileSchema:
    """The columns of one file as they are there. ``loose``: JSON, where anything can be text."""

    origin: str
    schema: pa.Schema
    loose: bool = False


def unified(files: list[FileSchema], declared: Mapping[str, pa.DataType]) -> pa.Schema:
    """The schema of all files together, columns in order of first appearance.

    Raises SourceError for a column whose types cannot meet, or a declared one that is nowhere.
    """
    kinds: dict[str, tuple[pa.DataType, FileSchema]] = {}
    for file in files:
        for field in file.schema:
            kind = _met(field, file, kinds.get(field.name), field.name in declared)
            kinds[field.name] = (kind, kinds.get(field.name, (kind, file))[1])
    for name in declared:
        if kinds and name not in kinds:
            raise no_column("types", name, list(kinds))
    return pa.schema(
        [(name, declared.get(name, _settled(kind))) for name, (kind, _) in kinds.items()]
    )


def as_read(own: pa.Schema, schema: pa.Schema, declared: Mapping[str, pa.DataType]) -> pa.Schema:
    """What a file's reader shall yield: its own types where a declared one is converted later."""

    def kind(field: pa.Field) -> pa.DataType:
        final = schema.field(field.name).type
        return field.type if field.name in declared and final != pa.string() else final

    return pa.schema([(field.name, kind(field)) for field in own])


def _met(
    field: pa.Field, file: FileSchema, before: tuple[pa.DataType, FileSchema] | None, declared: bool
) -> pa.DataType:
    if before is None or declared:
        return plain(field.type)
    kind, first = before
    met = wider(kind, field.type)
    if met is not None:
        return met
    if first.loose and file.loose:
        return pa.string()
    raise SourceError(
        f"column {field.name!r} is {kind} in {first.origin} but {plain(field.type)} in "
        f"{file.origin}; declare it, for instance types: {{{field.name}: string}}"
    )


def _settled(kind: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_null(kind) else kind


def conform(
    batch: pa.RecordBatch, schema: pa.Schema, types: Mapping[str, str], origin: str, first: int
) -> pa.RecordBatch:
    """The batch in ``schema``: missing columns null, others converted.

    ``first`` is the number of its first row in ``origin``, for errors.
    """
    columns = []
    for field in schema:
        if field.name not in batch.schema.names:
            columns.append(pa.nulls(batch.num_rows, field.type))
            continue
        column = batch.column(field.name)
        if column.type != field.type:
            try:
                column = converted(column, field.type, types.get(field.name, ""))
            except pa.ArrowInvalid as error:
                raise _unfit(column, field, types, origin, first) from error
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def converted(column: pa.Array, kind: pa.DataType, name: str = "") -> pa.Array:
    """Convert exactly. Raises ArrowInvalid where a value has no exact counterpart."""
    column = column.cast(plain(column.type)) if pa.types.is_dictionary(column.type) else column
    is_text = pa.types.is_string(plain(column.type))
    try:
        if is_text and kind != pa.string():
            column = pc.utf8_trim_whitespace(column.cast(pa.string()))
            column = pc.if_else(
                pc.equal(column, pa.scalar("", pa.string())), pa.scalar(None, pa.string()), column
            )
        if name in ("timestamp_s", "timestamp_ms"):
            unit = name.removeprefix("timestamp_")
            return column.cast(pa.int64()).cast(pa.timestamp(unit, "UTC")).cast(kind)
        if kind == UTC_MICROSECONDS:
            return _all_known(column, as_times(column))
        if pa.types.is_decimal(kind) and pa.types.is_integer(column.type):
            column = column.cast(pa.decimal128(min(38, 20 + kind.scale), kind.scale))
        if pa.types.is_date(kind) and is_text:
            return column.cast(kind)
        return column.cast(kind)
    except (pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise pa.ArrowInvalid(str(error)) from error


def _all_known(column: pa.Array, times: pa.Array) -> pa.Array:
    if times.null_count != column.null_count:
        raise pa.ArrowInvalid("not a time")
    return times


def _unfit(
    column: pa.Array, field: pa.Field, types: Mapping[str, str], origin: str, first: int
) -> SourceError:
    wanted = types.get(field.name, str(field.type))
    for row in range(len(column)):
        try:
            converted(column.slice(row, 1), field.type, types.get(field.name, ""))
        except pa.ArrowInvalid:
            value = repr(column[row].as_py())
            shown = value if len(value) <= 60 else value[:57] + "..."
            return SourceError(
                f"{origin} record {first + row}: {field.name!r} is {shown}, which is no {wanted}; "
                f"correct it, or declare types: {{{field.name}: string}}"
            )
    return SourceError(f"{origin}: column {field.name!r} cannot be read as {wanted}")
