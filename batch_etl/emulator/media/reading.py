"""What an asking turn says, as far as it can be read, and what could not be read.

The record of a turn with documents is their text (plain text, blocks, PDF pages with text, results
of tools); its other texts are the instructions. Images are never read, nor are PDF pages without
text. When that leaves nothing but instructions, the record is blank: unless they hold a part set
off by tags or fences, which was given to be read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from batch_etl.emulator.records import Record, set_off_in, text_of

NO_PIXELS = "the emulator sees no pixels"
NO_TEXT = "the emulator reads only text, and there is none"
Unread = dict[str, str]


@dataclass(frozen=True)
class Reading:
    """``unread``: the place (in the turn), kind and reason of each thing that was not read.
    ``is_blank``: nothing was, so that any answer would be made of the instructions.
    """

    turn: str
    documents: str = ""
    unread: list[Unread] = field(default_factory=list)

    @property
    def is_blank(self) -> bool:
        return bool(self.unread) and not self.documents and not set_off_in(self.turn)

    def record(self, seed: int) -> Record:
        if not self.documents:
            return Record(self.turn, seed)
        return Record(f"{self.documents}\n\n{self.turn}", seed, self.documents)


def read(content: Any) -> Reading:
    """``content``: of the asking turn, of a request that errs in nothing."""
    if isinstance(content, str) or not _has_more_than_text(content):
        return Reading(text_of(content))
    said, documents, unread = list[str](), list[str](), list[Unread]()
    for place, kind, part in _parts("content", content):
        match kind:
            case "said":
                said.append(part)
            case "document":
                documents.append(part)
            case _:
                unread.append({"at": place, "what": kind, "why": part})
    return Reading("\n\n".join(said), "\n\n".join(documents), unread)


def _has_more_than_text(content: Any) -> bool:
    return isinstance(content, list) and any(block.get("type") != "text" for block in content)


def _parts(where: str, content: list[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """Place, what it is ("said", "document", or the name of what was not read), and the text or
    the reason.
    """
    for n, block in enumerate(content):
        place = f"{where}.{n}"
        match block.get("type"):
            case "text":
                yield place, "said", block["text"]
            case "image":
                yield place, _name_of_image(block), NO_PIXELS
            case "document":
                yield from _of_document(place, block)
            case "tool_result":
                yield from _as_document(place, block.get("content"))
            case _:
                continue


def _as_document(place: str, content: Any) -> Iterator[tuple[str, str, str]]:
    if isinstance(content, str):
        yield place, "document", content
    for inner, kind, part in _parts(
        f"{place}.content", content if isinstance(content, list) else []
    ):
        yield inner, "document" if kind == "said" else kind, part


def _of_document(place: str, block: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    source = block["source"]
    match source["type"]:
        case "text":
            yield place, "document", source["data"]
        case "content":
            yield from _as_document(place, source["content"])
        case "base64":
            yield from _of_pdf(place, block)
        case _:
            return


def _of_pdf(place: str, block: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    from batch_etl.emulator.media.blocks import pdf_of

    pdf = pdf_of(block)
    if pdf is None:
        return
    if pdf.text:
        yield place, "document", pdf.text
    blank = [n for n, page in enumerate(pdf.pages, 1) if not page]
    if blank:
        yield place, f"PDF, {_pages(blank)} of {pdf.count}", NO_TEXT


def _pages(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:10])) + (" ..." if len(numbers) > 10 else "")
    return f"page {shown}" if len(numbers) == 1 else f"pages {shown}"


def _name_of_image(block: dict[str, Any]) -> str:
    from batch_etl.emulator.media.blocks import picture_of

    picture = picture_of(block)
    if picture is None:
        return "image"
    return f"{picture.media_type}, {picture.width_px} x {picture.height_px} pixels"
