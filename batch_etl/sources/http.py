"""Records from an API: a JSON document a page, one GET a page.

The records of all pages are put into a temporary file as they come, and then read and typed as JSON
Lines are (``jsontext.py``): a type that holds for the first page need not hold for the last, and
nested objects stay nested. So memory holds one page, and the disk one answer.

Where the next page is, the server says: a cursor in the page, a link in its header, an address in
the page; or pages are counted, or records, until one comes without any. An answer that leads back
to a page it had is refused: it would never end.

Bounds are in ``url`` and ``params``: ``{start}`` and ``{end}`` in UTC, as ISO 8601 unless a layout
is given (``{start:%Y-%m-%d}``), or ``{partition}``.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self
from urllib.parse import quote, urlsplit

import msgspec
import pyarrow as pa
from pydantic import Field, field_validator
from upath import UPath

from batch_etl.errors import SourceError
from batch_etl.sources.asked import AskedSource, Block
from batch_etl.sources.bounds import NAMES, Bounds
from batch_etl.sources.columns import FileSchema, as_read, conform, declared_type, unified
from batch_etl.sources.http_pages import (
    Asking,
    Page,
    Secret,
    check_scheme,
    origin_of,
    shown,
    with_params,
)
from batch_etl.sources.http_paging import Done, Paging, items_of
from batch_etl.sources.jsontext import JsonText
from batch_etl.sources.secret import secret
from batch_etl.strict import Strict, did_you_mean

_PLACEHOLDER = re.compile(r"\{(\w+)(?::([^{}]*))?\}")
_ISO = "%Y-%m-%dT%H:%M:%SZ"


class Auth(Strict):
    """A header that holds a secret of the environment."""

    env: str = Field(description="The environment variable that holds the secret")
    header: str = Field(default="Authorization", description="The header that it is sent in")
    prefix: str = Field(
        default="Bearer ", description="What stands before the secret; empty for nothing"
    )


class Taken(NamedTuple):
    """Where one page's records are in the file: so many, from record ``first`` on."""

    page: int
    first: int
    rows: int


