"""Token counts: estimates by a rule, never measured.

A text of n UTF-8 bytes counts ceil(n / 4) tokens, 30 % more on models with the tokenizer of 4.7
and later; an image counts 1,500, a document its bytes / 8 (base64 of mostly layout). A request's
input is its system prompt, turns, tools and output schema plus 8 for the frame. Output counts its
text by the same rule.

Cache: when a block of the prompt carries ``cache_control``, everything up to the last such block
is the prefix. The first request of a batch (in processing order) with a prefix writes it, later
ones read it; the real API promises neither and hits less often.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import msgspec

from batch_etl.emulator.models import Model
from batch_etl.emulator.shared import once

IMAGE_TOKENS = 1_500
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
        return sum(_of_block(block, model) for block in content)
    return _of_json(content, model)


def _of_block(block: Any, model: Model | None) -> int:
    if not isinstance(block, dict):
        return _of_json(block, model)
    match block.get("type"):
        case "text" if isinstance(text := block.get("text"), str):
            return of_text(text, model)
        case "image":
            return IMAGE_TOKENS
        case "document":
            return _of_json(block, model) // 2
        case _:
            return _of_json(block, model)


def _of_json(value: Any, model: Model | None) -> int:
    return of_bytes(len(msgspec.json.encode(value)), model)


@dataclass(frozen=True)
class Prefix:
    """The cached part of a prompt: its tokens, its time to live, and a digest that equal prefixes
    share.
    """

    tokens: int
    ttl: str
    digest: bytes


@dataclass
class PromptCache:
    """Which prefixes a batch has written so far."""

    written: set[bytes] = field(default_factory=set)

    def usage(self, params: dict[str, Any], model: Model | None) -> dict[str, Any]:
        """The input side of ``usage``; ``input_tokens`` excludes what was cached, as the API's
        does.
        """
        total, prefix = of_request(params, model), cached_prefix(params, model)
        writes = reads = 0
        if prefix is not None and prefix.digest in self.written:
            reads = min(prefix.tokens, total)
        elif prefix is not None:
            self.written.add(prefix.digest)
            writes = min(prefix.tokens, total)
        long = writes if prefix is not None and prefix.ttl == "1h" else 0
        return {
            "input_tokens": total - writes - reads,
            "cache_creation_input_tokens": writes,
            "cache_read_input_tokens": reads,
            "cache_creation": {
                "ephemeral_5m_input_tokens": writes - long,
                "ephemeral_1h_input_tokens": long,
            },
        }


def cached_prefix(params: dict[str, Any], model: Model | None) -> Prefix | None:
    """Tools, system, turns, in that order, up to the last block with ``cache_control``."""
    system, messages = params.get("system"), params.get("messages")
    if not _mentions_cache(params.get("tools"), system, messages):
        return None
    blocks = [*_blocks(params.get("tools")), *_blocks(system)]
    for turn in messages if isinstance(messages, list) else []:
        blocks += _blocks(turn.get("content")) if isinstance(turn, dict) else []
    marked = [n for n, block in enumerate(blocks) if isinstance(block.get("cache_control"), dict)]
    if not marked:
        return None
    prefix = blocks[: marked[-1] + 1]
    digest = hashlib.blake2b(msgspec.json.encode([params.get("model"), prefix]), digest_size=16)
    ttl = str(blocks[marked[-1]]["cache_control"].get("ttl", "5m"))
    return Prefix(sum(_of_block(block, model) for block in prefix), ttl, digest.digest())


def _mentions_cache(tools: Any, system: Any, messages: Any) -> bool:
    if isinstance(tools, list) or isinstance(system, list):
        return True
    turns: list[Any] = messages if isinstance(messages, list) else []
    return any(isinstance(turn, dict) and isinstance(turn.get("content"), list) for turn in turns)


def _blocks(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return (
        [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
    )
