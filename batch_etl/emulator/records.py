"""What a prompt says: its record, told apart from its instructions as far as the text shows it.
Pure.

The record is looked for in the last user turn, in this order: the longest part between XML-like
tags (``<ticket>...</ticket>``), the longest part between fences (``` or \"\"\"), else the longest
paragraph or, when lines of the form ``name: value`` are there, all of the turn from the first of
them. The record's words weigh ``RECORD_WEIGHT``, the other words of that turn 1, earlier turns and
the system prompt nothing. Words are lower-cased and stripped of common English endings; words of
two letters and of a short stop list say nothing.
"""

from __future__ import annotations

import re
import zlib
from functools import lru_cache
from typing import Any

RECORD_WEIGHT = 5.0

_OPENING = re.compile(r"<([A-Za-z][\w-]*)(?:\s[^<>]*)?>")
_FENCED = re.compile(r"(```|\"\"\"|~~~)[^\n]*\n?(.*?)\1", re.DOTALL)
_FIELD = re.compile(
    r"^[ \t>*\-\"]*([^\W\d][\w .#/\-]{0,40}?)[*\"]*[ \t]*[:=][ \t]*(\S[^\n]*)$", re.MULTILINE
)
_MARKS = "«»‘’“”„–—…¡¿。，、！？；：（）،؛؟\u00a0"
_NO_WORD = dict.fromkeys(
    [n for n in range(128) if not chr(n).isalnum()] + [ord(mark) for mark in _MARKS], " "
)
_SENTENCE = re.compile(r"[^.!?。！？؟\n]+[.!?。！？؟]*")
_SAYS = re.compile(r"[^\W_]")
_NUMBER = re.compile(r"\d+(?:[ ,']\d{3}(?!\d))*(?:\.\d+)?(?!\w)")
_ENDINGS = re.compile(
    r"(?:fulness|ousness|ations?|ingly|ments?|ness|edly|able|ing|ies|ied|ers?|est|ed|ly|es|s|e|y)$"
)
_COMPLAINT = re.compile(
    r"\b(?:(?:your|the) (?:previous |last |earlier )?(?:answer|reply|response|output)"
    r"|not valid|invalid json|try again)\b",
    re.IGNORECASE,
)

_STOP_WORDS = """
    the and for are was were with that this from you your our has have had not but its his her she
    him they them their who what which when where why how can could will would shall should may
    might must about into over than then there here also any all one out use used using does did
    been being just only very more most some such each other value values field text record word
    words answer choose pick else none
"""
STOP = frozenset(_STOP_WORDS.split())


def stem(word: str) -> str:
    """``refunds``, ``refunded``, ``refunding`` -> ``refund``; never shorter than three letters."""
    cut = _ENDINGS.sub("", word.lower())
    return cut if len(cut) >= 3 else word.lower()


class _Stems(dict[str, str]):
    """Every word seen so far with its stem ("" for stop words): a look-up a word instead of a
    regex.
    """

    MOST = 200_000

    def __missing__(self, word: str) -> str:
        found = "" if len(word) < 3 or word in STOP else stem(word)
        if len(self) < self.MOST:
            self[word] = found
        return found


_STEMS = _Stems()


def stems(text: str) -> set[str]:
    words = set(text.lower().translate(_NO_WORD).split())
    found = set(map(_STEMS.__getitem__, words))
    found.discard("")
    return found


@lru_cache(maxsize=1_000)
def _stems_of_instructions(text: str) -> frozenset[str]:
    return frozenset(stems(text))


def words_of_name(name: str) -> str:
    """``issueCategory``, ``issue_category`` -> ``issue category``."""
    return re.sub(r"[_\-/.]+|(?<=[a-z])(?=[A-Z])", " ", name)


def key_of(name: str) -> str:
    """Names that mean the same field: ``Customer e-mail`` and ``customer_email``."""
    return re.sub(r"[\W_]+", "", name).lower()


class Record:
    """A prompt's record and the rest of its last user turn; what is asked of it is worked out
    once.
    """

    def __init__(self, turn: str, seed: int = 0) -> None:
        """``turn``: the text of the asking turn."""
        self.turn = turn
        self.text = record_in(turn)
        self.seed = zlib.crc32(turn.encode(errors="replace"), seed & 0xFFFFFFFF)

        self.sentences = _sentences(self.text)
        self._heavy = stems(self.text)
        rest = turn.replace(self.text, " ", 1) if self.text else turn
        self._light = _stems_of_instructions(rest) - self._heavy
        self._numbers: list[float] | None = None
        self._fields: dict[str, str] | None = None

    def overlap(self, words: frozenset[str]) -> float:
        """How much the turn has of these stems, the record's counting ``RECORD_WEIGHT``."""
        return RECORD_WEIGHT * len(words & self._heavy) + len(words & self._light)

    @property
    def numbers(self) -> list[float]:
        if self._numbers is None:
            self._numbers = _numbers(self.text)
        return self._numbers

    @property
    def fields(self) -> dict[str, str]:
        """Lines ``name: value`` of the record; the first of equal names."""
        if self._fields is None:
            self._fields = _fields(self.text) if ":" in self.text or "=" in self.text else {}
        return self._fields

    def pick(self, salt: str, count: int) -> int:
        """A choice that only record, seed and ``salt`` decide."""
        return zlib.crc32(salt.encode(), self.seed) % count


def _sentences(text: str) -> list[str]:
    found = (sentence.strip() for sentence in _SENTENCE.findall(text))
    return [sentence for sentence in found if _SAYS.search(sentence)]


def _numbers(text: str) -> list[float]:
    """Numbers that stand alone: not part of a word, a version or a date."""
    found: list[float] = []
    for match in _NUMBER.finditer(text):
        before = text[max(0, match.start() - 2) : match.start()]
        if not before or not (before[-1].isalnum() or before[-1] in "_.-"):
            sign = 1
        elif before in ("-", " -", "\n-", "(-"):
            sign = -1
        else:
            continue
        found.append(sign * float(re.sub("[ ,']", "", match[0])))
    return found


def _fields(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in _FIELD.findall(text):
        found.setdefault(key_of(name), value.strip().rstrip(",").strip('"'))
    return found


def record_in(turn: str) -> str:
    """The part of the turn that is the record; the whole of it when nothing tells them apart."""
    for parts in (_tagged(turn), _fenced(turn)):
        if longest := max(parts, key=len, default=""):
            return longest
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", turn)]
    for n, paragraph in enumerate(paragraphs[1:], 1):
        if _FIELD.search(paragraph):
            return "\n\n".join(paragraphs[n:]).strip()
    return max(paragraphs, key=len)


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
    while len(turns) > 1 and _COMPLAINT.search(text_of(turns[-1])):
        turns.pop()
    return turns[-1] if turns else ""


def text_of(content: Any) -> str:
    """All text of a turn or a system prompt; documents of plain text count as text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "\n\n".join(text for block in content if (text := _text_of_block(block)))


def _text_of_block(block: Any) -> str:
    if not isinstance(block, dict):
        return ""
    if block.get("type") == "document":
        source = block.get("source")
        plain = isinstance(source, dict) and source.get("type") == "text"
        return str(source.get("data", "")) if plain else ""  # type: ignore[union-attr]
    return str(block.get("text", "")) if block.get("type") == "text" else ""
