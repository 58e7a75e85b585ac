"""The two further turns of a repair: the faulty answer, and what is wrong with it.

    user        the question, as it was
    assistant   the faulty answer, without white space at its end
    user        the validator's problems, and what is wanted

The last turn is the user's: an answer begun for the model (a prefill) is refused from 4.6 on. Only
the latest faulty answer is shown, so a request does not grow from attempt to attempt. An empty
answer shows nothing and cannot be a turn (the API refuses empty text): the question is asked
alone then.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

_ENCODER = msgspec.json.Encoder()


class Faulty(NamedTuple):
    """An answer that cannot be used, and why."""

    text: str | None
    reason: str | None


def further_turns(faulty: Faulty, *, as_json: bool = True) -> bytes:
    """JSON to stand after the question's turn in ``messages``, its comma first; may be empty.

    ``as_json``: the answer is to be JSON, and not free text.
    """
    text = (faulty.text or "").rstrip()
    if not text:
        return b""
    turns = [
        {"role": "assistant", "content": text},
        {"role": "user", "content": complaint(faulty.reason, as_json=as_json)},
    ]
    return b"," + _ENCODER.encode(turns)[1:-1]


def complaint(reason: str | None, *, as_json: bool = True) -> str:
    """The turn that asks for another answer."""
    problems = (
        f"Your previous answer is not valid: {reason}"
        if reason
        else ("Your previous answer is not valid.")
    )
    if not as_json:
        return f"{problems}\n\nAnswer the question again. Reply with the answer alone."
    return (
        f"{problems}\n\nAnswer the question again. Reply with the JSON alone, as the schema wants "
        "it, with nothing before or after it."
    )
