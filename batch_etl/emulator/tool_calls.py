"""Tool calls: which tool must be used, and an input that its schema allows. Pure.

Only a forced tool is used; under ``auto`` the emulator answers in text, as a model may.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from batch_etl.emulator.plainest import plainest
from batch_etl.emulator.records import Record
from batch_etl.emulator.replies import compile_schema
from batch_etl.emulator.rules.tools import is_custom
from batch_etl.emulator.shared import once
from batch_etl.emulator.wire import derived_id


def forced_tool(params: dict[str, Any]) -> dict[str, Any] | None:
    """The tool that must be used: the one that is named, or for ``any`` the first that has a
    schema.
    """
    choice, offered = params.get("tool_choice") or {}, params.get("tools") or []
    if choice.get("type") == "any" and offered:
        return next((tool for tool in offered if is_custom(tool)), offered[0])
    if choice.get("type") == "tool":
        return next((tool for tool in offered if tool.get("name") == choice.get("name")), None)
    return None


def call_of(
    tool: dict[str, Any], record: Record, hints: str, question: bytes, *, blank: bool
) -> dict[str, Any]:
    """The ``tool_use`` block. ``blank``: nothing could be read, so its input is the plainest."""
    schema = tool.get("input_schema") or {"type": "object"}
    return {
        "type": "tool_use",
        "id": derived_id("toolu_emulator_", record.seed, question),
        "name": tool.get("name"),
        "input": plainest(schema) if blank else input_for(schema, record, hints),
        "caller": {"type": "direct"},
    }


def input_for(schema: dict[str, Any], record: Record, hints: str) -> Any:
    """Made from the record where that is legal, else the plainest value."""
    try:
        made = compile_schema(schema, hints)(record)[0]
        if _check(schema)(made):
            return made
    except (RecursionError, ValueError, KeyError, TypeError):
        pass  # a schema beyond what output_config takes; tools may have such
    return plainest(schema)


@once
def _check(schema: dict[str, Any]) -> Callable[[Any], bool]:
    import jsonschema_rs

    return jsonschema_rs.validator_for(schema, validate_formats=True).is_valid
