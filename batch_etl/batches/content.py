"""The user's turn of a record whose request is more than the prompt's text.

    {"role": "user", "content": [attachment blocks ..., {"type": "text", "text": the prompt}]}

with the turns of the record's conversation before it. A record without any attachment has the
prompt alone, as plain text: the same bytes as if the task had none.

Files are read when their record is rendered, one record at a time, and are in the request_key
through the bytes that are sent. A record whose file cannot be had, or that the API would refuse for
its images (their number, bytes and pixels: docs/batches-api.md, section 5), is ``Unfit``: it is
told why, and the others go on.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, cast

import msgspec
import pyarrow as pa

from batch_etl.batches.attachments import Attachment, Unfit
from batch_etl.batches.attachments_files import read_file, stamp
from batch_etl.batches.content_images import look, reduced
from batch_etl.batches.models import (
    MANY_IMAGES,
    MAX_IMAGE_BASE64_BYTES,
    MAX_IMAGE_SIDE_PX,
    MAX_SIDE_OF_MANY_PX,
    most_images,
)
from batch_etl.batches.task import Task
from batch_etl.batches.turns import Conversation, conversation

QUESTION = b'{"role":"user","content":'
"""What the question's turn begins with."""

_PDF = b"%PDF-"
_PDF_WITHIN_BYTES = 1024
_ENCODER = msgspec.json.Encoder()


@dataclass
class _Seen:
    """What one record has attached."""

    size_bytes: int = 0
    count: int = 0
    """Of images."""
    longest_px: int = 0


@dataclass(frozen=True)
class Content:
    """Makes the turns of a task's records."""

    attachments: tuple[Attachment, ...]
    conversation: str | None
    has_prompt: bool
    folder: Path
    max_bytes: int
    max_images: int | None

    @classmethod
    def of(cls, task: Task, folder: Path) -> Content | None:
        """None where the prompt's text is all that a request of the task asks with."""
        if not task.attachments and task.conversation is None:
            return None
        return cls(
            attachments=task.attachments,
            conversation=task.conversation,
            has_prompt=task.prompt is not None,
            folder=folder,
            max_bytes=task.packing.max_bytes,
            max_images=most_images([task.claude_model, *task.retry.stronger_models]),
        )

    def turns(self, records: pa.RecordBatch, prompts: Sequence[bytes]) -> Iterator[bytes | Unfit]:
        """Of each record the turns from the conversation's first on, without the last brace.

        ``prompts`` are JSON strings, empty where there is none; so is what is made of that.
        """
        for row, prompt in enumerate(prompts):
            try:
                yield self._turns(records, row, prompt) if prompt else b""
            except Unfit as unfit:
                yield unfit

    def _turns(self, records: pa.RecordBatch, row: int, prompt: bytes) -> bytes:
        told = self._conversation(records, row)
        blocks = [*self._attached(records, row), *told.asked]
        if self.has_prompt and not blocks:
            return told.before + QUESTION + prompt
        if self.has_prompt and msgspec.json.decode(prompt, type=str).strip():
            blocks.append(b'{"type":"text","text":' + prompt + b"}")
        return b"".join((told.before, QUESTION, b"[", b",".join(blocks), b"]"))

    def _conversation(self, records: pa.RecordBatch, row: int) -> Conversation:
        if self.conversation is None:
            return Conversation()
        value = records.column(self.conversation)[row].as_py()
        try:
            return conversation(value, is_question=not self.has_prompt)
        except Unfit as unfit:
            raise Unfit(f"the conversation in {self.conversation!r} {unfit}") from None

    def _attached(self, records: pa.RecordBatch, row: int) -> list[bytes]:
        seen, blocks = _Seen(), list[bytes]()
        for attachment in self.attachments:
            values = _titled(attachment, records, row)
            if attachment.required and not values:
                raise Unfit(f"there is no {attachment.type} in {attachment.column!r}")
            for number, (value, title) in enumerate(values):
                control = attachment.cache_control if number == len(values) - 1 else None
                blocks.append(self._block(attachment, value, title, control, seen))
                seen.size_bytes += len(blocks[-1])
                if seen.size_bytes > self.max_bytes:
                    raise Unfit(f"the attachments have more than {self.max_bytes:,} bytes, a batch")
        self._check_images(seen)
        return blocks

    def _block(
        self,
        attachment: Attachment,
        value: Any,
        title: str | None,
        control: dict[str, Any] | None,
        seen: _Seen,
    ) -> bytes:
        try:
            made = self._source(attachment, value, seen)
        except Unfit as unfit:
            name = f" {value!r}" if attachment.holds in ("path", "url", "file_id") else ""
            where = f"{attachment.type}{name} in {attachment.column!r}"
            raise Unfit(f"the {where} {unfit}") from None
        block: dict[str, Any] = {"type": attachment.type, "source": made}
        if title:
            block["title"] = title
        if attachment.citations:
            block["citations"] = {"enabled": True}
        if control is not None:
            block["cache_control"] = control
        return _ENCODER.encode(block)

    def _source(self, attachment: Attachment, value: Any, seen: _Seen) -> dict[str, Any]:
        match attachment.holds:
            case "url":
                seen.count += attachment.type == "image"
                return {"type": "url", "url": _url(str(value))}
            case "file_id":
                seen.count += attachment.type == "image"
                return {"type": "file", "file_id": str(value)}
            case "text":
                return _text(str(value))
            case _:
                data = self._bytes(attachment, value)
                return (
                    self._image(attachment, data, seen)
                    if _is_image(attachment)
                    else (_document(data))
                )

    def _bytes(self, attachment: Attachment, value: Any) -> bytes:
        if attachment.holds == "path":
            folder = self.folder / attachment.folder
            data = read_file(folder, str(value), self.max_bytes)
        elif attachment.holds == "base64":
            data = _decoded(str(value))
        elif isinstance(value, bytes):
            data = value
        else:
            raise Unfit("is no binary column; say with `holds` what its values are")
        if not data:
            raise Unfit("is empty")
        return data

    def _image(self, attachment: Attachment, data: bytes, seen: _Seen) -> dict[str, Any]:
        if attachment.reduce_to_px is not None:
            data = reduced(data, attachment.reduce_to_px)
        picture = look(data)
        encoded = _base64(data)
        if len(encoded) > MAX_IMAGE_BASE64_BYTES + 2:
            raise Unfit(
                f"has {len(encoded) - 2:,} bytes as base64, and the API takes "
                f"{MAX_IMAGE_BASE64_BYTES:,}; make it smaller, or set reduce_to_px"
            )
        if picture.longer_px > MAX_IMAGE_SIDE_PX:
            raise Unfit(
                f"has {picture.width_px} x {picture.height_px} px, and the API takes "
                f"{MAX_IMAGE_SIDE_PX} a side; make it smaller, or set reduce_to_px"
            )
        seen.count += 1
        seen.longest_px = max(seen.longest_px, picture.longer_px)
        return {"type": "base64", "media_type": picture.media_type, "data": msgspec.Raw(encoded)}

    def _check_images(self, seen: _Seen) -> None:
        if self.max_images is not None and seen.count > self.max_images:
            raise Unfit(f"there are {seen.count} images, and the model takes {self.max_images}")
        if seen.count > MANY_IMAGES and seen.longest_px > MAX_SIDE_OF_MANY_PX:
            raise Unfit(
                f"there are {seen.count} images, and of more than {MANY_IMAGES} the API takes none "
                f"over {MAX_SIDE_OF_MANY_PX} px a side (one has {seen.longest_px}); "
                f"set reduce_to_px to {MAX_SIDE_OF_MANY_PX}"
            )

    # whether files have changed -----------------------------------------------------------------

    @property
    def path_columns(self) -> list[str]:
        """The columns that name files."""
        named = [one.column for one in self.attachments if one.holds == "path"]
        return list(dict.fromkeys(named))

    def stamps(self, records: Iterable[pa.RecordBatch]) -> Iterator[str]:
        """One text for each file that the records name; another one once a file has changed."""
        for batch in records:
            for attachment in self.attachments:
                if attachment.holds == "path":
                    folder = self.folder / attachment.folder
                    for value in batch.column(attachment.column).to_pylist():
                        yield from (stamp(folder, str(one)) for one in _listed(value) if one)


