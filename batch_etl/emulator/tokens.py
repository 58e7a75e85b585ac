"""Token counts: estimates by a rule, never measured.

A text of n UTF-8 bytes counts ceil(n / 4) tokens, 30 % more on models with the tokenizer of 4.7
and later. An image counts one token for each patch of 28 x 28 pixels, after it was scaled down to
what the model takes (``media.images``); a page of a PDF 1,600 and its text; an image or document
that is not here (a URL, a file id) 1,500. A request's input is its system prompt, turns, tools and
output schema plus 8 for the frame. Output counts its text by the same rule.
"""

from __future__ import annotations

from typing import Any

import msgspec

from batch_etl.emulator.models import Model
from batch_etl.emulator.shared import once

FRAME_TOKENS = 8


def of_bytes(size_bytes: int, model: Model | None) -> int:
    tokens = -(-size_bytes // 4)
    return -(-tokens * 13 // 10) if model is not None and model.dense_tokens else tokens


def of_text(text: str, model: Model | None) -> int:
    return of_bytes(len(text) if text.isascii() else len(text.encode(errors="replace")), model)


def of_request(params: dict[str, Any], model: Model | None) -> int:
    """Input tokens of the whole request."""
    parts = [params.get(name) for name in ("system", "tools", "output_config")]
    total = sum(_of_shared(part, model) for part in parts if part is not None) + FRAME_TOKENS
    messages = params.get("messages")
    if isinstance(messages, list):
        total += sum(
            _of_content(turn.get("content"), model) for turn in messages if isinstance(turn, dict)
        )
    return total


@once
def _of_shared(part: Any, model: Model | None) -> int:
    return _of_content(part, model)


def _of_content(content: Any, model: Model | None) -> int:
    if content is None:
        return 0
    if isinstance(content, str):
        return of_text(content, model)
    if isinstance(content, list):
        return sum(of_block(block, model) for block in content)
    return _of_json(content, model)


def of_block(block: Any, model: Model | None) -> int:
    """Tokens of one block of a turn or system prompt, or of one tool."""
    if not isinstance(block, dict):
        return _of_json(block, model)
    match block.get("type"):
        case "text" if isinstance(text := block.get("text"), str):
            return of_text(text, model)
        case "image":
            return _of_image(block, model)
        case "document":
            return _of_document(block, model)
        case "tool_result":
            return _of_content(block.get("content"), model)
        case _:
            return _of_json(block, model)


def _of_image(block: dict[str, Any], model: Model | None) -> int:
    from batch_etl.emulator.media.blocks import ELSEWHERE_TOKENS, picture_of
    from batch_etl.emulator.media.images import visual_tokens

    picture = picture_of(block)
    if picture is None:
        return ELSEWHERE_TOKENS
    return visual_tokens(picture, large=model is not None and model.dense_tokens)


def _of_document(block: dict[str, Any], model: Model | None) -> int:
    from batch_etl.emulator.media.blocks import ELSEWHERE_TOKENS, pdf_of
    from batch_etl.emulator.media.pdfs import PAGE_TOKENS

    about = sum(of_text(str(block.get(name) or ""), model) for name in ("title", "context"))
    source: dict[str, Any] = block.get("source") or {}
    match source.get("type"):
        case "text":
            return about + of_text(str(source.get("data", "")), model)
        case "content":
            return about + _of_content(source.get("content"), model)
        case "base64":
            pdf = pdf_of(block)
            pages = pdf.pages if pdf is not None else ()
            return about + sum(PAGE_TOKENS + of_text(page, model) for page in pages)
        case _:
            return about + ELSEWHERE_TOKENS


def _of_json(value: Any, model: Model | None) -> int:
    return of_bytes(len(msgspec.json.encode(value)), model)
