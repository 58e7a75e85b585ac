"""Images: decoded whole, then only their format and size are kept. What is in the pixels, and what
is written beside them (EXIF, PNG text), is never looked at.

Formats, sizes and tokens are those of the vision page of August 2026.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

PATCH_PX = 28
MAX_EDGE_PX = 8_000
"""A larger image is refused, so it is not decoded either."""


@dataclass(frozen=True)
class Picture:
    """``whole``: its pixels decode (the first frame's, of an animation)."""

    media_type: str
    width_px: int
    height_px: int
    whole: bool


def media_type_of(data: bytes) -> str | None:
    """The type that the first bytes tell, of those that the API takes."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    is_webp = data.startswith(b"RIFF") and data[8:12] == b"WEBP"
    return "image/webp" if is_webp else None


def look(data: bytes) -> Picture | None:
    """The picture that the bytes are; None when they are no image of a known type."""
    media_type = media_type_of(data)
    if media_type is None:
        return None
    try:
        image = _opened(media_type, data)
    except Exception:  # noqa: BLE001  a damaged file may raise anything
        return None
    with image:
        width_px, height_px = image.size
        whole = max(width_px, height_px) <= MAX_EDGE_PX and _decodes(image)
    return Picture(media_type, width_px, height_px, whole)


def _opened(media_type: str, data: bytes) -> Any:
    """The image with its header read. Not by ``Image.open``, which warns of images that are merely
    large: the size is judged by the rules.
    """
    from PIL import GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

    readers: dict[str, Any] = {
        "image/png": PngImagePlugin.PngImageFile,
        "image/jpeg": JpegImagePlugin.JpegImageFile,
        "image/gif": GifImagePlugin.GifImageFile,
        "image/webp": WebPImagePlugin.WebPImageFile,
    }
    return readers[media_type](io.BytesIO(data))


def _decodes(image: Any) -> bool:
    try:
        image.load()
    except Exception:  # noqa: BLE001  as above
        return False
    return True


def visual_tokens(picture: Picture, *, large: bool) -> int:
    """One a patch of 28 x 28 pixels, after scaling down to what the model takes. ``large``: a
    model of 4.7 or later, which takes larger ones.
    """
    return _patches(*resized(picture.width_px, picture.height_px, large=large))


def resized(width_px: int, height_px: int, *, large: bool) -> tuple[int, int]:
    """The size that the model sees: the largest of the same shape that fits."""
    if height_px > width_px:
        height, width = resized(height_px, width_px, large=large)
        return width, height
    edge_px, most_tokens = (2_576, 4_784) if large else (1_568, 1_568)

    def at(width: int) -> tuple[int, int]:
        return width, max(1, round(width * height_px / width_px))

    def fits(width: int, height: int) -> bool:
        return _padded(width) <= edge_px and _patches(width, height) <= most_tokens

    if fits(width_px, height_px):
        return width_px, height_px
    low, high = 1, width_px
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(*at(middle)) else (low, middle)
    return at(low)


def _padded(side_px: int) -> int:
    return -(-side_px // PATCH_PX) * PATCH_PX


def _patches(width_px: int, height_px: int) -> int:
    return -(-width_px // PATCH_PX) * -(-height_px // PATCH_PX)
