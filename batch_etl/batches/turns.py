"""The turns before the question: examples that all records share, and a record's conversation.

    messages    example 1: user, assistant
                example 2: user, assistant
                the conversation's turns
                the prompt (with its attachments)

An example is a question and the answer that is wanted; an answer written as a mapping is sent as
JSON and held to the output schema at load. Examples are constant, so a prompt cache can hold them.

A conversation is a column with a list of ``{role, content}``, or the same as JSON text. With a
prompt, its turns stand before the prompt. Without one its last turn is the question, and must be
the user's: models from 4.6 on refuse to go on from a turn of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import msgspec
import pydantic

from batch_etl.batches.attachments import Unfit
from batch_etl.strict import Strict

_ENCODER = msgspec.json.Encoder()
_ROLES = ("user", "assistant")


class Example(Strict):
    """One question and its answer, shown to the model before each record's question."""

    user: str | list[dict[str, Any]] = pydantic.Field(description="Text, or content blocks.")
    assistant: str | dict[str, Any] = pydantic.Field(
        description="The answer: text, or the JSON that the schema wants, as a mapping."
    )

    @pydantic.field_validator("user", "assistant")
    @classmethod
    def _is_not_empty(cls, content: Any) -> Any:
        if not content or (isinstance(content, str) and not content.strip()):
            raise ValueError("is empty, and the API takes no empty turn")
        return content

    @property
    def answer(self) -> str:
        """The answer as the text that is sent."""
        answer = self.assistant
        return answer if isinstance(answer, str) else _ENCODER.encode(answer).decode()


def example_turns(examples: Sequence[Example]) -> bytes:
    """The examples' turns as JSON, a comma after each."""
    turns = [
        {"role": role, "content": content}
        for example in examples
        for role, content in (("user", example.user), ("assistant", example.answer))
    ]
    return b"".join(_ENCODER.encode(turn) + b"," for turn in turns)


class Conversation(NamedTuple):
    """A record's turns."""

    before: bytes = b""
    """JSON, a comma after each turn."""
    asked: list[bytes] = []  # noqa: RUF012 - a named tuple's default, never changed
    """The blocks of the last turn, where that is the question."""


def conversation(value: Any, *, is_question: bool) -> Conversation:
    """The turns of one record's value; ``is_question``: there is no prompt after them.

    Raises ``Unfit``.
    """
    turns = _turns(value)
    if not is_question:
        return Conversation(_joined(turns))
    if not turns:
        raise Unfit("is empty, and there is no prompt: nothing would be asked")
    *before, last = turns
    if last["role"] != "user":
        raise Unfit("ends with a turn of the assistant's, so nothing is asked")
    return Conversation(_joined(before), _blocks(last["content"]))


def _joined(turns: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(_ENCODER.encode(turn) + b"," for turn in turns)


def _blocks(content: str | list[dict[str, Any]]) -> list[bytes]:
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return [_ENCODER.encode(block) for block in blocks]


def _turns(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, str):
        value = _decoded(value) if value.strip() else None
    if value is None:
        return []
    if not isinstance(value, list):
        raise Unfit("is no list of turns {role, content}")
    return [_turn(turn, number) for number, turn in enumerate(cast("list[Any]", value), 1)]


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Unfit(f"is not JSON: {error}") from None


def _turn(value: Any, number: int) -> dict[str, Any]:
    turn = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    if set(turn) != {"role", "content"}:
        raise Unfit(f"turn {number} is not {{role, content}}")
    role, content = turn["role"], _without_nulls(turn["content"])
    if role not in _ROLES:
        raise Unfit(f"turn {number}: the role is {role!r}, and must be user or assistant")
    if isinstance(content, str):
        if not content.strip():
            raise Unfit(f"turn {number} is empty, and the API takes no empty turn")
    elif not _are_blocks(content):
        raise Unfit(f"turn {number}: the content is neither text nor a list of content blocks")
    return {"role": role, "content": content}


def _are_blocks(content: Any) -> bool:
    blocks = cast("list[Any]", content) if isinstance(content, list) else []
    return bool(blocks) and all(isinstance(block, dict) and "type" in block for block in blocks)


def _without_nulls(value: Any) -> Any:
    """Arrow's structs have all keys, null where a block has none."""
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        return {key: _without_nulls(one) for key, one in members.items() if one is not None}
    if isinstance(value, list):
        return [_without_nulls(one) for one in cast("list[Any]", value)]
    return value
