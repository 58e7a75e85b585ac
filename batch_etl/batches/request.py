"""Record -> request: the exact bytes of its parameters, their key, and its custom_id.

Serialised once. A request's JSON is a constant head, the record's own JSON string, a constant
tail; the constant parts are encoded once a task, and the ``request_key`` is the SHA-256 of the
very bytes that are sent (cut to 128 bits), so equal keys mean equal questions, whatever file,
partition or row they come from. A cryptographic hash on purpose: a faster one (xxh3) would let a
hostile record be made to collide with a harmless one and take over its answer.

A later attempt may ask another model, for more tokens, or with further turns:
:meth:`Renderer.asked` changes just that. The key stays the question's, which is what attempt 1
sends.

A record whose prompt cannot be rendered (a template that divides by its null) has a problem instead
of a request, and the others go on. So has one whose attachment or conversation cannot be sent
(``content.py``): a fault.

Requests with images are large: :meth:`Renderer.parts` renders so many records at a time as make
``PART_BYTES``, and whoever passes over all records never holds more than that beside its payload.

A ``custom_id`` is the batch's own random token and the request's row in the batch's manifest,
``<16 hex>-<6 digits>``: any one result line proves whose batch it is, and matching a line to its
request is an array access. The API wants ``^[a-zA-Z0-9_-]{1,64}$``, unique in the batch.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import jinja2
import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batch_etl import arrow
from batch_etl.batches.attachments import Unfit
from batch_etl.batches.content import QUESTION, Content
from batch_etl.batches.errors import RenderError
from batch_etl.batches.task import Task
from batch_etl.batches.template import FAILURES
from batch_etl.batches.turns import example_turns
from batch_etl.strict import did_you_mean

KEY_BYTES = 16
"""Bytes of a request_key."""

PART_BYTES = 4 * 2**20
"""Of requests with attachments, as many are rendered at a time as have so many bytes."""

_TOKEN_HEX = 16
_ROW_DIGITS = 6
_CUSTOM_ID = re.compile(rf"([0-9a-f]{{{_TOKEN_HEX}}})-([0-9]{{{_ROW_DIGITS}}})")

_POWERS = 10 ** np.arange(_ROW_DIGITS - 1, -1, -1, dtype=np.int64)

_LINE_HEAD = b'{"custom_id":"'
_LINE_MIDDLE = b'","params":'
_LINE_TAIL = b"}"
LINE_OVERHEAD_BYTES = (
    len(_LINE_HEAD) + _TOKEN_HEX + 1 + _ROW_DIGITS + len(_LINE_MIDDLE) + len(_LINE_TAIL)
)
"""Bytes of a request's entry beyond its parameters."""

_HERE = Path()
_ENCODER = msgspec.json.Encoder()
_NO_DIGEST = bytes(hashlib.sha256().digest_size)
_UNREADABLE = (ArithmeticError, ValueError)


def new_token() -> str:
    """A batch's random name, with which each of its custom_ids begins."""
    return secrets.token_hex(_TOKEN_HEX // 2)


def custom_id(token: str, row: int) -> str:
    return f"{token}-{row:0{_ROW_DIGITS}}"


def custom_ids(token: str, rows: pa.Array[Any]) -> pa.Array[Any]:
    """The custom_ids of a batch's rows, as a column."""
    numbers = arrow.numbers(rows)
    if (numbers >= 10**_ROW_DIGITS).any():
        return pa.array([custom_id(token, row) for row in numbers.tolist()], pa.string())
    head = f"{token}-".encode()
    letters = np.empty((len(numbers), len(head) + _ROW_DIGITS), dtype=np.uint8)
    letters[:, : len(head)] = np.frombuffer(head, dtype=np.uint8)
    for place in range(1, _ROW_DIGITS + 1):
        numbers, digit = np.divmod(numbers, 10)
        letters[:, -place] = digit + ord("0")
    ends = np.arange(0, letters.size + 1, letters.shape[1], dtype=np.int32)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(letters)]
    return pa.Array.from_buffers(pa.string(), len(letters), buffers)


def parse_custom_id(text: str) -> tuple[str, int] | None:
    """The token and row of a custom_id that this engine made; None for any other text."""
    match = _CUSTOM_ID.fullmatch(text)
    return (match[1], int(match[2])) if match else None


