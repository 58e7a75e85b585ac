"""Result line -> outcome: what became of one request.

Eight kinds, closed. The API's four line types say little: a *succeeded* line may be a refusal, cut
off, or not the JSON that was asked for. The kind is decided here, once, from the line alone, so
that raw results decode again to the same outcomes.

    Succeeded   an answer that the schema allows (or, without a schema, any text)
    Invalid     the model's text is not JSON, or breaks the schema (a task with conditions sees what
                fails one as Invalid too: ``judging.py``)
    Truncated   the answer hit max_tokens or the context window
    Refused     the model declined (a succeeded line with stop_reason refusal; it is billed)
    Errored     the API answered this line with an error (free)
    Expired     not reached within the batch's 24 hours (free)
    Canceled    the batch was cancelled before this line ran (free)
    Missing     the results hold no line for it

Decoding never raises: a line of an unknown shape is an outcome too (Invalid where it says that it
succeeded: it is billed, and asking again would be billed again; else Errored), a line that is no
JSON belongs to nobody and is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
import numpy as np

from batch_etl.batches.schema import OutputSchema

Kind = Literal[
    "Succeeded", "Invalid", "Truncated", "Refused", "Errored", "Expired", "Canceled", "Missing"
]

KINDS: tuple[Kind, ...] = (
    "Succeeded",
    "Invalid",
    "Truncated",
    "Refused",
    "Errored",
    "Expired",
    "Canceled",
    "Missing",
)

BILLED: frozenset[str] = frozenset({"Succeeded", "Invalid", "Truncated", "Refused"})
"""Kinds that cost money: errored, canceled and expired lines are free."""


_Count = Annotated[int, msgspec.Meta(ge=0, le=10**12)]


class CacheCreation(msgspec.Struct, gc=False):
    """Tokens written to the cache, by how long they stay there."""

    ephemeral_5m_input_tokens: _Count | None = None
    ephemeral_1h_input_tokens: _Count | None = None


class Usage(msgspec.Struct, gc=False):
    """What an answer is billed by."""

    input_tokens: _Count | None = None
    output_tokens: _Count | None = None
    cache_creation_input_tokens: _Count | None = None
    cache_read_input_tokens: _Count | None = None
    cache_creation: CacheCreation | None = None


class Block(msgspec.Struct, gc=False):
    """A part of an answer."""

    type: str = ""
    text: str | None = None
    name: str | None = None
    """Of a tool that is called."""
    input: msgspec.Raw = msgspec.Raw(b"")


class _StopDetails(msgspec.Struct, gc=False):
    category: str | None = None
    explanation: str | None = None


class Message(msgspec.Struct, gc=False):
    """An answer, in the API's shape."""

    id: str | None = None
    model: str | None = None
    content: list[Block] | None = None
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None
    usage: Usage | None = None


class _Error(msgspec.Struct, gc=False):
    type: str | None = None
    message: str | None = None


class _ErrorEnvelope(msgspec.Struct, gc=False):
    type: str | None = None
    error: _Error | None = None
    request_id: str | None = None


class Result(msgspec.Struct, gc=False):
    """What a line says of its request, in the API's shape."""

    type: str
    message: Message | None = None
    error: _ErrorEnvelope | None = None


class Line(msgspec.Struct, gc=False):
    """A result line of the API's shape."""

    custom_id: str
    result: Result


class _LineOfUnknownShape(msgspec.Struct, gc=False):
    custom_id: str
    result: msgspec.Raw = msgspec.Raw(b"null")


class _ResultOfUnknownShape(msgspec.Struct, gc=False):
    type: str


_LINE = msgspec.json.Decoder(Line)
_UNKNOWN_LINE = msgspec.json.Decoder(_LineOfUnknownShape)
_UNKNOWN_RESULT = msgspec.json.Decoder(_ResultOfUnknownShape)
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_NO_USAGE = (None, None, None, None, None)
_Tokens = tuple[int | None, int | None, int | None, int | None, int | None]


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What became of one request, with the vendor's words kept."""

    kind: Kind
    reason: str | None = None
    """Why it is not Succeeded, as one sentence for an analyst."""
    output: str | None = None
    """The validated answer as JSON text; only for Succeeded."""
    text: str | None = None
    """The model's raw text, where it differs from ``output``."""
    stop_reason: str | None = None
    error_type: str | None = None
    model: str | None = None
    message_id: str | None = None
    tokens: _Tokens = _NO_USAGE
    """input, output, cache read, 5-minute cache write, 1-hour cache write."""


MISSING = Outcome("Missing", "the batch's results hold no line for this request")


class Decoded(msgspec.Struct, frozen=True, gc=False):
    """A result line that names a request."""

    custom_id: str
    outcome: Outcome


def decode(line: bytes, schema: OutputSchema | None) -> Decoded | None:
    """The outcome that one line of a results file tells of, or None when it names no request."""
    try:
        parsed = _LINE.decode(line)
    except _UNREADABLE:
        return _decode_unknown(line)
    return Decoded(parsed.custom_id, outcome_of(parsed.result, schema))


