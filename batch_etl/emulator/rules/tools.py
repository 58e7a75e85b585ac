"""Tool definitions and ``tool_choice``. Pure.

Tools with a ``type`` other than ``custom`` are the vendor's (``bash_20250124``,
``web_search_20250305``): they bring no schema of ours and are let pass by name. Rules: the pages
on defining tools and on structured outputs (D).
"""

from __future__ import annotations

import re
from typing import Any

from batch_etl.emulator import schemas
from batch_etl.emulator.models import Model
from batch_etl.emulator.shared import once

NAME_PATTERN = "^[a-zA-Z0-9_-]{1,64}$"
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
MOST_STRICT = 20
CHOICES = ("auto", "any", "tool", "none")


def check_tools(params: dict[str, Any], model: Model) -> str | None:
    tools = params.get("tools")
    message = None if tools is None else _check_definitions(tools)
    if message or params.get("tool_choice") is None:
        return message
    return _check_choice(params["tool_choice"], tools or [], model) or _check_with_thinking(params)


@once
def _check_definitions(tools: Any) -> str | None:
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        return "tools: Input should be a valid list"
    for n, tool in enumerate(tools):
        if message := _check_definition(f"tools.{n}", tool):
            return message
    names = [tool.get("name") for tool in tools if tool.get("name") is not None]
    if len(set(names)) < len(names):  # own words
        return "tools: Tool names must be unique."
    if sum(bool(tool.get("strict")) for tool in tools) > MOST_STRICT:  # own words
        return f"tools: at most {MOST_STRICT} tools may be strict"
    return None


def is_custom(tool: dict[str, Any]) -> bool:
    """Whether the tool is the caller's own, with a schema."""
    return tool.get("type") in (None, "custom")


def _check_definition(where: str, tool: dict[str, Any]) -> str | None:
    if not is_custom(tool):
        return None
    for name in ("name", "input_schema"):
        if name not in tool:
            return f"{where}.custom.{name}: Field required"
    if not isinstance(tool["name"], str) or _NAME.fullmatch(tool["name"]) is None:
        return f"{where}.custom.name: String should match pattern '{NAME_PATTERN}'"
    return _check_schema(f"{where}.custom.input_schema", tool)


def _check_schema(where: str, tool: dict[str, Any]) -> str | None:
    schema = tool["input_schema"]
    if not isinstance(schema, dict):
        return f"{where}: Input should be a valid dictionary"
    if schema.get("type") != "object":
        return f"{where}.type: " + (
            "Input should be 'object'" if "type" in schema else "Field required"
        )
    refused = schemas.why_not_compiled(schema) if tool.get("strict") else None
    return f"{where}{refused.removeprefix('schema')}" if refused else None


def _check_choice(choice: Any, tools: list[dict[str, Any]], model: Model) -> str | None:
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind not in CHOICES:
        return "tool_choice.type: Input should be 'auto', 'any', 'tool' or 'none'"
    if kind in ("any", "tool") and not model.forced_tools:  # own words
        return f"tool_choice: forced tool use ('{kind}') is not supported for this model"
    if kind == "tool" and choice.get("name") not in [tool.get("name") for tool in tools]:
        return f"Tool '{choice.get('name')}' not found in provided tools"  # (C)
    if kind == "any" and not tools:  # own words
        return "tool_choice: may only be specified while providing `tools`."
    return None


def _check_with_thinking(params: dict[str, Any]) -> str | None:
    """Forced use is refused with manual thinking, not with adaptive (D, the thinking page)."""
    thinking = params.get("thinking") or {}
    if thinking.get("type") == "enabled" and params["tool_choice"]["type"] in ("any", "tool"):
        return "Thinking may not be enabled when tool_choice forces tool use."  # (R) mastra 7507
    return None
