"""Outcomes of many requests as columns: what a batch's result lines tell, without an object each.

Nearly all lines are plain: succeeded, one block of text, a stop reason that leaves the answer
whole, an answer that the schema allows. What they tell is read off the parsed messages, a fact at a
time. Every other line becomes an :class:`~batch_etl.batches.outcome.Outcome` first, by the rules
that hold for each line alone; so do the plain ones, if they are decoded alone, and to the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batch_etl import arrow
from batch_etl.batches.answer_shape import quick_judge
from batch_etl.batches.outcome import Message, Outcome, Result, Usage, free_text, outcome_of
from batch_etl.batches.schema import OutputSchema

Words = list[str | None]
Tokens = npt.NDArray[np.int64]
"""Shape (rows, 5): input, output, cache read, 5-minute and 1-hour cache write."""

_WHOLE = ("end_turn", "stop_sequence", None)
"""Stop reasons that say nothing against the answer."""

_NO_USAGE = Usage()
_NO_MESSAGE = Message(usage=_NO_USAGE)


class Few:
    """A fact of which only a few different words are told, many times each."""

    def __init__(self, values: Sequence[str | None]) -> None:
        self._numbers: dict[str | None, int] = {None: -1}
        alike = len(values) > 0 and values.count(values[0]) == len(values)
        numbers = self._numbered(values[:1] if alike else values)
        self._column = np.full(len(values), numbers, dtype=np.int32)

    def _numbered(self, words: Sequence[str | None]) -> list[int]:
        for word in dict.fromkeys(words):
            self._numbers.setdefault(word, len(self._numbers) - 1)
        return [self._numbers[word] for word in words]

    def put(self, places: Sequence[int], words: Sequence[str | None]) -> None:
        self._column[places] = self._numbered(words)

    def array(self) -> pa.DictionaryArray:
        """As a column of Arrow."""
        numbers = arrow.column(self._column, self._column >= 0)
        words = [word for word in self._numbers if word is not None]
        return pa.DictionaryArray.from_arrays(numbers, pa.array(words, pa.string()))


@dataclass
class Told:
    """One column a fact, one place a request. The facts are those of ``Outcome``."""

    kinds: Few
    reasons: Words
    outputs: Words
    texts: Words
    stop_reasons: Few
    error_types: Few
    models: Few
    message_ids: Words
    tokens: Tokens
    """-1 where a number is not known."""

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> Told:
        """From outcomes that were decoded one by one."""
        nothing: Words = [None] * len(outcomes)
        told = _columns([_NO_MESSAGE] * len(outcomes), nothing, nothing[:])
        told.put(range(len(outcomes)), outcomes)
        return told

    def put(self, places: Sequence[int], outcomes: Sequence[Outcome]) -> None:
        """Have these outcomes in these places."""
        if not outcomes:
            return
        for place, outcome in zip(places, outcomes, strict=True):
            self.reasons[place] = outcome.reason
            self.outputs[place] = outcome.output
            self.texts[place] = outcome.text
            self.message_ids[place] = outcome.message_id
        self.kinds.put(places, [outcome.kind for outcome in outcomes])
        self.stop_reasons.put(places, [outcome.stop_reason for outcome in outcomes])
        self.error_types.put(places, [outcome.error_type for outcome in outcomes])
        self.models.put(places, [outcome.model for outcome in outcomes])
        self.tokens[places] = _tokens(*zip(*(one.tokens for one in outcomes), strict=True))


class Reader:
    """Reads results off as columns, for one schema."""

    def __init__(self, schema: OutputSchema | None) -> None:
        self._schema = schema
        self._judge = quick_judge(schema.resolved) if schema is not None else None

    def told(self, results: Sequence[Result]) -> Told:
        """What became of the requests of these results, in order."""
        texts: Words = [_plain_text(result) for result in results]
        outputs = self._outputs(texts)
        odd = [place for place, output in enumerate(outputs) if output is None]
        messages: list[Any] = [result.message for result in results]
        plain = next((one for one, o in zip(messages, outputs, strict=True) if o), _NO_MESSAGE)
        for place in odd:
            messages[place], texts[place] = plain, None  # what is told there is put in below
        if self._schema is None or outputs == texts:
            texts = [None] * len(texts)
        else:
            texts = [None if o == t else t for o, t in zip(outputs, texts, strict=True)]
        told = _columns(messages, outputs, texts)
        told.put(odd, [outcome_of(results[place], self._schema) for place in odd])
        return told

    def _outputs(self, texts: Words) -> Words:
        """The texts' JSON; None where there is no text, or it is not as it should be."""
        if self._schema is None:
            return [free_text(text) if text else None for text in texts]
        nothing: Words = [None] * len(texts)
        outputs = self._judge(texts) if self._judge is not None else nothing
        for place, output in enumerate(outputs):
            if output is None and (text := texts[place]):
                outputs[place] = self._schema.check_text(text).output_json
        return outputs


def _plain_text(result: Result) -> str | None:
    """The one text of an answer that is whole; None where more is to be looked at."""
    message = result.message
    if message is None or result.type != "succeeded" or message.stop_reason not in _WHOLE:
        return None
    content = message.content
    if content is None:
        return None
    if len(content) != 1:  # thinking, say, and then the answer
        if any(block.name for block in content):
            return None
        content = [block for block in content if block.type == "text" and block.text]
    return content[0].text if len(content) == 1 and content[0].type == "text" else None


def _columns(messages: Sequence[Message], outputs: Words, texts: Words) -> Told:
    """The facts of plain answers."""
    usages: list[Usage] = [one.usage or _NO_USAGE for one in messages]
    splits: list[Any] = [one.cache_creation for one in usages]
    nothing: Words = [None] * len(messages)
    return Told(
        kinds=Few(["Succeeded"] * len(messages)),
        reasons=nothing,
        outputs=outputs,
        texts=texts,
        stop_reasons=Few([one.stop_reason for one in messages]),
        error_types=Few(nothing),
        models=Few([one.model for one in messages]),
        message_ids=[one.id for one in messages],
        tokens=_tokens(
            [one.input_tokens for one in usages],
            [one.output_tokens for one in usages],
            [one.cache_read_input_tokens for one in usages],
            [
                usage.cache_creation_input_tokens
                if split is None
                else split.ephemeral_5m_input_tokens
                for usage, split in zip(usages, splits, strict=True)
            ],
            [None if split is None else split.ephemeral_1h_input_tokens for split in splits],
        ),
    )


def _tokens(*facts: Sequence[int | None]) -> Tokens:
    """A column a fact, each in one piece."""
    columns = np.empty((len(facts), len(facts[0])), dtype=np.int64)
    for column, numbers in zip(columns, facts, strict=True):
        if numbers.count(0) == len(numbers):  # nothing was read from the cache, or written to it
            column[:] = 0
        elif None in numbers:
            column[:] = [-1 if number is None else number for number in numbers]
        else:
            column[:] = np.array(numbers, dtype=np.int64)
    return columns.T
