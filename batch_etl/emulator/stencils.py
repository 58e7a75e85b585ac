"""Result lines of one frame, printed instead of composed. Pure, but for what it has learned.

All that the answers to a frame's lines have in common is worked out once: the compiled schema, the
tokens of what they share, and the bytes of the result line around its five holes. The stencil is
cut from a line that ``messages.envelope`` composed, so that printed and composed lines are the
same bytes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from batch_etl.emulator import tokens
from batch_etl.emulator.frames import Frame, learn
from batch_etl.emulator.messages import (
    answerer_of,
    envelope,
    model_of,
    text_for,
    thinking_blocks,
    tokens_of_thought,
)
from batch_etl.emulator.prompt_cache import PromptCache
from batch_etl.emulator.records import Record
from batch_etl.emulator.stops import END
from batch_etl.emulator.tool_calls import forced_tool
from batch_etl.emulator.wire import derived_id

MOST_FRAMES = 8
"""Frames looked for in one batch. A batch whose lines have a frame each would learn in vain."""

_encode = msgspec.json.encode
_HOLES = ("<custom_id>", "<id>", "<text>", "<input_tokens>", "<output_tokens>")


class Stencil:
    """Prints the succeeded lines of one frame; what its prompt caches can be read already."""

    def __init__(self, frame: Frame, seed: int, cache: PromptCache) -> None:
        self.frame = frame
        self._seed = seed
        self._model = model_of(frame.params)
        thinking = thinking_blocks(frame.params, self._model)
        self._thought_tokens = tokens_of_thought(thinking, self._model)
        self._most_tokens: int = frame.params["max_tokens"] - self._thought_tokens
        self._stop_sequences: list[str] = frame.params.get("stop_sequences") or []
        self._answerer = answerer_of(frame.params)
        usage = cache.usage(frame.params, self._model)
        self._input_tokens: int = usage["input_tokens"]
        blocks = [*thinking, {"type": "text", "text": "<text>"}]
        usage["input_tokens"] = "<input_tokens>"
        message = envelope(
            self._model, "<id>", blocks, END, usage, "<output_tokens>", self._thought_tokens
        )
        result = {"type": "succeeded", "message": message}
        self._parts = _parts_of(_encode({"custom_id": "<custom_id>", "result": result}) + b"\n")

    def line(self, custom_id: str, text: str, question: bytes) -> bytes | None:
        """The result line for the frame's params with this text; None when ``max_tokens`` or a
        stop sequence cuts the answer.
        """
        answer = text_for(Record(text, self._seed), self._answerer)
        used = tokens.of_text(answer, self._model)
        if used > self._most_tokens or any(stop in answer for stop in self._stop_sequences):
            return None
        before, after_custom_id, after_id, after_text, after_input, after_output = self._parts
        return b"".join(
            (
                before,
                custom_id.encode(),
                after_custom_id,
                derived_id("msg_emulator_", self._seed, custom_id, question).encode(),
                after_id,
                _encode(answer),
                after_text,
                b"%d" % (self._input_tokens + tokens.of_text(text, self._model)),
                after_input,
                b"%d" % (used + self._thought_tokens),
                after_output,
            )
        )


def _parts_of(line: bytes) -> list[bytes]:
    """The line around its holes; those of ids keep their quotes, text and numbers bring theirs."""
    parts: list[bytes] = []
    for hole in _HOLES:
        mark = hole.encode() if hole.endswith("id>") else _encode(hole)
        before, _, line = line.partition(mark)
        parts.append(before)
    return [*parts, line]


class Stencils:
    """The stencils of one batch."""

    def __init__(self, seed: int, cache: PromptCache) -> None:
        self._seed = seed
        self._cache = cache
        self._known: list[Stencil] = []
        self._left = MOST_FRAMES

    def find(self, raw: bytes) -> tuple[Stencil, str] | None:
        """The stencil for these params, and their text."""
        for stencil in self._known:
            text = stencil.frame.text(raw)
            if text is not None:
                return stencil, text
        return None

    def learn(self, raw: bytes, params: dict[str, Any], usage: dict[str, Any]) -> None:
        """Learn from params that were answered (so they err in nothing) with this usage. While
        they still write to the cache, lines differ in more than their texts.
        """
        if not self._left or usage["cache_creation_input_tokens"] or "cache_control" in params:
            return
        self._left -= 1
        frame = learn(raw, params)
        if frame is not None and forced_tool(frame.params) is None:
            self._known.append(Stencil(frame, self._seed, self._cache))
