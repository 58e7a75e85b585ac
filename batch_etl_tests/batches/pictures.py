"""Images and documents that tests make: small, drawn by Pillow, different for each number."""

from __future__ import annotations

import io
import random

from PIL import Image

PDF = b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\n%%EOF\n"


def picture(number: int = 0, size: tuple[int, int] = (8, 6), kind: str = "PNG") -> bytes:
    """A plain image whose colour is the number's."""
    out = io.BytesIO()
    colour = (number * 37 % 256, number * 91 % 256, number % 256)
    Image.new("RGB", size, colour).save(out, kind)
    return out.getvalue()


def noise(number: int, side_px: int) -> bytes:
    """A PNG that cannot be packed: three bytes a pixel."""
    data = random.Random(number).randbytes(3 * side_px * side_px)
    out = io.BytesIO()
    Image.frombytes("RGB", (side_px, side_px), data).save(out, "PNG", compress_level=0)
    return out.getvalue()


def pixels(data: bytes) -> tuple[tuple[int, int], bytes]:
    """Size and colours of an image."""
    with Image.open(io.BytesIO(data)) as image:
        plain = image.convert("RGB")
        return plain.size, plain.tobytes()
