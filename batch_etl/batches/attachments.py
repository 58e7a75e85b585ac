"""What stands before the prompt in the user's turn: images and documents, from record columns.

    attachments:
      - {type: image, column: scan, reduce_to_px: 1600}
      - {type: document, column: contract, holds: url, title_column: name, citations: true}

Blocks stand in the order in which the task lists them, a list column's in the order of its list,
and the prompt's text after all of them. A null, an empty text and a null in a list are left out.
``holds`` says what a column's values are:

    path      a file's, relative to ``folder`` (itself relative to the folder of the source)
    bytes     the file itself
    base64    the file as base64 text, or as a ``data:`` URL
    url       where the API fetches it when the request runs
    file_id   of a file that was uploaded to the API before
    text      the text of a document

What a file is follows from its bytes, never from its name: PNG, JPEG, GIF or WebP is an image; PDF
or UTF-8 text is a document. Block shapes are those of the SDK's types (2.12).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import pydantic

from batch_etl.batches.models import MAX_IMAGE_SIDE_PX
from batch_etl.strict import Strict

Holds = Literal["path", "bytes", "base64", "url", "file_id", "text"]

_HOLD_FILES = ("path", "bytes", "base64")


class Unfit(ValueError):
    """Why a value of a record cannot be part of its request, as a sentence."""


class Attachment(Strict):
    """One column whose values become blocks of the user's turn."""

    type: Literal["image", "document"] = pydantic.Field(description="What the blocks are.")
    column: str = pydantic.Field(description="The record's column; a list makes several blocks.")
    holds: Holds = pydantic.Field(default="path", description="What the column's values are.")
    folder: str = pydantic.Field(
        default="", description="What relative paths are relative to; no path may lead out of it."
    )
    required: bool = pydantic.Field(
        default=False, description="A record without any value goes to review, and is not asked."
    )
    title_column: str | None = pydantic.Field(
        default=None, description="Documents: the column with their titles."
    )
    citations: bool = pydantic.Field(
        default=False, description="Documents: the model may cite them; not with a schema."
    )
    cache_control: dict[str, Any] | None = pydantic.Field(
        default=None, description="Put on the last block of a record; for the prompt cache."
    )
    reduce_to_px: Annotated[int, pydantic.Field(ge=1, le=MAX_IMAGE_SIDE_PX)] | None = (
        pydantic.Field(
            default=None, description="Images: make the longer side this long where it is longer."
        )
    )

    @pydantic.model_validator(mode="after")
    def _keys_fit_the_type(self) -> Self:
        if self.type == "image":
            self._refuse("title_column", "citations", why="is for documents")
            if self.holds == "text":
                raise ValueError("holds: an image is no text; use path, bytes, base64, url, ...")
        else:
            self._refuse("reduce_to_px", why="is for images")
        if self.reduce_to_px is not None and self.holds not in _HOLD_FILES:
            raise ValueError(f"reduce_to_px: an image that is a {self.holds} is not seen here")
        if self.folder and self.holds != "path":
            raise ValueError(f"folder: is for paths, and the column holds {self.holds}")
        return self

    def _refuse(self, *names: str, why: str) -> None:
        for name in names:
            if getattr(self, name):
                raise ValueError(f"{name}: {why}; remove it")

    @property
    def columns(self) -> tuple[str, ...]:
        """The record's columns that the blocks are made from."""
        return (self.column, *([self.title_column] if self.title_column else []))