def _is_image(attachment: Attachment) -> bool:
    return attachment.type == "image"


def _titled(
    attachment: Attachment, records: pa.RecordBatch, row: int
) -> list[tuple[Any, str | None]]:
    """The values that are there (no nulls, no empty texts), each with its title.

    A list of titles goes with a list of values, one by one; a single title with each of them.
    """
    values = _listed(records.column(attachment.column)[row].as_py())
    titles: list[Any] = []
    if attachment.title_column is not None:
        told = records.column(attachment.title_column)[row].as_py()
        titles = cast("list[Any]", told) if isinstance(told, list) else [told] * len(values)
    pairs = zip_longest(values, titles[: len(values)])
    return [
        (value, None if title is None else str(title))
        for value, title in pairs
        if not (value is None or value in ("", b""))
    ]


def _listed(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else [value]


def _url(text: str) -> str:
    if not text.startswith(("https://", "http://")):
        raise Unfit("is no address: it begins neither with https:// nor with http://")
    return text


def _decoded(text: str) -> bytes:
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return binascii.a2b_base64("".join(text.split()), strict_mode=True)
    except ValueError as error:
        raise Unfit(f"is no base64: {error}") from None


def _base64(data: bytes) -> bytes:
    """As a JSON string, with its quotes."""
    return b'"' + binascii.b2a_base64(data, newline=False) + b'"'


def _document(data: bytes) -> dict[str, Any]:
    if _PDF in data[:_PDF_WITHIN_BYTES]:
        raw = msgspec.Raw(_base64(data))
        return {"type": "base64", "media_type": "application/pdf", "data": raw}
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise Unfit("is neither PDF nor text in UTF-8")
    return _text(text)


def _text(text: str) -> dict[str, Any]:
    if not text.strip():
        raise Unfit("is empty")
    return {"type": "text", "media_type": "text/plain", "data": text}