def rows_named(names: Sequence[str], token: str) -> npt.NDArray[np.int64]:
    """The row that each custom_id names in the batch of this token; -1 for all that name none."""
    text = "".join(names)
    width = _TOKEN_HEX + 1 + _ROW_DIGITS
    if not text.isascii() or {*map(len, names)} != {width}:
        return np.array([_row_named(name, token) for name in names], dtype=np.int64)
    letters = np.frombuffer(text.encode(), dtype=np.uint8).reshape(-1, width)
    digits = letters[:, -_ROW_DIGITS:] - np.uint8(ord("0"))  # what stands before "0" wraps around
    prefix = np.frombuffer(f"{token}-".encode(), dtype=np.uint8)
    named = (letters[:, :-_ROW_DIGITS] == prefix).all(axis=1) & (digits <= 9).all(axis=1)
    return np.where(named, digits.astype(np.int64) @ _POWERS, -1)


def _row_named(name: str, token: str) -> int:
    parsed = parse_custom_id(name)
    return parsed[1] if parsed is not None and parsed[0] == token else -1


def entry(token: str, row: int, params: bytes) -> bytes:
    """One element of the create call's ``requests`` list."""
    return b"".join((_LINE_HEAD, custom_id(token, row).encode(), _LINE_MIDDLE, params, _LINE_TAIL))


class Params:
    """The parameters' JSON of some requests, of which all begin alike, as it is sent.

    What all begin with is held once, and each is put together where it is wanted: by then it goes
    into a payload, and would be copied once more.
    """

    def __init__(self, head: bytes, ends: list[bytes]) -> None:
        """``ends`` come after ``head``; an empty one is no request."""
        self._head = head
        self._ends = ends

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, at: int) -> bytes:
        return self._head + end if (end := self._ends[at]) else b""

    def __iter__(self) -> Iterator[bytes]:
        return map(self.__getitem__, range(len(self)))

    @cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        """The bytes of each; 0 where there is no request."""
        ends = np.fromiter(map(len, self._ends), dtype=np.int64, count=len(self))
        return np.where(ends, ends + len(self._head), 0)

    def taken(self, places: npt.NDArray[np.intp]) -> Params:
        """Those at these ascending places."""
        if len(places) == len(self):
            return self
        return Params(self._head, [self._ends[at] for at in places.tolist()])

    def among(self, places: Sequence[int], count: int) -> Params:
        """These at ``places`` among ``count`` of which the others are no requests."""
        ends = [b""] * count
        for at, end in zip(places, self._ends, strict=True):
            ends[at] = end
        return Params(self._head, ends)

    def cut(self, start: int, end: int) -> Params:
        return Params(self._head, self._ends[start:end])

    def entries(self, token: str, first_row: int) -> list[bytes]:
        """Pieces of the entries that stand one after the other from this row on.

        Joined they are what :func:`entry` makes of each, with a comma before it.
        """
        before = b"," + _LINE_HEAD + token.encode() + b"-"
        pieces = zip(
            repeat(before),
            _digits(first_row, len(self)),
            repeat(_LINE_MIDDLE + self._head),
            self._ends,
            repeat(_LINE_TAIL),
        )
        return list(chain.from_iterable(pieces))


def _digits(first_row: int, rows: int) -> list[bytes]:
    """The digits of custom_ids."""
    numbers = np.arange(first_row, first_row + rows)[:, None] // _POWERS % 10 + ord("0")
    return numbers.astype(np.uint8).view(f"S{_ROW_DIGITS}").reshape(-1).tolist()


@dataclass(frozen=True)
class Rendered:
    """The requests of one batch of records, in the records' order."""

    params: Params
    """The parameters' JSON as sent; empty for a record with a problem."""
    keys: npt.NDArray[np.bytes_]
    """request_keys, dtype S16; zeros for a record with a problem."""
    record_ids: pa.Array[Any]
    """As texts, none null."""
    problems: dict[int, str] = field(default_factory=dict[int, str])
    """By row: why the prompt of this record cannot be rendered."""
    faults: dict[int, str] = field(default_factory=dict[int, str])
    """By row: why an attachment or the conversation of this record cannot be sent."""

    def __len__(self) -> int:
        return len(self.params)

    def among(
        self,
        known: npt.NDArray[np.bool_],
        keys: npt.NDArray[np.bytes_],
        record_ids: pa.Array[Any],
    ) -> Rendered:
        """These requests among others whose ``keys`` are ``known``, and which are not sent."""
        places = np.flatnonzero(~known)
        at: list[int] = places.tolist()
        all_keys = keys.copy()
        all_keys[places] = self.keys
        return Rendered(
            self.params.among(at, len(known)),
            all_keys,
            record_ids,
            {at[row]: problem for row, problem in self.problems.items()},
            {at[row]: fault for row, fault in self.faults.items()},
        )


