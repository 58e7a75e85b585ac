"""Where an answer's text ends. Pure."""

from __future__ import annotations

from typing import NamedTuple

from batch_etl.emulator import tokens
from batch_etl.emulator.models import Model


class Stop(NamedTuple):
    """Why the answer ends; ``sequence``: the stop sequence that ended it."""

    reason: str
    sequence: str | None = None


END = Stop("end_turn")


def cut_at(
    text: str, sequences: list[str] | None, max_tokens: int, model: Model
) -> tuple[str, Stop]:
    """The text up to the first stop sequence in it, or to ``max_tokens``, whichever comes first.
    A stop sequence is not part of the answer.
    """
    found = [(text.find(sequence), sequence) for sequence in sequences or () if sequence in text]
    place, sequence = min(found, default=(len(text), None))
    stopped = text[:place]
    used = tokens.of_text(stopped, model)
    if used > max_tokens:
        return stopped[: len(stopped) * max_tokens // used], Stop("max_tokens")
    return stopped, END if sequence is None else Stop("stop_sequence", sequence)
