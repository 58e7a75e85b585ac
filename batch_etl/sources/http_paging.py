"""Where in a page the records are, and where the next page is: pure functions of a page.

A page is decoded only as far as the way to its records leads; the records themselves stay the bytes
that came, so no number loses a digit.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Self
from urllib.parse import urljoin

import msgspec
from pydantic import Field, model_validator

from batch_etl.errors import SourceError
from batch_etl.sources.http_pages import Page, shown, with_params
from batch_etl.strict import Strict

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_ANY = msgspec.json.Decoder(Any)


class Done(NamedTuple):
    """What has been read so far, the last page included."""

    pages: int
    rows: int
    is_empty: bool
    """Whether the last page had no records."""


class Paging(Strict):
    """How one page leads to the next."""

    by: Literal["cursor", "page", "offset", "link", "url"] = Field(
        description="`cursor`: a text in the page is a parameter of the next; `page` and `offset`: "
        "a parameter counts pages or records until a page has none; `link`: the Link header; "
        "`url`: an address in the page"
    )
    param: str | None = Field(default=None, description="The parameter (cursor, page, offset)")
    at: str | None = Field(
        default=None, description="Where in the page it stands, as `meta.next` (cursor, url)"
    )
    first: int | None = Field(
        default=None, description="The first page's number (page: 1; offset: 0)"
    )

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        needed = {
            "param": self.by in ("cursor", "page", "offset"),
            "at": self.by in ("cursor", "url"),
        }
        for key, is_needed in needed.items():
            if is_needed and getattr(self, key) is None:
                raise ValueError(f"`by: {self.by}` needs `{key}`")
            if not is_needed and getattr(self, key) is not None:
                raise ValueError(f"`{key}` says nothing to `by: {self.by}`; remove it")
        if self.first is not None and self.by not in ("page", "offset"):
            raise ValueError(f"`first` says nothing to `by: {self.by}`; remove it")
        return self

    @property
    def first_params(self) -> dict[str, str]:
        """What the first page is asked for with, beside the source's own parameters."""
        counts = self.by in ("page", "offset")
        return {self.param: str(self._first)} if counts and self.param else {}

    @property
    def _first(self) -> int:
        usual = 1 if self.by == "page" else 0
        return usual if self.first is None else self.first

    def next_url(self, page: Page, done: Done) -> str | None:
        """The next page's address, or None after the last."""
        match self.by:
            case "link":
                return page.link_next
            case "url":
                address = text_at(page, self.at or "")
                return urljoin(page.url, address) if address else None
            case "cursor":
                value = text_at(page, self.at or "")
            case "page":
                value = None if done.is_empty else str(self._first + done.pages)
            case "offset":
                value = None if done.is_empty else str(self._first + done.rows)
        return with_params(page.url, {self.param or "": value}) if value else None


def items_of(page: Page, way: str | None) -> list[msgspec.Raw]:
    """The records of a page, each as its JSON. Raises SourceError that says what there is."""
    found = _followed(page, way.split(".") if way else [])
    try:
        return _LIST.decode(found)
    except msgspec.DecodeError as error:
        where = f"`{way}`" if way else "the page"
        raise SourceError(
            f"{shown(page.url)}: {where} is no list of records ({error}); `items` is the way to "
            f"the list, as `data.items`. It begins {_begin(found)}"
        ) from error


def text_at(page: Page, way: str) -> str | None:
    """A text or number in the page; None where there is none, or nothing there."""
    *above, last = way.split(".")
    objects = _object(_followed(page, above))
    if objects is None or last not in objects:
        return None
    value = _ANY.decode(objects[last])
    return None if value in (None, "", False) else str(value)


def _followed(page: Page, way: list[str]) -> bytes:
    found = page.body
    for place, key in enumerate(way):
        objects = _object(found)
        if objects is None or key not in objects:
            there = ", ".join(objects) if objects is not None else f"no object: {_begin(found)}"
            raise SourceError(
                f"{shown(page.url)}: there is no {'.'.join(way[: place + 1])!r} in the page; "
                f"there is {there}"
            )
        found = bytes(objects[key])
    return found


def _object(text: bytes | msgspec.Raw) -> dict[str, msgspec.Raw] | None:
    try:
        return _OBJECT.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _begin(text: bytes) -> str:
    return repr(text[:60].decode(errors="replace"))
