"""Lines that differ in one string only are read by comparing bytes. Pure.

The requests of one task repeat everything but the text of their one user turn: model, system
prompt, tools and schema come back byte for byte, often ten times as long as the text. A
:class:`Frame` is learned from one line: the bytes before that text and those after it. Every later
line that begins and ends with them, and has exactly one JSON string in between, has the same
params but for that text; nothing else of it needs to be parsed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

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
    canonical JSON with another text.
    """

    prefix: bytes
    suffix: bytes
    params: dict[str, Any]
    digest: bytes

    def text(self, raw: bytes) -> str | None:
        """The user turn of these params; None when they are of another frame, or it is blank
        (which errs).
        """
        start, end = len(self.prefix), len(raw) - len(self.suffix)
        if start >= end or not (raw.startswith(self.prefix) and raw.endswith(self.suffix)):
            return None
        try:
            text = _decode_text(raw[start:end])
        except (msgspec.MsgspecError, UnicodeError):
            return None
        return None if not text or text.isspace() else text

    def params_digest(self, text_json: bytes) -> bytes:
        """What :func:`params_digest` gives for the frame's params with this text."""
        return digest16(self.digest + text_json)


def params_digest(params: Any, raw: bytes) -> bytes:
    """Equal for equal params, whatever their order of members and their spaces.

    Of params with one plain user turn, the frame and the text are digested apart, so that a frame
    is digested once. Params that have no canonical JSON (integers beyond 64 bits) are equal when
    their bytes are.
    """
    try:
        if not _has_one_plain_turn(params):
            return digest16(canonical(params))
        text = params["messages"][0]["content"]
        frame = digest16(canonical(_with_text(params, HOLE)))
        return digest16(frame + msgspec.json.encode(text))
    except (OverflowError, UnicodeError, RecursionError):
        return digest16(raw)


def learn(raw: bytes, params: Any) -> Frame | None:
    """The frame of a line (its params as bytes and decoded); None when it is not so simple.

    What is learned is proved: the bytes with another text between them decode to the same params
    with that text.
    """
    if not _has_one_plain_turn(params) or _HOLE_JSON[1:-1] in raw:
        return None
    content = bytes(_decode_turns(raw).messages[0].content)
    prefix, _, suffix = raw.rpartition(content)
    other = _with_text(params, HOLE)
    try:
        if decode_params(prefix + _HOLE_JSON + suffix) != other:
            return None
        digest = digest16(canonical(other))
    except (msgspec.MsgspecError, UnicodeError, OverflowError, RecursionError):
        return None
    return Frame(prefix, suffix, _with_text(params, ""), digest)


def _has_one_plain_turn(params: Any) -> bool:
    turns = params.get("messages") if isinstance(params, dict) else None
    if not isinstance(turns, list) or len(turns) != 1 or not isinstance(turns[0], dict):
        return False
    turn: dict[str, Any] = turns[0]
    return turn.get("role") == "user" and isinstance(turn.get("content"), str)


def _with_text(params: dict[str, Any], text: str) -> dict[str, Any]:
    return {**params, "messages": [{**params["messages"][0], "content": text}]}
