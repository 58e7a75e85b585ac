"""Record -> request: the exact bytes of its parameters, their key, and its custom_id.

Serialised once. A request's JSON is a constant head, the record's own JSON string, a constant
tail; the constant parts are encoded once a task, and the ``request_key`` is the SHA-256 of the
very bytes that are sent (cut to 128 bits), so equal keys mean equal questions, whatever file,
partition or row they come from. A cryptographic hash on purpose: a faster one (xxh3) would let a
hostile record be made to collide with a harmless one and take over its answer.

A ``custom_id`` is the batch's own random token and the request's row in the batch's manifest,
``<16 hex>-<6 digits>``: any one result line proves whose batch it is, and matching a line to its
request is an array access. The API wants ``^[a-zA-Z0-9_-]{1,64}$``, unique in the batch.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import jinja2
import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batch_etl.batches.errors import RenderError
from batch_etl.batches.task import Task
from batch_etl.strict import did_you_mean

KEY_BYTES = 16
"""Bytes of a request_key."""

_TOKEN_HEX = 16
_ROW_DIGITS = 6
_CUSTOM_ID = re.compile(rf"([0-9a-f]{{{_TOKEN_HEX}}})-([0-9]{{{_ROW_DIGITS}}})")

_LINE_HEAD = b'{"custom_id":"'
_LINE_MIDDLE = b'","params":'
_LINE_TAIL = b"}"
LINE_OVERHEAD_BYTES = (
    len(_LINE_HEAD) + _TOKEN_HEX + 1 + _ROW_DIGITS + len(_LINE_MIDDLE) + len(_LINE_TAIL)
)
"""Bytes of a request's entry beyond its parameters."""

_ENCODER = msgspec.json.Encoder()


def new_token() -> str:
    """A batch's random name, with which each of its custom_ids begins."""
    return secrets.token_hex(_TOKEN_HEX // 2)


def custom_id(token: str, row: int) -> str:
    return f"{token}-{row:0{_ROW_DIGITS}}"


def parse_custom_id(text: str) -> tuple[str, int] | None:
    """The token and row of a custom_id that this engine made; None for any other text."""
    match = _CUSTOM_ID.fullmatch(text)
    return (match[1], int(match[2])) if match else None


def entry(token: str, row: int, params: bytes) -> bytes:
    """One element of the create call's ``requests`` list."""
    return b"".join((_LINE_HEAD, custom_id(token, row).encode(), _LINE_MIDDLE, params, _LINE_TAIL))


@dataclass(frozen=True)
class Rendered:
    """The requests of one batch of records, in the records' order."""

    params: list[bytes]
    """The parameters' JSON as sent."""
    keys: npt.NDArray[np.bytes_]
    """request_keys, dtype S16."""
    record_ids: list[str]

    def __len__(self) -> int:
        return len(self.params)


class Renderer:
    """Renders one task over records of one Arrow schema.

    Raises ``RenderError`` at construction when the prompt names a field that the records do not
    have, or the id column is not among them.
    """

    def __init__(self, task: Task, id_column: str, columns: Iterable[str], where: str) -> None:
        available = list(columns)
        self._where = where
        self._id_column = id_column
        self._require({id_column}, available, "the id column")
        self._require(task.template.fields, available, "the prompt")
        if task.template.uses_record:
            self._used = available
        else:
            used = [name for name in available if name in task.template.names]
            self._used = used or [id_column]  # rows are counted by a column
        self._prompts = task.template.rendering(self._used)
        constant = msgspec.json.encode(task.constant_params)
        self._head = constant[:-1] + b',"messages":[{"role":"user","content":'
        self._tail = b"}]}"
        self._hash = hashlib.sha256("\n".join([*task.betas, ""]).encode() + self._head)

    @property
    def columns(self) -> list[str]:
        """The columns that rendering reads: the id and what the prompt uses."""
        return list(dict.fromkeys([self._id_column, *self._used]))

    def render(self, records: pa.RecordBatch) -> Rendered:
        """Requests of these records. Raises ``RenderError`` naming record and field."""
        ids = [str(value) for value in records.column(self._id_column).to_pylist()]
        values = [records.column(name).to_pylist() for name in self._used]
        head, tail, encode = self._head, self._tail, _ENCODER.encode
        contents = [encode(prompt) for prompt in self._guarded(self._prompts(values), ids)]
        params = [b"".join((head, content, tail)) for content in contents]
        digests = b"".join([self._key(content) for content in contents])
        return Rendered(params, np.frombuffer(digests, dtype=f"S{KEY_BYTES}"), ids)

    def _key(self, content: bytes) -> bytes:
        digest = self._hash.copy()
        digest.update(content)
        digest.update(self._tail)
        return digest.digest()[:KEY_BYTES]

    def _guarded(self, prompts: Iterator[str], ids: list[str]) -> Iterator[str]:
        row = 0
        try:
            for prompt in prompts:
                yield prompt
                row += 1
        except jinja2.UndefinedError as error:
            raise RenderError(self._where, ids[row], str(error.message)) from None
        except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise RenderError(self._where, ids[row], f"{type(error).__name__}: {error}") from None

    def _require(self, names: Iterable[str], available: list[str], who: str) -> None:
        for name in sorted(set(names) - set(available)):
            near = did_you_mean(name, available)
            problem = f"{who} names the field {name!r}, which no record has{near}"
            raise RenderError(self._where, None, problem)


def key_hex(key: bytes) -> str:
    """A request_key as tables show it. NumPy drops trailing zero bytes; they are put back."""
    return key.ljust(KEY_BYTES, b"\0").hex()


def keys_array(keys: npt.NDArray[np.bytes_]) -> pa.Array[Any]:
    """request_keys as a fixed-size binary Arrow array."""
    data = np.ascontiguousarray(keys, dtype=f"S{KEY_BYTES}")
    return pa.Array.from_buffers(pa.binary(KEY_BYTES), len(data), [None, pa.py_buffer(data)])
