"""What each kind of schema node answers, given a record: a value and its evidence. Pure.

* enum, const: the value whose name (x 3) and description share most with the record's words.
  Descriptions are the parts of the property's description (and lines of the system prompt) that
  name the value. Nothing shared: a seeded draw.
* string: the record's line ``name: value`` when the property has such a name; a text of the asked
  format found in the record; else the sentence that shares most with the property's name and
  description (the first for a summary). A ``quote`` is cut without a mark, ``translation`` and
  ``markdown`` are the record itself, "at most 80 characters" in the description is kept to.
* number: a named line, else the first number in the record; for a confidence a seeded 0.50-0.99; a
  range in the description ("1 to 5") is kept to. boolean: whether the record has the words of its
  name and description.
* array: of enums, all values the record speaks for; of numbers, those found; of strings, keywords
  or sentences; of objects that are a ``name`` and a ``value``, the record's lines ``name: value``;
  of those that are a text and numbers, its lines of a text and numbers; of others with an enum,
  one for each value that a sentence speaks for, made from that sentence; else one. anyOf: the
  branch the record speaks for most; null when it speaks for none. Optional: left out then.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from batch_etl.emulator.formats import from_pattern, legal_default, look_for
from batch_etl.emulator.records import RECORD_WEIGHT, Record, number_of
from batch_etl.emulator.words import key_of, says_something, stems, words_of_name

Answer = tuple[Any, float]
Answerer = Callable[[Record], Answer]
Option = tuple[Any, frozenset[str], frozenset[str]]
"""An enum's value, the stems of its name, the stems of what is said about it."""

NAME_WEIGHT = 3.0
LONGEST_STRING = 240
SUMMARY_NAMES = frozenset(
    key_of(name)
    for name in [
        "summary",
        "title",
        "headline",
        "subject",
        "description",
        "abstract",
        "gist",
        "topic",
        "text",
        "body",
    ]
)
KEYWORD_NAMES = frozenset(
    key_of(name) for name in ["keywords", "tags", "keyword", "topics", "terms", "labels"]
)
QUOTE_NAMES = frozenset(["quote", "quotation", "citation"])
COPY_NAMES = frozenset(["translation", "translatedtext", "markdown"])
CONFIDENCE_NAMES = frozenset(["confidence", "score", "probability", "certainty", "likelihood"])
_RANGE = re.compile(
    r"(?<![\w.-])(\d+(?:\.\d+)?)\s*(?:-|–|—|to|and|\.\.)\s*(\d+(?:\.\d+)?)(?![\w.])"
)
_LIMIT = re.compile(r"\bat most (\d+) characters\b")
_NAMED_NUMBER = re.compile(r"-?\d+(?:[,']\d{3})*(?:\.\d+)?")
_NUMBER_ALONE = re.compile(r"-?\d+(?:[,']\d{3})*(?:\.\d+)?")
_LETTERS = re.compile(r"[^\W\d_]{4,}")


def always(value: Any) -> Answerer:
    return lambda _: (value, 0.0)


class Ballot:
    """The values of an enum, and for each stem the values that it speaks for and how much."""

    def __init__(self, options: list[Option]) -> None:
        self.values = [value for value, _, _ in options]
        votes: dict[str, list[tuple[int, float]]] = {}
        for place, (_, named, said) in enumerate(options):
            for word in named:
                votes.setdefault(word, []).append((place, NAME_WEIGHT))
            for word in said:
                votes.setdefault(word, []).append((place, 1.0))
        self._votes = votes
        self._words = frozenset(votes)

    def scores(self, record: Record) -> list[float]:
        """By value: ``NAME_WEIGHT`` times the overlap with its name, plus that with what is said
        about it.
        """
        scores = [0.0] * len(self.values)
        votes = self._votes
        for word in self._words & record.heavy:
            for place, weight in votes[word]:
                scores[place] += RECORD_WEIGHT * weight
        for word in self._words & record.light:
            for place, weight in votes[word]:
                scores[place] += weight
        return scores


def one_of(options: list[Option], name: str) -> Answerer:
    return _winner(Ballot(options), name)


