"""What a prompt says: its record, told apart from its instructions as far as the text shows it.
Pure.

The record is the text of a turn's documents (``media.reading``); without any it is looked for in
the last user turn, in this order: the longest part between XML-like
tags (``<ticket>...</ticket>``), the longest part between fences (``` or \"\"\"), else the longest
paragraph or, when lines of the form ``name: value`` are there, all of the turn from the first of
them. The record's words weigh ``RECORD_WEIGHT``, the other words of that turn 1, earlier turns and
the system prompt nothing.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Any

from batch_etl.emulator.words import (
    SENTENCE_ENDS,
    key_of,
    plain,
    stems_in_order,
    stems_of_instructions,
    stems_of_plain,
)

RECORD_WEIGHT = 5.0
MOST_SENTENCES = 50
MOST_DIGITS = 40

_OPENING = re.compile(r"<([A-Za-z][\w-]*)(?:\s[^<>]*)?>")
_FENCED = re.compile(r"(```|\"\"\"|~~~)[^\n]*\n?(.*?)\1", re.DOTALL)
_FIELD = re.compile(
    r"^[ \t>*\-\"]*([^\W\d][\w .#/\-]{0,40}?)[*\"]*[ \t]*[:=][ \t]*(\S[^\n]*)$", re.MULTILINE
)
_SENTENCE = re.compile(rf"[^{SENTENCE_ENDS}]+[{SENTENCE_ENDS[:-1]}]*")
_SAYS = re.compile(r"[^\W_]")
_NUMBER = re.compile(r"\d+(?:[ ,']\d{3}(?!\d))*(?:\.\d+)?(?!\w)")
_COMPLAINT = re.compile(
    r"\b(?:(?:your|the) (?:previous |last |earlier )?(?:answer|reply|response|output)"
    r"|not valid|invalid json|try again)\b",
    re.IGNORECASE,
)


class Record:
    """A prompt's record and the rest of its last user turn; what is asked of it is worked out
    once, and only when it is asked.
    """

    def __init__(self, turn: str, seed: int = 0, text: str | None = None) -> None:
        """``turn``: the text of the asking turn. ``text``: its record, when that is known."""
        self.turn = turn
        self.text = record_in(turn) if text is None else text
        self.seed = zlib.crc32(turn.encode(errors="replace"), seed & 0xFFFFFFFF)
        self._plain = plain(self.text)
        self.heavy = stems_of_plain(self._plain)
        """Stems of the record's own words."""
        self._light: frozenset[str] | None = None
        self._sentences: list[str] | None = None
        self._stems_of_sentences: list[list[str]] | None = None
        self._numbers: list[float] | None = None
        self._fields: dict[str, str] | None = None

    @property
    def light(self) -> frozenset[str]:
        """Stems of the turn's other words."""
        if self._light is None:
            rest = self.turn.replace(self.text, " ", 1) if self.text else self.turn
            self._light = stems_of_instructions(rest) - self.heavy
        return self._light

    def overlap(self, words: frozenset[str]) -> float:
        """How much the turn has of these stems, the record's counting ``RECORD_WEIGHT``."""
        return RECORD_WEIGHT * len(words & self.heavy) + len(words & self.light)

    @property
    def sentences(self) -> list[str]:
        if self._sentences is None:
            self._sentences = _sentences(self.text)
        return self._sentences

    def sentence_about(self, wanted: frozenset[str]) -> tuple[str, int]:
        """The first of the sentences with most of these stems, and how many it has."""
        if self._stems_of_sentences is None:
            self._stems_of_sentences = self._by_sentence()
        shared = [len(wanted.intersection(own)) for own in self._stems_of_sentences]
        most = max(shared)
        return self.sentences[shared.index(most)], most

    def _by_sentence(self) -> list[list[str]]:
        """The stems of the first ``MOST_SENTENCES`` sentences."""
        parts = [part for part in self._plain.split("\n") if part and not part.isspace()]
        if len(parts) != len(self.sentences):  # something neither blank nor a word: an emoji
            parts = [plain(sentence) for sentence in self.sentences]
        return [stems_in_order(part) for part in parts[:MOST_SENTENCES]]

    @property
    def numbers(self) -> list[float]:
        if self._numbers is None:
            self._numbers = list(_numbers(self.text))
        return self._numbers

    @property
    def first_number(self) -> float | None:
        """The first of ``numbers``, found without looking for the others."""
        return next(_numbers(self.text), None)

    @property
    def fields(self) -> dict[str, str]:
        """Lines ``name: value`` of the record; the first of equal names."""
        if self._fields is None:
            self._fields = _fields(self.text) if ":" in self.text or "=" in self.text else {}
        return self._fields

    @property
    def lines(self) -> list[tuple[str, str]]:
        """All lines ``name: value`` as they are written."""
        return [(field[1].strip(), field[2].strip()) for field in _FIELD.finditer(self.text)]

    def pick(self, salt: str, count: int) -> int:
        """A choice that only record, seed and ``salt`` decide."""
        return 0 if count == 1 else zlib.crc32(salt.encode(), self.seed) % count


