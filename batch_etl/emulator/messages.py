"""A request's params become the message that answers them. Pure.

What the emulator adds to the API's message: ``model`` is ``emulator:`` and the resolved id, ids
begin with ``msg_emulator_``, ``usage`` has ``emulated: true``.
"""

from __future__ import annotations

from typing import Any

import msgspec

from batch_etl.emulator import tokens
from batch_etl.emulator.answers import Answerer
from batch_etl.emulator.models import ALIASES, MODELS, Model
from batch_etl.emulator.records import Record, asking_turn, text_of
from batch_etl.emulator.replies import compile_schema, extract
from batch_etl.emulator.wire import derived_id

THINKING = {"type": "thinking", "thinking": "", "signature": "emulator"}
Message = dict[str, Any]
Block = dict[str, Any]


def answer_to(
    params: dict[str, Any], message_id: str, question: bytes, seed: int, usage: dict[str, Any]
) -> Message:
    """The message for params that err in nothing. ``usage``: its input side."""
    model = model_of(params)
    content, stop_reason = _content(params, question, seed)
    content, output_tokens, cut = _within(content, params["max_tokens"], model)
    stop_reason = "max_tokens" if cut else stop_reason
    return envelope(model, message_id, content, stop_reason, usage, output_tokens)


def envelope(  # noqa: PLR0917
    model: Model,
    message_id: str,
    content: list[Block],
    stop_reason: str,
    usage: dict[str, Any],
    output_tokens: Any,
) -> Message:
    """The Message object, its members in the order of the wire."""
    return {
        "model": f"emulator:{model.id}",
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "content": content,
        "container": None,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "stop_details": None,
        "usage": {
            **usage,
            "output_tokens": output_tokens,
            "service_tier": "batch",
            "inference_geo": "not_available",
            "emulated": True,
        },
        "diagnostics": None,
    }


def model_of(params: dict[str, Any]) -> Model:
    name: str = params["model"]
    return MODELS[ALIASES.get(name, name)]


def thinking_blocks(params: dict[str, Any]) -> list[Block]:
    """What comes before the answer."""
    thinks = (params.get("thinking") or {}).get("type") in ("enabled", "adaptive")
    return [THINKING] if thinks else []


def answerer_of(params: dict[str, Any]) -> Answerer | None:
    """What makes the JSON that ``output_config`` asks for; None when it asks for none."""
    schema = ((params.get("output_config") or {}).get("format") or {}).get("schema")
    return None if schema is None else compile_schema(schema, text_of(params.get("system")))


def text_for(record: Record, answerer: Answerer | None) -> str:
    """The answer's text: JSON when there is an ``answerer``, else the record's first sentences."""
    if answerer is None:
        return extract(record)
    return msgspec.json.encode(answerer(record)[0]).decode()


def forced_tool(params: dict[str, Any]) -> dict[str, Any] | None:
    """The tool that must be used."""
    choice, offered = params.get("tool_choice") or {}, params.get("tools") or []
    if choice.get("type") == "any" and offered:
        return offered[0]
    if choice.get("type") == "tool":
        return next((tool for tool in offered if tool.get("name") == choice.get("name")), None)
    return None


def _content(params: dict[str, Any], question: bytes, seed: int) -> tuple[list[Block], str]:
    record = Record(text_of(asking_turn(params)), seed)
    blocks, tool = thinking_blocks(params), forced_tool(params)
    if tool is None:
        text = text_for(record, answerer_of(params))
        return [*blocks, {"type": "text", "text": text}], "end_turn"
    schema = tool.get("input_schema") or _ANY_OBJECT
    call = {
        "type": "tool_use",
        "id": derived_id("toolu_emulator_", seed, question),
        "name": tool.get("name"),
        "input": compile_schema(schema, text_of(params.get("system")))(record)[0],
        "caller": {"type": "direct"},
    }
    return [*blocks, call], "tool_use"


_ANY_OBJECT = {"type": "object"}


def _within(content: list[Block], max_tokens: int, model: Model) -> tuple[list[Block], int, bool]:
    """The content, cut where it reaches ``max_tokens``; its tokens; whether it was cut."""
    last = content[-1]
    text = last["text"] if last["type"] == "text" else msgspec.json.encode(last["input"]).decode()
    used = tokens.of_text(text, model)
    if used <= max_tokens or last["type"] != "text":
        return content, used, False
    share = len(text) * max_tokens // used
    return [*content[:-1], {"type": "text", "text": text[:share]}], max_tokens, True