def decode_block(block: bytes) -> Sequence[Line] | None:
    """All lines of a block at once; None where one is not of the API's shape, or is blank.

    The block ends with a newline. JSON may hold newlines too, and a result line may not: there are
    as many lines as newlines, or the block is not taken.
    """
    try:
        parsed = _LINE.decode_lines(block)
    except _UNREADABLE:
        return None
    newlines = np.count_nonzero(np.frombuffer(block, dtype=np.uint8) == ord("\n"))
    return parsed if len(parsed) == newlines else None


def outcome_of(result: Result, schema: OutputSchema | None) -> Outcome:
    """What became of the request of a line of the API's shape."""
    match result.type:
        case "succeeded" if result.message is not None:
            return _answered(result.message, schema)
        case "succeeded":
            return _unknown_answer()
        case "errored":
            return _errored(result.error)
        case "expired":
            return Outcome("Expired", "not processed before the batch's 24 hours were over")
        case "canceled":
            return Outcome("Canceled", "the batch was cancelled before this request ran")
        case other:
            return _unknown(f"result type {other!r}")


def _decode_unknown(line: bytes) -> Decoded | None:
    try:
        unknown = _UNKNOWN_LINE.decode(line)
    except _UNREADABLE:
        return None
    try:
        succeeded = _UNKNOWN_RESULT.decode(unknown.result).type == "succeeded"
    except _UNREADABLE:
        succeeded = False
    outcome = _unknown_answer() if succeeded else _unknown("a result line of an unknown shape")
    return Decoded(unknown.custom_id, outcome)


def _unknown(what: str) -> Outcome:
    return Outcome(
        "Errored",
        f"the API answered with {what}, which this version cannot read",
        error_type="unreadable_result",
    )


def _unknown_answer() -> Outcome:
    return Outcome(
        "Invalid",
        "the API answered with a message of an unknown shape, which this version cannot read;"
        " its line is kept among the raw results",
    )


def _answered(message: Message, schema: OutputSchema | None) -> Outcome:
    blocks = message.content or ()
    texts = [block.text for block in blocks if block.type == "text" and block.text]
    stop = message.stop_reason
    if (
        schema is not None
        and schema.tool is not None
        and (called := _input_of(schema.tool, blocks))
    ):
        texts, stop = [called], None
    text = texts[0] if len(texts) == 1 else "".join(texts)
    checked = schema.check_text(text) if schema is not None else None
    output = free_text(text) if checked is None else checked.output_json
    kind: Kind = "Succeeded"
    reason = None
    if stop == "refusal":
        kind, reason = "Refused", _refusal(message.stop_details)
    elif stop in ("max_tokens", "model_context_window_exceeded") and (
        checked is None or output is None
    ):
        kind, reason = "Truncated", f"the answer was cut off ({stop})"
    elif stop in ("tool_use", "pause_turn"):
        kind, reason = "Invalid", f"the model stopped for {stop} instead of answering"
    elif output is None:
        kind = "Invalid"
        reason = "; ".join(checked.problems) if checked is not None else "the answer has no text"
    if kind != "Succeeded":
        output = None
    differs = output is None or (checked is not None and text != output)
    return Outcome(
        kind=kind,
        reason=reason,
        output=output,
        text=text if differs else None,
        stop_reason=message.stop_reason,
        model=message.model,
        message_id=message.id,
        tokens=_tokens(message.usage),
    )


def _input_of(tool: str, blocks: Sequence[Block]) -> str | None:
    """What the tool was called with, as JSON text; None where it was not."""
    calls = (bytes(block.input) for block in blocks if block.name == tool)
    return next((call.decode() for call in calls if call), None)


def free_text(text: str) -> str | None:
    """An answer without a schema, as a JSON string; None when the model said nothing."""
    return msgspec.json.encode(text).decode() if text else None


def _refusal(details: _StopDetails | None) -> str:
    facts = [details.category, details.explanation] if details is not None else []
    return ": ".join(["the model refused", *(fact for fact in facts if fact)])


def _errored(envelope: _ErrorEnvelope | None) -> Outcome:
    error = envelope.error if envelope is not None else None
    kind = (error.type if error is not None else None) or "unknown_error"
    message = (error.message if error is not None else None) or "no message"
    return Outcome("Errored", f"{kind}: {message}", error_type=kind)


def _tokens(usage: Usage | None) -> _Tokens:
    if usage is None:
        return _NO_USAGE
    split = usage.cache_creation
    five_minutes = usage.cache_creation_input_tokens
    one_hour: int | None = None
    if split is not None:
        five_minutes, one_hour = split.ephemeral_5m_input_tokens, split.ephemeral_1h_input_tokens
    return (
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_input_tokens,
        five_minutes,
        one_hour,
    )


def too_large(params_bytes: int, max_bytes: int) -> Outcome:
    """The outcome of a record whose request alone is over the limit of a batch; it is not sent."""
    return Outcome(
        "Errored",
        f"the request has {params_bytes:,} bytes and a batch takes {max_bytes:,}; "
        "shorten the record or the prompt",
        error_type="request_too_large",
    )
