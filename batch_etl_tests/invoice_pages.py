"""Pages of plain lines: as a scan, drawn by Pillow, and as a PDF with text, written by hand.

A scan is a grey, dusty picture of a page that lies a little askew; a program without eyes gets
nothing out of it. It does without accents, which Pillow's own font does not have. A PDF has the few
objects that a page of Helvetica needs (and the reader's own Japanese font, where one is needed), so
that its bytes depend on nothing.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

WIDTH_PX, HEIGHT_PX = 800, 1130


def scan(lines: Sequence[str], degrees: float) -> Image.Image:
    """A page as a scanner sees it: grey, dusty, and a little askew."""
    page = Image.new("L", (WIDTH_PX, HEIGHT_PX), 250)
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(size=22)
    for row, line in enumerate(lines):
        draw.text((70, 80 + 34 * row), line, fill=40, font=font)
    dust = random.Random("\n".join(lines))
    for _ in range(250):
        x, y = dust.randrange(WIDTH_PX), dust.randrange(HEIGHT_PX)
        draw.point((x, y), fill=dust.randrange(90, 220))
    turned = page.rotate(degrees, resample=Image.Resampling.BICUBIC, fillcolor=235)
    return turned.quantize(16).convert("L")


def pdf(lines: Sequence[str], rows_a_page: int = 30) -> bytes:
    """Pages of Helvetica; a line that Latin-1 does not have is in a Japanese font, which PDF
    readers bring along (Adobe-Japan1).
    """
    pages = [lines[n : n + rows_a_page] for n in range(0, len(lines), rows_a_page)]
    fonts = [
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        *(_JAPANESE if any(not _is_latin(line) for line in lines) else ()),
    ]
    first = 3 + len(fonts)
    kids = " ".join(f"{first + 2 * n} 0 R" for n in range(len(pages)))
    named = b"/F1 3 0 R" + (b" /F2 4 0 R" if len(fonts) > 1 else b"")
    bodies = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        *fonts,
    ]
    for n, page in enumerate(pages):
        bodies.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents %d 0 R "
            b"/Resources << /Font << %b >> >> >>" % (first + 1 + 2 * n, named)
        )
        shown = _shown(page)
        bodies.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(shown), shown))
    return _file(bodies)


_CODES = (
    b"/CIDInit /ProcSet findresource begin begincmap 1 begincodespacerange <0000> <FFFF> "
    b"endcodespacerange 1 beginbfrange <0000> <FFFF> <0000> endbfrange endcmap end"
)
_JAPANESE = (
    (
        b"<< /Type /Font /Subtype /Type0 /BaseFont /HeiseiKakuGo-W5 /Encoding /UniJIS-UCS2-H "
        b"/DescendantFonts [5 0 R] /ToUnicode 7 0 R >>"
    ),
    (
        b"<< /Type /Font /Subtype /CIDFontType0 /BaseFont /HeiseiKakuGo-W5 /DW 1000 /W [1 95 500] "
        b"/CIDSystemInfo << /Registry (Adobe) /Ordering (Japan1) /Supplement 2 >> "
        b"/FontDescriptor 6 0 R >>"
    ),
    (
        b"<< /Type /FontDescriptor /FontName /HeiseiKakuGo-W5 /Flags 4 "
        b"/FontBBox [-92 -250 1010 922] /ItalicAngle 0 "
        b"/Ascent 752 /Descent -221 /CapHeight 737 /StemV 114 >>"
    ),
    b"<< /Length %d >>\nstream\n%b\nendstream" % (len(_CODES), _CODES),
)
"""The objects 4 to 7: the font, its letters, its measures, and that its codes are Unicode."""


def _is_latin(line: str) -> bool:
    return line.isascii() or all(ord(letter) < 256 for letter in line)


def _shown(lines: Sequence[str]) -> bytes:
    parts, font = [b"BT /F1 11 Tf 60 780 Td 22 TL"], b"/F1"
    for line in lines:
        wanted = b"/F1" if _is_latin(line) else b"/F2"
        if wanted != font:
            parts.append(wanted + b" 11 Tf")
            font = wanted
        parts.append(_text(line) + b" Tj T*")
    return b"\n".join([*parts, b"ET"])


def _text(line: str) -> bytes:
    if not _is_latin(line):
        return b"<" + line.encode("utf-16-be").hex().encode() + b">"
    text = line.encode("latin-1")
    for mark in (b"\\", b"(", b")"):
        text = text.replace(mark, b"\\" + mark)
    return b"(" + text + b")"


def _file(bodies: Sequence[bytes]) -> bytes:
    data, places = b"%PDF-1.4\n", list[int]()
    for number, body in enumerate(bodies, 1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(bodies) + 1
    end = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (size, len(data))
    return data + b"xref\n0 %d\n0000000000 65535 f \n%s" % (size, table) + end
