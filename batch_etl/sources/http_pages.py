"""One GET after another: the pages of an answer, with the patience and the caution they need.

* **The secret goes to one origin.** It is a header of requests to the configured scheme, host and
  port, and of no other: not where a redirect leads, and no error or log holds it. A next page at
  another origin is refused. Plain http is for this machine only, redirects included.
* **What may pass is tried again**: 429, 500, 502, 503, 504, a connection that fails or falls
  silent; after the server's ``retry-after`` or a doubling pause. A page is taken whole or not at
  all.
* **Memory is bounded** by the largest page, which is at most ``MOST_PAGE_BYTES``, unpacked.
"""

from __future__ import annotations

import email.utils
import ipaddress
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception

import batch_etl
from batch_etl.errors import SourceError
from batch_etl.sources.secret import without

MOST_PAGE_BYTES = 64 * 2**20
MOST_REDIRECTS = 5
LONGEST_WAIT_S = 300.0
"""A longer ``retry-after`` is waited for only so far before the next try."""

_PASSING = frozenset({429, 500, 502, 503, 504})
_MOVED = frozenset({301, 302, 303, 307, 308})


class Page(NamedTuple):
    """One page as it came; ``link_next`` is the address in its Link header, if any."""

    url: str
    body: bytes
    link_next: str | None


class PageFailed(SourceError):
    """A page that did not come; ``transient`` if another try may bring it."""

    def __init__(self, said: str, *, transient: bool, retry_after_s: float | None = None) -> None:
        super().__init__(said)
        self.transient = transient
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Secret:
    """A header that only its origin may see."""

    header: str
    prefix: str
    value: str = field(repr=False)


@dataclass(frozen=True)
class Asking:
    """How the pages of one origin are asked for."""

    origin: str
    headers: Mapping[str, str]
    secret: Secret | None
    timeout_s: float
    max_tries: int
    sleep: Callable[[float], None] = time.sleep

    def client(self) -> httpx.Client:
        """Connections to the origin, for the ``with`` of all its pages."""
        return httpx.Client(
            timeout=self.timeout_s,
            trust_env=not is_loopback(urlsplit(self.origin).hostname or ""),
            follow_redirects=False,
        )

    def page(self, client: httpx.Client, url: str) -> Page:
        """The page at ``url``. Raises PageFailed once enough was tried."""
        return Retrying(
            retry=retry_if_exception(lambda e: isinstance(e, PageFailed) and e.transient),
            stop=lambda state: state.attempt_number >= self.max_tries,
            wait=_pause_s,
            sleep=self.sleep,
            reraise=True,
        )(self._once, client, url)

    def _once(self, client: httpx.Client, url: str) -> Page:
        at = url
        for _ in range(MOST_REDIRECTS + 1):
            check_scheme(at)
            try:
                with client.stream("GET", at, headers=self._headers(at)) as response:
                    if response.status_code not in _MOVED:
                        return self._whole(url, response)
                    at = urljoin(at, response.headers.get("location", ""))
            except httpx.HTTPError as error:
                said = f"{shown(at)}: {str(error) or type(error).__name__}"
                raise self._failed(said, transient=True) from None
        raise self._failed(f"{shown(url)}: more than {MOST_REDIRECTS} redirects")

    def _headers(self, url: str) -> dict[str, str]:
        headers = {
            "accept": "application/json",
            "user-agent": f"batch-etl/{batch_etl.__version__}",
        }
        if origin_of(url) != self.origin:
            return headers
        if self.secret is None:
            return {**headers, **self.headers}
        own = {self.secret.header: f"{self.secret.prefix}{self.secret.value}"}
        return {**headers, **self.headers, **own}

    def _whole(self, url: str, response: httpx.Response) -> Page:
        body = bytearray()
        for piece in response.iter_bytes():
            body += piece
            if len(body) > MOST_PAGE_BYTES:
                raise self._failed(
                    f"{shown(url)}: a page is larger than {MOST_PAGE_BYTES >> 20} MB; ask for "
                    "fewer records a page, with the parameter that the server has for it"
                )
        if response.status_code >= 300:
            raise self._refused(url, response, bytes(body))
        link = response.links.get("next", {}).get("url")
        return Page(url, bytes(body), urljoin(url, link) if link else None)

    def _refused(self, url: str, response: httpx.Response, body: bytes) -> PageFailed:
        status = response.status_code
        said = " ".join(body[:2000].decode(errors="replace").split())[:300]
        hint = {
            401: "; check the variable that `auth.env` names",
            403: "; check what the key of `auth.env` may read",
            404: "; check `url`",
        }.get(status, "")
        return self._failed(
            f"{shown(url)}: the server answered {status}{f': {said}' if said else ''}{hint}",
            transient=status in _PASSING,
            retry_after_s=_retry_after_s(response.headers.get("retry-after")),
        )

    def _failed(
        self, said: str, *, transient: bool = False, retry_after_s: float | None = None
    ) -> PageFailed:
        told = without(said, self.secret.value if self.secret else None)
        return PageFailed(told, transient=transient, retry_after_s=retry_after_s)


def shown(url: str) -> str:
    """A URL as errors show it: without the query, which may hold anything."""
    return url.partition("?")[0]


def with_params(url: str, params: Mapping[str, str]) -> str:
    """The URL with these parameters in its query, in the place of any of their names."""
    return str(httpx.URL(url).copy_merge_params(params))


def origin_of(url: str) -> str:
    """Scheme, host and port."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return f"{parts.scheme}://{(parts.hostname or '').lower()}:{port}"


def check_scheme(url: str) -> None:
    """Raise SourceError for anything but https, and http to this machine."""
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and is_loopback(parts.hostname or ""):
        return
    raise SourceError(
        f"{shown(url)}: records are read over https; plain http is for this machine only"
    )


def is_loopback(host: str) -> bool:
    """``host`` is this machine, by its name or its address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _pause_s(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked_s = error.retry_after_s if isinstance(error, PageFailed) else None
    if asked_s is not None:
        return min(asked_s, LONGEST_WAIT_S) * random.uniform(1.0, 1.1)  # noqa: S311 - jitter
    return min(0.5 * 2 ** (state.attempt_number - 1), 30.0) * random.uniform(0.75, 1.0)  # noqa: S311


def _retry_after_s(text: str | None) -> float | None:
    """Seconds from now, of a header that is a number or a date."""
    if text is None:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None
