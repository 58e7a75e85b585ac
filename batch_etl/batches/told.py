"""Outcomes of many requests as columns: what a batch's result lines tell, without an object each.

Nearly all lines are plain: succeeded, one block of text, a stop reason that leaves the answer
whole, an answer that the schema allows. What they tell is read off the parsed messages, a fact at a
time. Every other line becomes an :class:`~batch_etl.batches.outcome.Outcome` first, by the rules
that hold for each line alone; so do the plain ones, if they are decoded alone, and to the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from batch_etl.batches.answer_shape import quick_judge
from batch_etl.batches.outcome import Kind, Message, Outcome, Result, Usage, free_text, outcome_of
from batch_etl.batches.schema import OutputSchema

Words = list[str | None]
Numbers = list[int | None]

_WHOLE = ("end_turn", "stop_sequence", None)
"""Stop reasons that say nothing against the answer."""

_NO_USAGE = Usage()
_NO_MESSAGE = Message(usage=_NO_USAGE)


@dataclass
class Told:
    """One list a fact, one place a request. The facts are those of ``Outcome``."""

    kinds: list[Kind] = field(default_factory=list[Kind])
    reasons: Words = field(default_factory=Words)
    outputs: Words = field(default_factory=Words)
    texts: Words = field(default_factory=Words)
    stop_reasons: Words = field(default_factory=Words)
    error_types: Words = field(default_factory=Words)
    models: Words = field(default_factory=Words)
    message_ids: Words = field(default_factory=Words)
    tokens: tuple[Numbers, Numbers, Numbers, Numbers, Numbers] = field(
        default_factory=lambda: ([], [], [], [], [])
    )
    """input, output, cache read, 5-minute cache write, 1-hour cache write."""

    def __len__(self) -> int:
        return len(self.kinds)

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> Told:
        """From outcomes that were decoded one by one."""
        told = cls.nothing(len(outcomes))
        for place, outcome in enumerate(outcomes):
            told.put(place, outcome)
        return told

    @classmethod
    def nothing(cls, requests: int) -> Told:
        """Places that are still to be filled."""

        def words() -> Words:
            return [None] * requests

        def numbers() -> Numbers:
            return [None] * requests

        return cls(
            ["Missing"] * requests,
            *(words(), words(), words(), words(), words(), words(), words()),
            tokens=(numbers(), numbers(), numbers(), numbers(), numbers()),
        )

    def put(self, place: int, outcome: Outcome) -> None:
        self.kinds[place] = outcome.kind
        self.reasons[place] = outcome.reason
        self.outputs[place] = outcome.output
        self.texts[place] = outcome.text
        self.stop_reasons[place] = outcome.stop_reason
        self.error_types[place] = outcome.error_type
        self.models[place] = outcome.model
        self.message_ids[place] = outcome.message_id
        for column, number in zip(self.tokens, outcome.tokens, strict=True):
            column[place] = number


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
        for place in odd:
            messages[place] = _NO_MESSAGE
        if self._schema is None or outputs == texts:
            texts = [None] * len(texts)
        else:
            texts = [None if o == t else t for o, t in zip(outputs, texts, strict=True)]
        told = _columns(messages, outputs, texts)
        for place in odd:
            told.put(place, outcome_of(results[place], self._schema))
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
    empty: Words = [None] * len(messages)
    return Told(
        kinds=["Succeeded"] * len(messages),
        reasons=empty,
        outputs=outputs,
        texts=texts,
        stop_reasons=[one.stop_reason for one in messages],
        error_types=empty[:],
        models=[one.model for one in messages],
        message_ids=[one.id for one in messages],
        tokens=(
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
