"""What of a prompt is read from the cache, and what is written to it: an approximation. Pure, but
for what it has seen.

A block with ``cache_control`` is a mark: everything up to it (tools, then system, then turns) is a
prefix that can be written and read. From the prompt-caching page of August 2026: prefixes shorter
than the model's least are not cached, without an error; an entry lives 5 minutes or an hour from
its last use; a mark finds entries at most 20 blocks back; what is read ends at the highest entry
found (A), one-hour writes go from there to the last one-hour mark (B), five-minute writes from
there to the last mark (C); another model, thinking, effort or tool choice is another prefix.

Time is the approximation. The lines of a batch run side by side, and an entry can be read only
once the first answer has begun: so the first ``CROWD`` lines with a prefix (in the order in which
the batch is processed) all write it, the others read it. What a batch has written or read can be
read by batches created after its end, while it lives. The real API promises nothing of this.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from batch_etl.emulator import tokens
from batch_etl.emulator.models import Model

CROWD = 16
"""Lines that are on their way before the first of them has an answer: a guess."""
LOOK_BACK_BLOCKS = 20
TTL_S = {"5m": 300, "1h": 3_600}
Live = Mapping[bytes, str]
"""Digests of prefixes that can be read, with their time to live."""


class Mark(NamedTuple):
    """A breakpoint: the number of blocks before its end, and its time to live."""

    blocks: int
    ttl: str


class Prefix(NamedTuple):
    digest: bytes
    tokens: int


@dataclass
class PromptCache:
    """What a batch has written and read so far. ``earlier`` gives what can be read from batches
    before it; asked once, when a prompt has a mark.
    """

    earlier: Callable[[], Live] = dict
    touched: dict[bytes, str] = field(default_factory=dict)
    _writes: Counter[bytes] = field(default_factory=Counter)
    _live: Live | None = None

    def usage(self, params: dict[str, Any], model: Model | None) -> dict[str, Any]:
        """The input side of ``usage``; ``input_tokens`` excludes what was cached, as the API's
        does.
        """
        total = tokens.of_request(params, model)
        reads, writes_5m, writes_1h = self._shares(params, model) if marks(params) else (0, 0, 0)
        return {
            "input_tokens": max(0, total - reads - writes_5m - writes_1h),
            "cache_creation_input_tokens": writes_5m + writes_1h,
            "cache_read_input_tokens": reads,
            "cache_creation": {
                "ephemeral_5m_input_tokens": writes_5m,
                "ephemeral_1h_input_tokens": writes_1h,
            },
        }

    def _shares(self, params: dict[str, Any], model: Model | None) -> tuple[int, int, int]:
        """Tokens read, written for 5 minutes, written for an hour."""
        prefixes, found = prefixes_of(params, model)
        least = model.least_cached_tokens if model is not None else 0
        found = [mark for mark in found if prefixes[mark.blocks - 1].tokens >= least]
        if not found:
            return 0, 0, 0
        hit = max((self._highest_hit(prefixes, mark) for mark in found), default=0)
        for mark in found:
            digest = prefixes[mark.blocks - 1].digest
            self.touched[digest] = mark.ttl
            if mark.blocks > hit:
                self._writes[digest] += 1
        a = prefixes[hit - 1].tokens if hit else 0
        ends = {mark.ttl: prefixes[mark.blocks - 1].tokens for mark in found if mark.blocks > hit}
        b = max(a, ends.get("1h", a))
        return a, max(b, ends.get("5m", b)) - b, b - a

    def _highest_hit(self, prefixes: list[Prefix], mark: Mark) -> int:
        """The number of blocks up to the highest entry that the mark finds; 0 for none."""
        least = max(0, mark.blocks - LOOK_BACK_BLOCKS)
        for blocks in range(mark.blocks, least, -1):
            digest = prefixes[blocks - 1].digest
            if self._can_read(digest):
                self.touched.setdefault(digest, self._ttl_of(digest))
                return blocks
        return 0

    def _can_read(self, digest: bytes) -> bool:
        if self._live is None:
            self._live = self.earlier()
        return digest in self._live or self._writes[digest] >= CROWD

    def _ttl_of(self, digest: bytes) -> str:
        return (self._live or {}).get(digest, "5m")


def marks(params: dict[str, Any]) -> list[Any]:
    """Every ``cache_control`` of a request whose turns and tools are in order, as the prompt has
    them; that of the whole request (automatic caching: a mark on the last block) comes last.
    """
    found: list[Any] = []
    for part in (params.get("tools"), params.get("system")):
        if type(part) is list:
            found += _marks_in(part)
    for turn in params["messages"]:
        if type(turn["content"]) is list:
            found += _marks_in(turn["content"])
    if params.get("cache_control") is not None:
        found.append(params["cache_control"])
    return found


def _marks_in(blocks: list[dict[str, Any]]) -> list[Any]:
    return [block["cache_control"] for block in blocks if block.get("cache_control") is not None]


def prefixes_of(params: dict[str, Any], model: Model | None) -> tuple[list[Prefix], list[Mark]]:
    """The prompt's prefixes, one a block, and its marks."""
    head = [*_blocks(params.get("tools")), *_blocks(params.get("system"))]
    turns: list[dict[str, Any]] = params.get("messages") or []
    said = [(turn["role"], block) for turn in turns for block in _blocks(turn["content"])]
    chain = _Chain(str(params.get("model")), model)
    for block in head:
        chain.add(b"", block)
    chain.stir([params.get("thinking"), params.get("tool_choice"), _effort(params)])
    for role, block in said:
        chain.add(str(role).encode(), block)
    if (automatic := params.get("cache_control")) is not None and chain.prefixes:
        chain.marks.append(Mark(len(chain.prefixes), _ttl(automatic)))
    return chain.prefixes, chain.marks


class _Chain:
    """Digests and tokens of a prompt's blocks, each with all before it."""

    def __init__(self, start: str, model: Model | None) -> None:
        self.prefixes: list[Prefix] = []
        self.marks: list[Mark] = []
        self._digest = hashlib.blake2b(start.encode(), digest_size=16)
        self._model = model
        self._tokens = 0

    def add(self, role: bytes, block: dict[str, Any]) -> None:
        mark = block.get("cache_control")
        plain = {name: value for name, value in block.items() if name != "cache_control"}
        self._digest.update(b"\0%b\0%b" % (role, msgspec.json.encode(plain)))
        self._tokens += tokens.of_block(block, self._model)
        self.prefixes.append(Prefix(self._digest.digest(), self._tokens))
        if mark is not None:
            self.marks.append(Mark(len(self.prefixes), _ttl(mark)))

    def stir(self, settings: list[Any]) -> None:
        """What the prompt's turns depend on beside their words."""
        self._digest.update(msgspec.json.encode(settings, order="sorted"))


def _ttl(mark: dict[str, Any]) -> str:
    return str(mark.get("ttl", "5m"))


def _effort(params: dict[str, Any]) -> Any:
    return (params.get("output_config") or {}).get("effort")


def _blocks(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return content if isinstance(content, list) else []
