"""A request's params become the message that answers them. Pure, but for the reading of documents.

What the emulator adds to the API's message: ``model`` is ``emulator:`` and the resolved id, ids
begin with ``msg_emulator_``, ``usage`` has ``emulated: true``, and where a part of the asking turn
was not read (the pixels of an image, a scanned page), ``emulated.unread`` says which and why.
"""

from __future__ import annotations

from typing import Any

import msgspec

from batch_etl.emulator import tokens
from batch_etl.emulator.answers import Answerer
from batch_etl.emulator.models import ALIASES, MODELS, Model
from batch_etl.emulator.plainest import plainest
from batch_etl.emulator.records import Record, asking_turn, text_of
from batch_etl.emulator.replies import compile_schema, extract
from batch_etl.emulator.stops import Stop, cut_at
from batch_etl.emulator.tool_calls import call_of, forced_tool

THOUGHT = "Emulated: no model has thought about this."
SIGNATURE = "emulator"
Message = dict[str, Any]
Block = dict[str, Any]


def answer_to(
    params: dict[str, Any], message_id: str, question: bytes, seed: int, usage: dict[str, Any]
) -> Message:
    """The message for params that err in nothing. ``usage``: its input side."""
    model = model_of(params)
    answer, unread = _answer(params, question, seed)
    thinking = thinking_blocks(params, model)
    thought_tokens = tokens_of_thought(thinking, model)
    answer, stop = _stopped(answer, params, model, thought_tokens)
    used = thought_tokens + _tokens_of(answer, model)
    if stop.reason == "max_tokens":
        used = params["max_tokens"]
    message = envelope(model, message_id, [*thinking, answer], stop, usage, used, thought_tokens)
    return {**message, "emulated": {"unread": unread}} if unread else message


def envelope(  # noqa: PLR0917
    model: Model,
    message_id: str,
    content: list[Block],
    stop: Stop,
    usage: dict[str, Any],
    output_tokens: Any,
    thought_tokens: int = 0,
) -> Message:
    """The Message object, its members in the order of the wire."""
    details = {"output_tokens_details": {"thinking_tokens": thought_tokens}}
    return {
        "model": f"emulator:{model.id}",
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "content": content,
        "container": None,
        "stop_reason": stop.reason,
        "stop_sequence": stop.sequence,
        "stop_details": None,
        "usage": {
            **usage,
            "output_tokens": output_tokens,
            **(details if thought_tokens else {}),
            "service_tier": "batch",
            "inference_geo": "not_available",
            "emulated": True,
        },
        "diagnostics": None,
    }


def model_of(params: dict[str, Any]) -> Model:
    name: str = params["model"]
    return MODELS[ALIASES.get(name, name)]


def thinking_blocks(params: dict[str, Any], model: Model) -> list[Block]:
    """What comes before the answer when thinking was asked for. Its text is shown by default up to
    4.6, later only with ``display: summarized``; a model that thinks unasked may also skip it, as
    this one does.
    """
    thinking = params.get("thinking") or {}
    if thinking.get("type") not in ("enabled", "adaptive"):
        return []
    shown = (thinking.get("display") or _display_of(model)) == "summarized"
    return [thinking_block(THOUGHT if shown else "")]


def _display_of(model: Model) -> str:
    return "omitted" if model.dense_tokens else "summarized"


def thinking_block(text: str) -> Block:
    return {"type": "thinking", "thinking": text, "signature": SIGNATURE}


def tokens_of_thought(thinking: list[Block], model: Model) -> int:
    """The same whether it is shown or not: what was thought is billed."""
    return tokens.of_text(THOUGHT, model) if thinking else 0


def answerer_of(params: dict[str, Any]) -> Answerer | None:
    """What makes the JSON that ``output_config`` asks for; None when it asks for none."""
    schema = _schema_of(params)
    return None if schema is None else compile_schema(schema, text_of(params.get("system")))


def _schema_of(params: dict[str, Any]) -> dict[str, Any] | None:
    return ((params.get("output_config") or {}).get("format") or {}).get("schema")


def text_for(record: Record, answerer: Answerer | None) -> str:
    """The answer's text: JSON when there is an ``answerer``, else the record's first sentences."""
    if answerer is None:
        return extract(record)
    return _json(answerer(record)[0])


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _answer(params: dict[str, Any], question: bytes, seed: int) -> tuple[Block, list[Any]]:
    """The answer's block, and what of the asking turn was not read."""
    content = asking_turn(params)
    if isinstance(content, str):
        blank, unread, record = False, list[Any](), Record(content, seed)
    else:
        from batch_etl.emulator.media.reading import read

        reading = read(content)
        blank, unread, record = reading.is_blank, reading.unread, reading.record(seed)
    tool = forced_tool(params)
    if tool is not None:
        hints = text_of(params.get("system"))
        return call_of(tool, record, hints, question, blank=blank), unread
    if not blank:
        return _text(text_for(record, answerer_of(params))), unread
    schema = _schema_of(params)
    return _text(_told(unread) if schema is None else _json(plainest(schema))), unread


def _text(text: str) -> Block:
    return {"type": "text", "text": text}


def _told(unread: list[Any]) -> str:
    """What is answered in prose when nothing could be read."""
    named = "; ".join(f"{one['what']} ({one['why']})" for one in unread)
    return f"(nothing was read: {named})"


def _tokens_of(block: Block, model: Model) -> int:
    return tokens.of_text(
        block["text"] if block["type"] == "text" else _json(block["input"]), model
    )


def _stopped(
    answer: Block, params: dict[str, Any], model: Model, thought_tokens: int
) -> tuple[Block, Stop]:
    """The answer, cut where a stop sequence or ``max_tokens`` ends it."""
    if answer["type"] != "text":
        return answer, Stop("tool_use")
    most = max(0, params["max_tokens"] - thought_tokens)
    text, stop = cut_at(answer["text"], params.get("stop_sequences"), most, model)
    return _text(text), stop
