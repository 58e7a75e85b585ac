"""Images and PDFs that tests send."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image, ImageDraw
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

FORMATS = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "image/gif": "GIF",
    "image/webp": "WEBP",
}


def image(media_type: str = "image/png", width_px: int = 40, height_px: int = 30) -> bytes:
    """A picture with a different colour at each end and a word in it."""
    picture = Image.new("RGB", (width_px, height_px), (250, 250, 245))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, width_px // 3, height_px), fill=(20, 60, 200))
    draw.text((1, 1), "Total 1,240.50", fill=(200, 10, 10))
    return encoded(picture, media_type)


def encoded(picture: Image.Image, media_type: str) -> bytes:
    data = io.BytesIO()
    picture.save(data, FORMATS[media_type])
    return data.getvalue()


def image_block(data: bytes, media_type: str = "image/png", **more: Any) -> dict[str, Any]:
    source = {"type": "base64", "media_type": media_type, "data": base64.b64encode(data).decode()}
    return {"type": "image", "source": source, **more}


def pdf(*pages: str, password: str | None = None) -> bytes:
    """A PDF of these pages, one line of Helvetica each line of text; "" is a page without text."""
    writer = PdfWriter()
    for text in pages:
        page = writer.add_blank_page(612, 792)
        if text:
            _write_text(writer, page, text)
    if password is not None:
        writer.encrypt(password, algorithm="RC4-128")
    data = io.BytesIO()
    writer.write(data)
    return data.getvalue()


def _write_text(writer: PdfWriter, page: Any, text: str) -> None:
    font = DictionaryObject(
        {
            NameObject("/Type"): NameObject("/Font"),
            NameObject("/Subtype"): NameObject("/Type1"),
            NameObject("/BaseFont"): NameObject("/Helvetica"),
        }
    )
    fonts = DictionaryObject({NameObject("/F1"): writer._add_object(font)})
    page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
    shown = " T* ".join(f"({_escaped(line)}) Tj" for line in text.splitlines())
    stream = DecodedStreamObject()
    stream.set_data(f"BT /F1 12 Tf 16 TL 50 700 Td {shown} ET".encode("latin-1"))
    page[NameObject("/Contents")] = writer._add_object(stream)


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")


def pdf_block(data: bytes, **more: Any) -> dict[str, Any]:
    text = base64.b64encode(data).decode()
    source = {"type": "base64", "media_type": "application/pdf", "data": text}
    return {"type": "document", "source": source, **more}


def text_block(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}