class Renderer:
    """Renders one task over records of one Arrow schema.

    Raises ``RenderError`` at construction when the prompt names a field that the records do not
    have, or the id column is not among them.
    """

    def __init__(
        self,
        task: Task,
        id_column: str,
        columns: Iterable[str],
        where: str,
        folder: Path = _HERE,
    ) -> None:
        """``folder`` is what the paths of attachments are relative to."""
        available = list(columns)
        self._where = where
        self._id_column = id_column
        self._require({id_column}, available, "the id column")
        self._require(task.template.fields, available, "the prompt")
        for attachment in task.attachments:
            self._require(attachment.columns, available, "an attachment")
        self._require([task.conversation] if task.conversation else [], available, "conversation")
        self._check_conditions(task, available)
        self._content = Content.of(task, folder)
        self._read = task.asks_with(available)
        if task.template.uses_record:
            self._used = available
        else:
            used = [name for name in available if name in task.template.names]
            self._used = used or [id_column]  # rows are counted by a column
        self._prompts = task.template.rendering(self._used)
        self._before = example_turns(task.examples)
        self._constant = task.constant_params
        self._head = self._head_of(self._constant)
        self._heads: dict[tuple[str | None, int | None], bytes] = {(None, None): self._head}
        self._tail = b"}]}"
        self._hash = hashlib.sha256("\n".join([*task.betas, ""]).encode() + self._head)

    @property
    def columns(self) -> list[str]:
        """The columns that rendering reads: the id and what the prompt uses."""
        return list(dict.fromkeys([self._id_column, *self._used, *self._read]))

    @property
    def content(self) -> Content | None:
        """What makes the turns; None where the prompt's text is all."""
        return self._content

    def render(self, records: pa.RecordBatch) -> Rendered:
        """Requests of these records; what cannot be rendered is among the problems."""
        ids = self.ids(records)
        contents, problems = self._contents(records)
        if self._content is None:
            return self._rendered(contents, ids, problems)
        turns, faults = _sorted_out(list(self._content.turns(records, contents)))
        return self._rendered(turns, ids, problems, faults)

    def parts(self, records: pa.RecordBatch, part_bytes: int = PART_BYTES) -> Iterator[Rendered]:
        """The same in parts that follow one another, so that few large requests are held at once.

        A part is over when its turns have ``part_bytes``; without attachments there is one.
        """
        if self._content is None:
            yield self.render(records)
            return
        ids = self.ids(records)
        prompts, problems = self._contents(records)
        held, held_bytes, first = list[bytes | Unfit](), 0, 0
        for row, made in enumerate(self._content.turns(records, prompts)):
            held.append(made)
            held_bytes += len(made) if isinstance(made, bytes) else 0
            if held_bytes >= part_bytes or row == records.num_rows - 1:
                own = {at - first: why for at, why in problems.items() if first <= at <= row}
                contents, faults = _sorted_out(held)
                held, held_bytes = [], 0
                rendered = self._rendered(contents, ids.slice(first, row + 1 - first), own, faults)
                del made, contents
                yield rendered
                del rendered
                first = row + 1

    def ids(self, records: pa.RecordBatch) -> pa.Array[Any]:
        """The records' ids as texts."""
        ids = records.column(self._id_column)
        if ids.type == pa.string() and not ids.null_count:
            return ids
        return pa.array([str(value) for value in ids.to_pylist()], pa.string())

    def _rendered(
        self,
        contents: list[bytes],
        ids: pa.Array[Any],
        problems: dict[int, str],
        faults: dict[int, str] | None = None,
    ) -> Rendered:
        tail = self._tail
        ends = [content + tail if content else b"" for content in contents]
        params = Params(self._head, ends)
        return Rendered(params, self._keys(ends), ids, problems, faults or {})

    def asked(
        self,
        params: bytes,
        claude_model: str | None = None,
        max_tokens: int | None = None,
        further_turns: bytes = b"",
    ) -> bytes:
        """The same question put otherwise: to another model, for more tokens, with more turns.

        ``params`` are as :meth:`render` made them; None leaves what the task says.
        """
        content = params[len(self._head) : -len(self._tail)]
        return b"".join(
            (self._head_for(claude_model, max_tokens), content, b"}", further_turns, b"]}")
        )

    def refusal(self, rendered: Rendered) -> RenderError | None:
        """The first problem as an error that names its record; None where there is none."""
        if not rendered.problems:
            return None
        row = min(rendered.problems)
        return RenderError(self._where, rendered.record_ids[row].as_py(), rendered.problems[row])

    def _head_for(self, claude_model: str | None, max_tokens: int | None) -> bytes:
        wanted = (claude_model, max_tokens)
        if wanted not in self._heads:
            changes = {"model": claude_model, "max_tokens": max_tokens}
            given = {key: value for key, value in changes.items() if value is not None}
            self._heads[wanted] = self._head_of({**self._constant, **given})
        return self._heads[wanted]

    def _head_of(self, constant: dict[str, Any]) -> bytes:
        """All that stands before the question, or before the record's turns."""
        question = QUESTION if self._content is None else b""
        head = msgspec.json.encode(constant)[:-1]
        return b"".join((head, b',"messages":[', self._before, question))

    def _keys(self, ends: list[bytes]) -> npt.NDArray[np.bytes_]:
        """The key of each request, by what comes after the head that all begin with."""
        copied = self._hash.copy
        digests: list[bytes] = []
        for end in ends:
            digest = copied()
            digest.update(end)
            digests.append(digest.digest() if end else _NO_DIGEST)
        whole = np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, len(_NO_DIGEST))
        cut = np.ascontiguousarray(whole[:, :KEY_BYTES])
        return cut.view(f"S{KEY_BYTES}").reshape(-1)

    def _contents(self, records: pa.RecordBatch) -> tuple[list[bytes], dict[int, str]]:
        """Each prompt as JSON; empty, and a problem, where there is none."""
        try:
            values = [records.column(name).to_pylist() for name in self._used]
        except _UNREADABLE as error:  # a value that Python has none for: a date after 9999
            return self._one_by_one(records, error)
        contents: list[bytes] = []
        problems: dict[int, str] = {}
        while len(contents) < records.num_rows:
            rest = [column[len(contents) :] for column in values] if contents else values
            try:  # what was encoded before one that cannot be is kept
                contents.extend(map(_ENCODER.encode, self._prompts(rest)))
            except FAILURES as error:
                problems[len(contents)] = _problem(error)
                contents.append(b"")
        return contents, problems

    def _one_by_one(
        self, records: pa.RecordBatch, error: Exception
    ) -> tuple[list[bytes], dict[int, str]]:
        if records.num_rows == 1:
            return [b""], {0: _problem(error)}
        alone = [self._contents(records.slice(row, 1)) for row in range(records.num_rows)]
        problems = {row: found[0] for row, (_, found) in enumerate(alone) if found}
        return [contents[0] for contents, _ in alone], problems

    def _check_conditions(self, task: Task, available: list[str]) -> None:
        """Conditions take what the request is made from, and nothing else."""
        shown = task.asks_with(available)
        for name in sorted((task.must_meet.columns if task.must_meet else set()) - set(shown)):
            problem = (
                f"a condition names {name!r}, which is no column that the request is made from"
            )
            raise RenderError(self._where, None, f"{problem}{did_you_mean(name, shown)}")

    def _require(self, names: Iterable[str], available: list[str], who: str) -> None:
        for name in sorted(set(names) - set(available)):
            near = did_you_mean(name, available)
            problem = f"{who} names the field {name!r}, which no record has{near}"
            raise RenderError(self._where, None, problem)


def _sorted_out(turns: list[bytes | Unfit]) -> tuple[list[bytes], dict[int, str]]:
    """The turns, empty where there is a fault, and the faults by row."""
    contents = [made if isinstance(made, bytes) else b"" for made in turns]
    faults = {row: str(made) for row, made in enumerate(turns) if isinstance(made, Unfit)}
    return contents, faults


def _problem(error: Exception) -> str:
    if isinstance(error, jinja2.UndefinedError):
        return str(error.message)
    return f"{type(error).__name__}: {error}"


def key_hex(key: bytes) -> str:
    """A request_key as tables show it. NumPy drops trailing zero bytes; they are put back."""
    return key.ljust(KEY_BYTES, b"\0").hex()


def keys_array(keys: npt.NDArray[np.bytes_]) -> pa.Array[Any]:
    """request_keys as a fixed-size binary Arrow array."""
    data = np.ascontiguousarray(keys, dtype=f"S{KEY_BYTES}")
    return pa.Array.from_buffers(pa.binary(KEY_BYTES), len(data), [None, pa.py_buffer(data)])