def _sentences(text: str) -> list[str]:
    found = (sentence.strip() for sentence in _SENTENCE.findall(text))
    return [sentence for sentence in found if _SAYS.search(sentence)]


def _numbers(text: str) -> Iterator[float]:
    """Numbers that stand alone: not part of a word, a version or a date."""
    for match in _NUMBER.finditer(text):
        before = text[max(0, match.start() - 2) : match.start()]
        if not before or not (before[-1].isalnum() or before[-1] in "_.-"):
            sign = 1
        elif before in ("-", " -", "\n-", "(-"):
            sign = -1
        else:
            continue
        yield sign * number_of(match[0])


def number_of(written: str) -> float:
    """The number that is written so; one of at most ``MOST_DIGITS``, without a point, is an int."""
    digits = re.sub("[ ,']", "", written)
    return float(digits) if "." in digits or len(digits) > MOST_DIGITS else int(digits)


def _fields(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in text.split("\n"):
        if (":" in line or "=" in line) and (field := _FIELD.match(line)):
            value = field[2].strip().rstrip(",").strip('"')
            found.setdefault(key_of(field[1]), value)
    return found


def record_in(turn: str) -> str:
    """The part of the turn that is the record; the whole of it when nothing tells them apart."""
    if marked := set_off_in(turn):
        return marked
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", turn)]
    for n, paragraph in enumerate(paragraphs[1:], 1):
        if _FIELD.search(paragraph):
            return "\n\n".join(paragraphs[n:]).strip()
    return max(paragraphs, key=len)


def set_off_in(turn: str) -> str:
    """The longest part between tags, or else between fences; "" when there is none."""
    for parts in (_tagged, _fenced):
        if longest := max(parts(turn), key=len, default=""):
            return longest
    return ""


def _tagged(turn: str) -> list[str]:
    """What stands between an opening tag and the next closing one of that name, outermost first."""
    parts: list[str] = []
    unclosed: set[str] = set()
    position = 0
    while opening := _OPENING.search(turn, position):
        name, position = opening[1], opening.end()
        end = -1 if name in unclosed else turn.find(f"</{name}>", position)
        if end >= 0:
            parts.append(turn[position:end].strip())
            position = end
        else:
            unclosed.add(name)
    return parts


def _fenced(turn: str) -> list[str]:
    return [match[2].strip() for match in _FENCED.finditer(turn)]


def asking_turn(params: Any) -> Any:
    """The content of the user turn that holds the record.

    That is the last one, unless it complains about an answer (a repair turn): then the one before
    it. So retries and repairs of one record ask the same question, and few-shot turns before it do
    not matter.
    """
    messages = params.get("messages") if isinstance(params, dict) else None
    turns = [
        turn.get("content")
        for turn in (messages if isinstance(messages, list) else ())
        if isinstance(turn, dict) and turn.get("role") == "user"
    ]
    while len(turns) > 1 and complains(turns[-1]):
        turns.pop()
    return turns[-1] if turns else ""


def complains(content: Any) -> bool:
    """Whether a turn finds fault with the answer before it; documents complain of nothing."""
    return _COMPLAINT.search(text_of(content)) is not None


def text_of(content: Any) -> str:
    """The text of a turn or a system prompt, without its documents."""
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    return "\n\n".join(
        str(block["text"])
        for block in blocks
        if isinstance(block, dict) and block.get("type") == "text" and block.get("text")
    )