def _winner(ballot: Ballot, name: str) -> Answerer:
    def choose(record: Record) -> Answer:
        scores = ballot.scores(record)
        best = max(scores)
        if scores.count(best) == 1:
            return ballot.values[scores.index(best)], best
        tied = [value for value, score in zip(ballot.values, scores, strict=True) if score == best]
        return tied[record.pick(name, len(tied))], best

    return choose


def several_of(options: list[Option], name: str, least: int) -> Answerer:
    ballot = Ballot(options)
    one = _winner(ballot, name)

    def choose(record: Record) -> Answer:
        scores = ballot.scores(record)
        best = max(scores)
        found = zip(ballot.values, scores, strict=True)
        chosen = [value for value, score in found if score > 0 and score * 2 >= best]
        if len(chosen) < least:
            chosen = [one(record)[0]]
        return chosen, best

    return choose


def best_of(branches: list[Answerer], name: str) -> Answerer:
    """The branch with most evidence; on none, null if that is a branch, else a seeded one."""

    def choose(record: Record) -> Answer:
        answers = [branch(record) for branch in branches]
        best = max(evidence for _, evidence in answers)
        if best == 0 and any(value is None for value, _ in answers):
            return None, 0.0
        tied = [value for value, evidence in answers if evidence == best]
        return tied[record.pick(name, len(tied))], best

    return choose


def whether(name: str, about: str) -> Answerer:
    words = frozenset(stems(words_of_name(name))) or frozenset(stems(about))
    key = key_of(name)

    def choose(record: Record) -> Answer:
        said = record.fields.get(key, "").lower()
        if said in ("true", "yes", "false", "no"):
            return said in ("true", "yes"), 1.0
        evidence = record.overlap(words)
        return evidence > 1.0, evidence

    return choose


def number(kind: str, name: str, about: str) -> Answerer:
    key, bounds = key_of(name), _bounds_in(about)
    sure = key in CONFIDENCE_NAMES or any(key.endswith(word) for word in CONFIDENCE_NAMES)

    def choose(record: Record) -> Answer:
        named = _NAMED_NUMBER.search(record.fields.get(key, ""))
        if named:
            value, evidence = number_of(named[0]), 2.0
        elif sure and bounds is None:
            value, evidence = 0.5 + record.pick(name, 50) / 100, 0.0
        else:
            first = record.first_number
            value, evidence = (0.0, 0.0) if first is None else (first, 1.0)
        if bounds is not None and (evidence == 0 or not bounds[0] <= value <= bounds[1]):
            low, high = bounds
            value, evidence = low + (high - low) * record.pick(name, 101) / 100, 0.0
        return (int(value) if kind == "integer" else round(float(value), 4)), evidence

    return choose


def _bounds_in(about: str) -> tuple[float, float] | None:
    found = _RANGE.search(about)
    if found is None:
        return None
    low, high = float(found[1]), float(found[2])
    return (low, high) if low < high else None


def sentence(name: str, about: str) -> Answerer:
    key = key_of(name)
    words = frozenset(stems(words_of_name(name)) | stems(about))
    is_summary = key in SUMMARY_NAMES
    cut = _clipping(key, about)

    def choose(record: Record) -> Answer:
        if said := record.fields.get(key):
            return cut(said), 2.0
        sentences = record.sentences
        if not sentences:
            return cut(record.text.strip()), 0.0
        if is_summary:
            return cut(sentences[0]), 1.0
        wanted = words & record.heavy
        if not wanted:
            return cut(sentences[0]), 0.0
        found, shared = record.sentence_about(wanted)
        return cut(found), float(shared)

    return choose


def _clipping(key: str, about: str) -> Callable[[str], str]:
    """How an answer of this name is made short enough."""
    limit = _LIMIT.search(about)
    longest = min(LONGEST_STRING, int(limit[1])) if limit else LONGEST_STRING
    mark = "" if key in QUOTE_NAMES else "…"
    return lambda text: clip(text, longest, mark)


def copied(record: Record) -> Answer:
    """The record itself: an emulator translates nothing, and loses nothing."""
    return record.text, 1.0


