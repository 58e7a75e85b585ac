"""SQL text made of untrusted names: every identifier is quoted, every literal escaped."""

from __future__ import annotations

from collections.abc import Mapping

from batch_etl.errors import WarehouseError


def identifier(name: str) -> str:
    """``name`` as a quoted identifier."""
    if not name or "\0" in name:
        raise WarehouseError(
            f"{name!r} cannot be the name of a column: it is empty or holds a NUL character. "
            "Rename it in the source or in the output schema."
        )
    return '"' + name.replace('"', '""') + '"'


def literal(text: str | None) -> str:
    """``text`` as a string literal, or ``NULL``; NUL characters are left out."""
    if text is None:
        return "NULL"
    return "'" + text.replace("\0", "").replace("'", "''") + "'"


def qualified(schema: str, table: str) -> str:
    """``"schema"."table"``."""
    return f"{identifier(schema)}.{identifier(table)}"


def comma(parts: list[str]) -> str:
    """The parts as one comma-separated SQL list."""
    return ", ".join(parts)


def json_object(parts: Mapping[str, str]) -> str:
    """A JSON object of named SQL values; names may be equal when case is ignored."""
    return f"json_object({comma([f'{literal(name)}, {value}' for name, value in parts.items()])})"
