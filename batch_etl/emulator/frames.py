"""Lines that differ in one string only are read by comparing bytes. Pure.

The requests of one task repeat everything but the text of their last turn: model, system prompt,
tools, schema and examples (few-shot turns) come back byte for byte, often ten times as long as the
text. A :class:`Frame` is learned from one line: the bytes before that text and those after it.
Every later line that begins and ends with them, and has exactly one JSON string in between, has the
same params but for that text; nothing else of it needs to be parsed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from batch_etl.emulator.records import complains
from batch_etl.emulator.shared import canonical, decode_params, digest16

HOLE = "a text that the emulator puts where the lines of a frame differ"
_HOLE_JSON = msgspec.json.encode(HOLE)
_decode_text = msgspec.json.Decoder(str).decode


class _Turn(msgspec.Struct):
    content: msgspec.Raw


class _Turns(msgspec.Struct):
    messages: list[_Turn]


_decode_turns = msgspec.json.Decoder(_Turns).decode


@dataclass(frozen=True)
class Frame:
    """What lines have in common. ``params``: decoded, with an empty text; ``digest``: of their
    canonical JSON with another text; ``has_examples``: there are turns before the last.
    """

    prefix: bytes
    suffix: bytes
    params: dict[str, Any]
    digest: bytes
    has_examples: bool = False

    def text(self, raw: bytes) -> str | None:
        """The last turn of these params; None when they are of another frame, or it is blank
        (which errs), or it complains of an answer (then an earlier turn is the one that asks).
        """
        start, end = len(self.prefix), len(raw) - len(self.suffix)
        if start >= end or not (raw.startswith(self.prefix) and raw.endswith(self.suffix)):
            return None
        try:
            text = _decode_text(raw[start:end])
        except (msgspec.MsgspecError, UnicodeError):
            return None
        if not text or text.isspace() or (self.has_examples and complains(text)):
            return None
        return text

    def params_digest(self, text_json: bytes) -> bytes:
        """What :func:`params_digest` gives for the frame's params with this text."""
        return digest16(self.digest + text_json)


def params_digest(params: Any, raw: bytes) -> bytes:
    """Equal for equal params, whatever their order of members and their spaces.

    Of params whose last turn is a user's plain text, the frame and the text are digested apart, so
    that a frame is digested once. Params that have no canonical JSON (integers beyond 64 bits) are
    equal when their bytes are.
    """
    try:
        if not _ends_with_plain_text(params):
            return digest16(canonical(params))
        text = params["messages"][-1]["content"]
        frame = digest16(canonical(_with_text(params, HOLE)))
        return digest16(frame + msgspec.json.encode(text))
    except (OverflowError, UnicodeError, RecursionError):
        return digest16(raw)


def learn(raw: bytes, params: Any) -> Frame | None:
    """The frame of a line (its params as bytes and decoded); None when it is not so simple.

    What is learned is proved: the bytes with another text between them decode to the same params
    with that text.
    """
    if not _ends_with_plain_text(params) or _HOLE_JSON[1:-1] in raw:
        return None
    turns = _decode_turns(raw).messages
    content = bytes(turns[-1].content)
    prefix, _, suffix = raw.rpartition(content)
    other = _with_text(params, HOLE)
    try:
        if decode_params(prefix + _HOLE_JSON + suffix) != other:
            return None
        digest = digest16(canonical(other))
    except (msgspec.MsgspecError, UnicodeError, OverflowError, RecursionError):
        return None
    return Frame(prefix, suffix, _with_text(params, ""), digest, has_examples=len(turns) > 1)


def _ends_with_plain_text(params: Any) -> bool:
    turns = params.get("messages") if isinstance(params, dict) else None
    if not isinstance(turns, list) or not turns or not isinstance(turns[-1], dict):
        return False
    turn: dict[str, Any] = turns[-1]
    return turn.get("role") == "user" and isinstance(turn.get("content"), str)


def _with_text(params: dict[str, Any], text: str) -> dict[str, Any]:
    *before, last = params["messages"]
    return {**params, "messages": [*before, {**last, "content": text}]}
