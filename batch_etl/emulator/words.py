"""Words, their stems, and names, as the emulator compares texts. Pure, but for a look-up table.

Words are lower-cased and stripped of common English endings; words of two letters and of a short
stop list say nothing.
"""

from __future__ import annotations

import re
from functools import lru_cache

_MARKS = "«»‘’“”„–—…¡¿。，、！？；：（）،؛؟\u00a0"
SENTENCE_ENDS = ".!?。！？؟\n"
_BLANKED = bytes(
    n if n > 127 or chr(n).isalnum() else ord("\n" if chr(n) in SENTENCE_ENDS else " ")
    for n in range(256)
)
"""For each byte of UTF-8 itself, or white space where it is ASCII and no letter or digit."""
_BLANKED_MARKS = {
    lead: {
        mark.encode(): b"\n" if mark in SENTENCE_ENDS else b" "
        for mark in _MARKS
        if mark.encode()[:-1] == lead
    }
    for lead in sorted({mark.encode()[:-1] for mark in _MARKS})
}
"""The same for marks beyond ASCII, by what their bytes begin with."""
_ENDINGS = re.compile(
    r"(?:fulness|ousness|ations?|ingly|ments?|ness|edly|able|ing|ies|ied|ers?|est|ed|ly|es|s|e|y)$"
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
    """Words of lower case seen so far with their stems ("" for stop words): a look-up a word
    instead of a regex.
    """

    MOST = 200_000

    def __missing__(self, word: str) -> str:
        found = "" if len(word) < 3 or word in STOP else stem(word)
        if len(self) < self.MOST:
            self[word] = found
        return found


_STEMS = _Stems()


def stems(text: str) -> set[str]:
    """The stems of all words that say something."""
    return stems_of_plain(plain(text))


def stems_of_plain(plain_text: str) -> set[str]:
    found = set(map(_STEMS.__getitem__, plain_text.split()))
    found.discard("")
    return found


def says_something(word: str) -> bool:
    """Whether a word of letters alone has a stem: it is not short and no stop word."""
    return _STEMS[word.lower()] != ""


def stems_in_order(plain_text: str) -> list[str]:
    """A stem a word, "" for words that say nothing."""
    return list(map(_STEMS.__getitem__, plain_text.split()))


def plain(text: str) -> str:
    """The text in lower case with white space for marks: a newline where a sentence may end.

    On bytes, because ``str.translate`` is slow beyond ASCII.
    """
    data = text.lower().encode(errors="surrogatepass").translate(_BLANKED)
    if not data.isascii():
        for lead, marks in _BLANKED_MARKS.items():
            if lead in data:
                for mark, blank in marks.items():
                    data = data.replace(mark, blank)
    return data.decode(errors="surrogatepass")


@lru_cache(maxsize=100)
def stems_of_instructions(text: str) -> frozenset[str]:
    """The same, remembered by the text and by its sentences: instructions come again with every
    record, most of them word for word.
    """
    return frozenset().union(*map(_stems_of_sentence, plain(text).split("\n")))


@lru_cache(maxsize=5_000)
def _stems_of_sentence(plain_text: str) -> frozenset[str]:
    return frozenset(stems_of_plain(plain_text))


def words_of_name(name: str) -> str:
    """``issueCategory``, ``issue_category`` -> ``issue category``."""
    return re.sub(r"[_\-/.]+|(?<=[a-z])(?=[A-Z])", " ", name)


@lru_cache(maxsize=1_000)
def key_of(name: str) -> str:
    """Names that mean the same field: ``Customer e-mail`` and ``customer_email``."""
    return re.sub(r"[\W_]+", "", name).lower()
