"""PDFs: the text of each page, as pypdf extracts it. Pictures on the pages are not read.

A page counts 1,600 tokens for its picture and its text by the rule for texts: the PDF page says
that a page is sent as both (1,500 to 3,000 tokens), and a published measurement of November 2026
(Hugging Face data set JOHNISKING/pdf-token-cost) has 1,600 for a scanned page and 2,300 for one of
text.
"""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from typing import Any

PAGE_TOKENS = 1_600
MOST_PAGES = 600
"""More are refused for every model, so they are not read either."""


@dataclass(frozen=True)
class Pdf:
    """The text of each page, "" where there is none (a scan)."""

    count: int
    pages: tuple[str, ...] = ()
    encrypted: bool = False

    @property
    def text(self) -> str:
        return "\n\n".join(page for page in self.pages if page)


def read(data: bytes) -> Pdf | None:
    """The PDF that the bytes are; None when they cannot be read as one."""
    from pypdf import PdfReader

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # its complaints are not ours
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted:
            return Pdf(0, encrypted=True)
        count = len(reader.pages)
        pages = () if count > MOST_PAGES else tuple(_text_of(page) for page in reader.pages)
    except Exception:  # noqa: BLE001  a damaged file may raise anything
        return None
    return Pdf(count, pages) if count else None


def _text_of(page: Any) -> str:
    try:
        return page.extract_text().strip()
    except Exception:  # noqa: BLE001  the other pages may be read all the same
        return ""