class HttpSource(AskedSource):
    """Which API, what is asked of it, and how its pages follow each other."""

    type: Literal["http"]
    url: str = Field(description="The address, over https; http for this machine only")
    params: dict[str, str | int | float | bool] = Field(
        default_factory=dict,
        description="The query; `{start}`, `{end}` and `{partition}` are the partition's bounds, "
        "`{start:%Y-%m-%d}` in a layout of their own",
    )
    headers: dict[str, str] = Field(
        default_factory=dict, description="Further headers; none that is secret"
    )
    auth: Auth | None = Field(
        default=None, description="A secret in a header, sent to the origin of `url` only"
    )
    items: str | None = Field(
        default=None,
        description="The way to the list of records in a page, as `data.items`; by default the "
        "page is the list",
    )
    paging: Paging | None = Field(
        default=None, description="How one page leads to the next; by default there is one page"
    )
    timeout_s: Annotated[float, Field(gt=0)] = Field(
        default=60.0, description="The longest silence of the server"
    )
    max_tries: Annotated[int, Field(ge=1, le=20)] = Field(
        default=6, description="How often a page is asked for that does not come"
    )
    max_pages: Annotated[int, Field(ge=1)] = Field(
        default=10_000, description="More pages than this are taken for an answer without an end"
    )

    @field_validator("url")
    @classmethod
    def _is_an_address_without_secrets(cls, url: str) -> str:
        parts = urlsplit(url)
        if "{" in parts.netloc:
            raise ValueError("the host is the same for all partitions: it can hold no bound")
        if parts.username or parts.password:
            raise ValueError("it holds a user or password, which have no place in YAML: see `auth`")
        try:
            check_scheme(url)
        except SourceError as error:
            raise ValueError(str(error)) from None
        return url

    @property
    def bounds(self) -> frozenset[str]:
        texts = [self.url, *(value for value in self.params.values() if isinstance(value, str))]
        found = {match[1] for text in texts for match in _PLACEHOLDER.finditer(text)}
        for name in sorted(found.difference(NAMES)):
            near = did_you_mean(f"{{{name}}}", [self.bound(one) for one in NAMES])
            raise ValueError(f"{{{name}}} is no bound{near}")
        return frozenset(found)

    def bound(self, name: str) -> str:
        return f"{{{name}}}"

    def anchored(self, folder: Path) -> Self:  # noqa: ARG002 - it has no paths
        return self

    def blocks(self, bounds: Bounds) -> Iterator[Block]:
        """Take all pages, then stream their records. Raises SourceError."""
        with tempfile.TemporaryDirectory(prefix="batch_etl_http_") as folder:
            path = Path(folder) / "records.jsonl"
            taken = list(self._taken(path, bounds))
            try:
                yield from self._read_back(path, taken)
            except SourceError as error:
                raise SourceError(str(error).replace(str(path), shown(self.url))) from error

    # The pages -----------------------------------------------------------------------------------

    def _taken(self, path: Path, bounds: Bounds) -> Iterator[Taken]:
        """Write the records of each page into the file, one a line."""
        rows = 0
        with path.open("wb") as file:
            for number, (page, items) in enumerate(self._pages(bounds), 1):
                for row, item in enumerate(items, 1):
                    text = bytes(item)
                    if not text.startswith(b"{"):
                        raise SourceError(
                            f"{shown(page.url)}: record {row} of page {number} is no object: "
                            f"{text[:60].decode(errors='replace')}"
                        )
                    file.write(text.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n")
                yield Taken(number, rows, len(items))
                rows += len(items)

    def _pages(self, bounds: Bounds) -> Iterator[tuple[Page, list[msgspec.Raw]]]:
        asking = self._asking()
        url: str | None = self._first_url(bounds)
        seen: set[str] = set()
        rows = 0
        with asking.client() as client:
            while url is not None:
                self._check_progress(url, seen, asking.origin)
                page = asking.page(client, url)
                items = items_of(page, self.items)
                rows += len(items)
                yield page, items
                done = Done(len(seen), rows, is_empty=not items)
                url = self.paging.next_url(page, done) if self.paging else None

    def _asking(self) -> Asking:
        own = None
        if self.auth is not None:
            value = secret(self.auth.env, "auth.env")
            if not (value.isascii() and value.isprintable()):
                raise SourceError(f"auth.env: what {self.auth.env} holds can be in no header")
            own = Secret(self.auth.header, self.auth.prefix, value)
        return Asking(origin_of(self.url), self.headers, own, self.timeout_s, self.max_tries)

    def _check_progress(self, url: str, seen: set[str], origin: str) -> None:
        if url in seen:
            raise SourceError(f"{shown(url)}: page {len(seen)} leads back to one that was read")
        if len(seen) >= self.max_pages:
            raise SourceError(
                f"{shown(url)}: more than {self.max_pages} pages; if there are so many, raise "
                "`max_pages`"
            )
        if origin_of(url) != origin:
            raise SourceError(f"{shown(url)}: the next page is at another origin than `url`")
        seen.add(url)

    def _first_url(self, bounds: Bounds) -> str:
        base = _PLACEHOLDER.sub(lambda match: quote(_filled(match, bounds), safe=""), self.url)
        params = {name: _param(value, bounds) for name, value in self.params.items()}
        if self.paging is not None:
            params |= self.paging.first_params
        return with_params(base, params)

    # The file ------------------------------------------------------------------------------------

    def _read_back(self, path: Path, taken: list[Taken]) -> Iterator[Block]:
        declared = {name: declared_type(kind) for name, kind in self.types.items()}
        origin = shown(self.url)
        always = FileSchema("`types`", pa.schema(list(declared.items())), loose=True)
        if not any(one.rows for one in taken):
            yield Block(origin, pa.RecordBatch.from_pylist([], self._no_rows(declared)), 1)
            return
        text = JsonText(UPath(path), "utf-8", lines=True)
        own = text.schema()
        schema = unified([own, always], declared)
        pages = iter(taken)
        page = next(pages)
        start = 0
        for found in text.batches(as_read(own.schema, schema, declared)):
            end = start + found.num_rows
            while start < end:
                while start >= page.first + page.rows:
                    page = next(pages)
                rows = min(end, page.first + page.rows) - start
                piece = found.slice(found.num_rows - (end - start), rows)
                where, first = f"{origin} page {page.page}", start - page.first + 1
                yield Block(where, conform(piece, schema, self.types, where, first), first)
                start += rows

    def _no_rows(self, declared: Mapping[str, pa.DataType]) -> pa.Schema:
        named = [self.id, *([self.partition_column] if self.partition_column else [])]
        return pa.schema({**dict.fromkeys(named, pa.string()), **declared}.items())


def _param(value: str | float | bool, bounds: Bounds) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return _PLACEHOLDER.sub(lambda match: _filled(match, bounds), str(value))


def _filled(match: re.Match[str], bounds: Bounds) -> str:
    value = bounds[match[1]]
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime(match[2] or _ISO)
    return value