def formatted(kind: str, name: str) -> Answerer:
    key = key_of(name)

    def choose(record: Record) -> Answer:
        for text in (record.fields.get(key), record.text):
            if text and (found := look_for(kind, text)):
                return found, 1.0
        return legal_default(kind), 0.0

    return choose


def patterned(pattern: str, name: str) -> Answerer:
    search = re.compile(pattern, re.ASCII)
    fallback = from_pattern(pattern)
    key = key_of(name)

    def choose(record: Record) -> Answer:
        candidates = [record.fields.get(key, ""), *record.text.split()[:500]]
        # Regex dialects differ on what is a letter beyond ASCII.
        plain = (text for text in candidates if text and text.isascii())
        found = next((text for text in plain if search.search(text)), None)
        return (fallback, 0.0) if found is None else (found, 1.0)

    return choose


def listed(one: Answerer, many: Callable[[Record], list[Any]] | None, least: int) -> Answerer:
    def choose(record: Record) -> Answer:
        if many is not None:
            values, evidence = many(record), 1.0
        else:
            value, evidence = one(record)
            values = [value] if evidence > 0 else []
        if len(values) < least:
            values, evidence = [one(record)[0]], 0.0
        return values, evidence if values else 0.0

    return choose


def sentences(record: Record) -> list[Any]:
    return [clip(sentence) for sentence in record.sentences[:3]]


def keywords(record: Record) -> list[Any]:
    counted = Counter(
        word.lower() for word in _LETTERS.findall(record.text) if says_something(word)
    )
    return [word for word, _ in sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:5]]


def whole_numbers(record: Record) -> list[Any]:
    return [int(number) for number in record.numbers[:5] if number == int(number)]


def all_numbers(record: Record) -> list[Any]:
    return list(map(float, record.numbers[:5]))


def named_values(record: Record) -> list[Any]:
    """Its lines ``name: value``, each name once."""
    found: dict[str, str] = {}
    for name, value in record.lines:
        found.setdefault(clip(name), clip(value))
    return [{"name": name, "value": value} for name, value in found.items()]


def table_rows(kinds: Mapping[str, list[Any]]) -> Callable[[Record], list[Any]] | None:
    """Of objects with one text and several numbers: the record's lines of a text and as many
    numbers, in this order.
    """
    texts = [name for name, kind in kinds.items() if kind == ["string"]]
    counted = [name for name, kind in kinds.items() if kind in (["number"], ["integer"])]
    if len(texts) != 1 or len(counted) < 2 or len(texts) + len(counted) != len(kinds):
        return None

    def rows(record: Record) -> list[Any]:
        found: list[Any] = []
        for line in record.text.split("\n"):
            parts = line.split()
            text, tail = " ".join(parts[: -len(counted)]), parts[-len(counted) :]
            if _LETTERS.search(text) and all(map(_NUMBER_ALONE.fullmatch, tail)):
                numbers = zip(counted, tail, strict=True)
                values = {name: _as_kind(number, kinds[name]) for name, number in numbers}
                found.append({name: values.get(name, clip(text)) for name in kinds})
        return found

    return rows


def _as_kind(number: str, kind: list[Any]) -> float:
    value = number_of(number)
    return int(value) if kind == ["integer"] else float(value)


def one_a_value(options: list[Option], one: Answerer) -> Callable[[Record], list[Any]]:
    """For each value that a sentence speaks for (two words at least), ``one`` of the sentence that
    speaks for it most; in the order of the sentences.
    """
    ballot = Ballot(options)

    def choose(record: Record) -> list[Any]:
        best: dict[int, tuple[float, int, Record]] = {}
        for place, sentence in enumerate(record.sentences):
            said = Record(sentence, record.seed)
            scores = ballot.scores(said)
            most = max(scores)
            value = scores.index(most)
            if most >= 2 * RECORD_WEIGHT and most > best.get(value, (0.0,))[0]:
                best[value] = most, place, said
        found = sorted(best.values(), key=lambda item: item[1])
        return [one(said)[0] for _, _, said in found]

    return choose


def clip(text: str, longest: int = LONGEST_STRING, mark: str = "…") -> str:
    if len(text) <= longest:
        return text
    return text[: max(0, longest - len(mark))].rsplit(" ", 1)[0] + mark
