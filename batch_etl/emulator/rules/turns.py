"""Turns and their content: roles, block types, tool calls and their results. Pure.

Of a block only its type and what this emulator reads of it is looked at; which types there are is
the SDK's list (``content_block_param``). A tool call must be answered in the next turn, and only a
call can be answered (messages: R, claude-code issues 8210 and 18947).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from batch_etl.emulator.models import Model

ROLES = ("user", "assistant", "system")
BLOCK_TYPES = frozenset(
    (
        "text", "image", "document", "search_result", "thinking", "redacted_thinking", "tool_use",
        "tool_result", "server_tool_use", "web_search_tool_result", "web_fetch_tool_result",
        "code_execution_tool_result", "bash_code_execution_tool_result",
        "text_editor_code_execution_tool_result", "tool_search_tool_result", "container_upload",
        "mcp_tool_use", "mcp_tool_result", "compaction",
    )
)  # fmt: skip
MEDIA = ("image", "document")
NO_PREFILL = (
    "This model does not support assistant message prefill."
    " The conversation must end with a user message."
)
"""(D) the errors page."""
Block = dict[str, Any]


def check_messages(params: dict[str, Any], model: Model) -> str | None:
    messages = params["messages"]
    if not isinstance(messages, list):
        return "messages: Input should be a valid list"
    if not messages:
        return "messages: at least one message is required"
    for n, turn in enumerate(messages):
        if message := _check_turn(f"messages.{n}", turn):
            return message
    return (
        _check_prefill(params, messages[-1]["role"], model)
        or _check_tool_pairs(messages)
        or (_check_content("system", params["system"]) if "system" in params else None)
    )


def _check_prefill(params: dict[str, Any], last_role: str, model: Model) -> str | None:
    if last_role != "assistant":
        return None
    if not model.prefill:
        return NO_PREFILL
    config = params.get("output_config")
    if isinstance(config, dict) and config.get("format") is not None:  # own words
        return "output_config.format: not supported together with assistant message prefill"
    return None


def _check_turn(where: str, turn: Any) -> str | None:
    if not isinstance(turn, dict):
        return f"{where}: Input should be a valid dictionary or object to extract fields from"
    for name in ("role", "content"):
        if name not in turn:
            return f"{where}.{name}: Field required"
    extra = next((name for name in turn if name not in ("role", "content")), None)
    if extra is not None:
        return f"{where}.{extra}: Extra inputs are not permitted"
    if turn["role"] not in ROLES:
        return f"{where}.role: Input should be 'user', 'assistant' or 'system'"
    return _check_content(f"{where}.content", turn["content"])


def _check_content(where: str, content: Any) -> str | None:
    if isinstance(content, str):
        return None if content.strip() or where == "system" else f"{where}: must be non-empty"
    if not isinstance(content, list):
        return f"{where}: Input should be a valid string or list"
    for n, block in enumerate(content):
        if message := _check_block(f"{where}.{n}", block):
            return message
    return None if content or where == "system" else f"{where}: must be non-empty"


def _check_block(where: str, block: Any) -> str | None:
    kind = block.get("type") if isinstance(block, dict) else None
    if not isinstance(kind, str):
        return f"{where}.type: Field required"
    if kind not in BLOCK_TYPES:  # own words
        return f"{where}: Input tag '{kind}' found using 'type' does not match any expected tag"
    match kind:
        case "text":
            return _check_text(where, block)
        case "tool_use":
            return _check_fields(where, block, id=str, name=str, input=dict)
        case "tool_result":
            return _check_fields(where, block, tool_use_id=str)
        case _:
            return None


def _check_text(where: str, block: Block) -> str | None:
    if not isinstance(block.get("text"), str):
        return f"{where}.text: Field required"
    if not block["text"].strip():  # own words
        return f"{where}.text: text content blocks must be non-empty"
    return None


def _check_fields(where: str, block: Block, **kinds: type) -> str | None:
    missing = next(
        (name for name, kind in kinds.items() if not isinstance(block.get(name), kind)), None
    )
    return f"{where}.{block['type']}.{missing}: Field required" if missing else None


def _check_tool_pairs(messages: list[Any]) -> str | None:
    """Each call is answered in the turn after it, each answer is to a call of the turn before."""
    if all(type(turn["content"]) is str for turn in messages):
        return None
    open_calls: list[str] = []
    for n, turn in enumerate(messages):
        answers = [block["tool_use_id"] for block in _of_type("tool_result", turn)]
        unanswered = [call for call in open_calls if call not in answers]
        if unanswered:
            return _unanswered(n - 1, unanswered)
        unasked = next((answer for answer in answers if answer not in open_calls), None)
        if unasked is not None:
            return (
                f"messages.{n}.content.0: unexpected `tool_use_id` found in `tool_result` blocks:"
                f" {unasked}. Each `tool_result` block must have a corresponding `tool_use` block"
                " in the previous message."
            )
        open_calls = [block["id"] for block in _of_type("tool_use", turn)]
    return _unanswered(len(messages) - 1, open_calls) if open_calls else None


def _unanswered(n: int, calls: list[str]) -> str:
    return (
        f"messages.{n}: `tool_use` ids were found without `tool_result` blocks immediately after:"
        f" {', '.join(calls)}. Each `tool_use` block must have a corresponding `tool_result` block"
        " in the next message."
    )


def _of_type(kind: str, turn: Block) -> list[Block]:
    content = turn["content"]
    return (
        [block for block in content if block["type"] == kind] if isinstance(content, list) else []
    )


def all_blocks(params: dict[str, Any]) -> Iterator[tuple[str, str, Block]]:
    """Every content block of every turn, with its place and role."""
    messages = params.get("messages")
    for n, turn in enumerate(messages if isinstance(messages, list) else []):
        content = turn.get("content") if isinstance(turn, dict) else None
        if isinstance(content, list):
            yield from blocks_of(f"messages.{n}.content", str(turn.get("role")), content)


def blocks_of(where: str, role: str, content: list[Any]) -> Iterator[tuple[str, str, Block]]:
    """The blocks of a content, and those inside of tool results and of documents made of blocks."""
    for n, block in enumerate(content):
        if not isinstance(block, dict):
            continue
        place = f"{where}.{n}"
        yield place, role, block
        inner = block.get("content") if block.get("type") == "tool_result" else None
        source = block.get("source")
        if isinstance(source, dict) and source.get("type") == "content":
            place, inner = f"{place}.source", source.get("content")
        if isinstance(inner, list):
            yield from blocks_of(f"{place}.content", role, inner)


def version_fault(params: dict[str, Any]) -> str | None:
    """What API version 2026-10-21 no longer takes (own words; the rules are the migration
    guide's).
    """
    sampling = next((name for name in ("temperature", "top_p", "top_k") if name in params), None)
    if sampling:
        return f"{sampling}: Extra inputs are not permitted"
    for where, role, block in all_blocks(params):
        if role == "assistant" and block.get("type") == "document":
            return f"{where}: document blocks are not permitted in assistant messages"
        if role == "user" and block.get("type") == "text" and block.get("citations"):
            return f"{where}.citations: citations are not permitted in user messages"
    return None
