"""A batch's request lines on disk: written once at create, read in any order afterwards.

``requests.jsonl`` holds one ``{"custom_id":...,"params":...}`` a line, params byte for byte as
they came (only newlines between tokens are squeezed out). ``requests.idx`` holds the 64-bit offset
of each line and of the end. Both get their names only when whole, so that a batch in the table
always has its lines.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

BLOCK_BYTES = 1_000_000
_HEAD, _MIDDLE, _TAIL = b'{"custom_id":"', b'","params":', b"}\n"


class Line(msgspec.Struct, forbid_unknown_fields=True):
    """One request of a create, its params unparsed."""

    custom_id: str
    params: msgspec.Raw


def write_lines(folder: Path, lines: Iterable[Line]) -> None:
    """Write the lines of a new batch; the index is named last and marks them whole."""
    folder.mkdir(parents=True)
    offsets, position = array("Q", [0]), 0
    with open(folder / "requests.jsonl", "wb", buffering=BLOCK_BYTES) as file:
        for line in lines:
            position += file.write(_encoded(line))
            offsets.append(position)
    temporary = folder / "requests.idx.tmp"
    temporary.write_bytes(offsets.tobytes())
    temporary.replace(folder / "requests.idx")


def _encoded(line: Line) -> bytes:
    params = bytes(line.params)
    if b"\n" in params or b"\r" in params:
        params = msgspec.json.format(params, indent=-1)
    return b"".join((_HEAD, line.custom_id.encode(), _MIDDLE, params, _TAIL))


def _read(line: bytes) -> tuple[str, bytes]:
    """What ``_encoded`` wrote. A custom_id has no quote in it, so nothing needs to be decoded."""
    end = line.index(_MIDDLE, len(_HEAD))
    custom_id = line[len(_HEAD) : end].decode()
    return custom_id, line[end + len(_MIDDLE) : -len(_TAIL)]


def share_lines(source: Path, folder: Path) -> None:
    """Give a second batch the same lines without copying them."""
    folder.mkdir(parents=True)
    for name in ("requests.jsonl", "requests.idx"):
        os.link(source / name, folder / name)


class Spool:
    """The lines of one batch, by position; holds 8 bytes a line in memory."""

    def __init__(self, folder: Path) -> None:
        self._offsets = array("Q", (folder / "requests.idx").read_bytes())
        self._file = os.open(folder / "requests.jsonl", os.O_RDONLY)

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, position: int) -> tuple[str, bytes]:
        """The custom_id and the params."""
        start, end = self._offsets[position], self._offsets[position + 1]
        return _read(os.pread(self._file, end - start, start))

    def find(self, custom_id: str) -> bytes | None:
        """The params of that line; None when there is none. Looks at the head of every line."""
        head = _HEAD + custom_id.encode() + _MIDDLE
        for position in range(len(self)):
            if os.pread(self._file, len(head), self._offsets[position]) == head:
                return self[position][1]
        return None


def read_blocks(path: Path, size_bytes: int = BLOCK_BYTES) -> Iterator[bytes]:
    with open(path, "rb", buffering=0) as file:
        while block := file.read(size_bytes):
            yield block
