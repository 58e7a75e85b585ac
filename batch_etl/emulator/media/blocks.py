"""Content blocks and what their source holds."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from batch_etl.emulator.media.images import Picture, look
from batch_etl.emulator.media.pdfs import Pdf, read

ELSEWHERE_TOKENS = 1_500
"""For an image or document that the emulator does not have: a URL, a file id."""


def data_of(block: dict[str, Any]) -> bytes | None:
    """The decoded bytes of a base64 source; None when it has none, or they are not base64."""
    source = block.get("source")
    if not isinstance(source, dict) or source.get("type") != "base64":
        return None
    data = source.get("data")
    try:
        return base64.b64decode(data, validate=True) if isinstance(data, str) else None
    except (binascii.Error, ValueError):
        return None


def picture_of(block: dict[str, Any]) -> Picture | None:
    """The picture of an image block that carries one."""
    data = data_of(block)
    return None if data is None else look(data)


def pdf_of(block: dict[str, Any]) -> Pdf | None:
    """The PDF of a document block that carries one."""
    data = data_of(block)
    return None if data is None else read(data)
