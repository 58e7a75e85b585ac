"""An image's bytes: what they are, how large, and made smaller. Pillow reads them, and is loaded
only where a task has images.

Looking reads the head alone. Making smaller decodes the whole, at most ``_MOST_PIXELS`` of it: a
small file may unpack to gigabytes.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from batch_etl.batches.attachments import Unfit

if TYPE_CHECKING:
    from PIL.Image import Image

MEDIA_TYPES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "GIF": "image/gif",
    "WEBP": "image/webp",
}
"""Pillow's name of a format -> the API's; the four that it takes (SDK 2.12)."""

_MOST_PIXELS = 100_000_000
_JPEG_QUALITY = 90


class Picture(NamedTuple):
    """What an image's head tells."""

    format: str
    width_px: int
    height_px: int

    @property
    def media_type(self) -> str:
        return MEDIA_TYPES[self.format]

    @property
    def longer_px(self) -> int:
        return max(self.width_px, self.height_px)


def look(data: bytes) -> Picture:
    """Raises ``Unfit`` for what is no PNG, JPEG, GIF or WebP."""
    with _opened(data) as image:
        return Picture(image.format or "", image.width, image.height)


def reduced(data: bytes, longer_px: int) -> bytes:
    """The image with its longer side so long; the same bytes where it is no longer than that.

    The same format, but a GIF becomes the PNG of its first frame. Raises ``Unfit``.
    """
    from PIL import Image, ImageOps

    with _opened(data) as image:
        kind = image.format or ""
        if max(image.size) <= longer_px:
            return data
        if image.width * image.height > _MOST_PIXELS:
            raise Unfit(f"has {image.width} x {image.height} px: too many to be made smaller here")
        upright = ImageOps.exif_transpose(image)
        plain = upright.convert(_mode(upright, kind))
        plain.thumbnail((longer_px, longer_px), Image.Resampling.LANCZOS)
        out = io.BytesIO()
        plain.save(out, "PNG" if kind == "GIF" else kind, quality=_JPEG_QUALITY)
    return out.getvalue()


def _mode(image: Image, kind: str) -> str:
    """The mode that can be resampled and written."""
    if kind == "JPEG":
        return "L" if image.mode == "L" else "RGB"
    return "RGBA" if image.has_transparency_data else "RGB"


@contextmanager
def _opened(data: bytes) -> Generator[Image]:
    """Whatever Pillow raises of a broken image is ``Unfit``."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its size: that is looked at here
            image = Image.open(io.BytesIO(data), formats=list(MEDIA_TYPES))
    except Image.DecompressionBombError:
        raise Unfit("has too many pixels for any use") from None
    except (OSError, ValueError, SyntaxError, EOFError):
        raise Unfit("is no PNG, JPEG, GIF or WebP") from None
    try:
        with image:
            yield image
    except Unfit:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise Unfit(f"cannot be read as {image.format}: {error}") from None
