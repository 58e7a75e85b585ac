"""Content blocks and what their source holds."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from batch_etl.emulator.media import images, pdfs
from batch_etl.emulator.media.images import Picture
from batch_etl.emulator.media.pdfs import Pdf
from batch_etl.emulator.media.remembered import Remembered

ELSEWHERE_TOKENS = 1_500
"""For an image or document that the emulator does not have: a URL, a file id."""


def picture_of(block: dict[str, Any]) -> Picture | None:
    """The picture of an image block that carries one."""
    text = _base64_of(block)
    return None if text is None else _pictures(text)


def pdf_of(block: dict[str, Any]) -> Pdf | None:
    """The PDF of a document block that carries one."""
    text = _base64_of(block)
    return None if text is None else _pdfs(text)


def _base64_of(block: dict[str, Any]) -> str | None:
    source = block.get("source")
    if not isinstance(source, dict) or source.get("type") != "base64":
        return None
    data = source.get("data")
    return data if isinstance(data, str) else None


def _decoded(text: str) -> bytes:
    """No bytes for what is not base64."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


_pictures = Remembered(lambda text: images.look(_decoded(text)), most=1_000)
_pdfs = Remembered(lambda text: pdfs.read(_decoded(text)), most=32)
