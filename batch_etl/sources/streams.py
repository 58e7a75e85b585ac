"""A file as a stream of bytes: opened, decompressed, transcoded to UTF-8, with errors that name it.

Nothing here holds more than a few blocks. Compression goes by the file name's last extension.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import pyarrow as pa
from pydantic import AfterValidator
from upath import UPath

from batch_etl.errors import SourceError

BLOCK_BYTES = 1 << 20

_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}


def _encoding_known(encoding: str) -> str:
    try:
        codecs.getincrementaldecoder(encoding)
    except LookupError:
        raise ValueError(f"unknown encoding {encoding!r}; use Python's name of it") from None
    return encoding


Encoding = Annotated[str, AfterValidator(_encoding_known)]
"""A source's key ``encoding``."""


def without_compression(name: str) -> str:
    """The file name less its compression's extension: ``posts.csv.gz`` is a ``posts.csv``."""
    stem, dot, extension = name.rpartition(".")
    return stem if f"{dot}{extension}".lower() in _COMPRESSIONS else name


@contextmanager
def reading(path: UPath) -> Iterator[None]:
    """Turn what the operating system or a decompressor says into an error that names the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise SourceError(f"{path} is gone: it was there when the files were listed") from error
    except PermissionError as error:
        raise SourceError(
            f"{path}: permission denied; let this user read it (chmod, chown), or be one who can"
        ) from error
    except OSError as error:
        raise SourceError(
            f"{path} cannot be read: {error}. If its name says it is compressed, it may be cut "
            "off, damaged, or not compressed at all: fetch it again, or rename it"
        ) from error


@contextmanager
def open_binary(path: UPath) -> Iterator[Any]:
    """The file's bytes, decompressed, as a readable stream. A file of no bytes is refused."""
    with reading(path):
        size_bytes = path.stat().st_size
        if size_bytes == 0:
            raise SourceError(
                f"{path} is empty (0 bytes); write it again, or take it out of `path`. "
                "A source without records has a header line, or is a JSON []"
            )
        with path.open("rb") as file:
            codec = _COMPRESSIONS.get(path.suffix.lower())
            raw = pa.PythonFile(file, mode="r")
            yield raw if codec is None else pa.CompressedInputStream(raw, codec)


@contextmanager
def open_utf8(path: UPath, encoding: str) -> Iterator[Any]:
    """The file's text as a stream of UTF-8 bytes without a byte order mark.

    UTF-8 itself is passed on unchecked: whoever parses it checks it, and calls
    :func:`undecodable` to say where it is wrong.
    """
    with open_binary(path) as raw:
        if is_utf8(encoding):
            yield Unmarked(raw)
        else:
            yield Unmarked(Transcoded(raw, encoding, str(path)))


def is_utf8(encoding: str) -> bool:
    return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")


class Unmarked(io.RawIOBase):
    """A stream less a leading UTF-8 byte order mark; ``read`` never gives more than was asked for.

    It counts a byte on the way when told which, for the CSV reader's check of closed quotes.
    """

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._started = False
        self.counted: bytes | None = None
        self.count = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if not self._started:
            self._started = True
            first = self._raw.read(3)
            if first != codecs.BOM_UTF8:
                rest = self._raw.read(size - len(first) if size >= 0 else -1)
                return self._seen(first + rest)
        return self._seen(self._raw.read(size))

    def _seen(self, data: bytes) -> bytes:
        if self.counted is not None:
            self.count += data.count(self.counted)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class Transcoded(io.RawIOBase):
    """Bytes in ``encoding`` as bytes in UTF-8. Raises SourceError at the first undecodable byte."""

    def __init__(self, raw: Any, encoding: str, name: str) -> None:
        self._raw = raw
        self._name = name
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._ready = b""
        self._taken_bytes = 0
        self._lines = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while not self._ready or size < 0:
            block = self._raw.read(BLOCK_BYTES)
            self._ready += self._decode(block)
            if not block:
                break
        size = len(self._ready) if size < 0 else size
        data, self._ready = self._ready[:size], self._ready[size:]
        return data

    def _decode(self, block: bytes) -> bytes:
        waiting = self._decoder.getstate()[0]
        try:
            text = self._decoder.decode(block, final=not block)
            data = text.encode()
        except UnicodeError as error:
            raise self._undecodable(waiting + block, error) from error
        self._taken_bytes += len(block)
        self._lines += text.count("\n")
        return data

    def _undecodable(self, data: bytes, error: UnicodeError) -> SourceError:
        start = error.start if isinstance(error, UnicodeDecodeError) else 0
        line = self._lines + data[:start].decode(self._encoding, "ignore").count("\n") + 1
        offset = self._taken_bytes - len(self._decoder.getstate()[0]) + start
        found = data[start : start + 1].hex()
        return SourceError(
            f"{self._name} is not {self._encoding}: byte 0x{found} at offset {offset} (line "
            f"{line}) cannot be decoded; set `encoding` to the file's own"
            f"{_guess(data, offset - start)}"
        )


def _guess(data: bytes, offset: int) -> str:
    if offset == 0 and data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return ": it begins like utf-16"
    return ", for instance cp1252, latin-1 or utf-16"


def undecodable(path: UPath, encoding: str) -> SourceError | None:
    """Where the file stops being ``encoding``, or None: one more reading of it."""
    with open_binary(path) as raw:
        stream = Transcoded(raw, encoding, str(path))
        try:
            while stream.read(BLOCK_BYTES):
                pass
        except SourceError as error:
            return error
    return None
