"""The places that alerts go to: apprise URLs, and what became of a message that was sent there.

The only importer of ``apprise``, which knows some 180 services by their URL. It is imported when
there is something to send (it loads all of them: half a second).

A URL is a secret (``slack://token_a/token_b/token_c``). No error, log or name here repeats any part
of one: a place is called by its number in the setting and by the service's name, and apprise's own
log, which tells URLs, is off.

What became of a message:

    sent      the service took it
    refused   it said no, or could not be reached, within the time that it had to answer: it is
              sent again later
    unsure    it was silent for as long as that, and may have taken it: never sent again
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from batch_etl.batches.alerts import Level, Outcome
from batch_etl.environment import ALERTS_SETTING

_CONNECT_S = 4.0
_ANSWER_S = 10.0
_ALL_S = 25.0
"""A service that needs several calls for one message."""

_TALKATIVE = ("apprise", "urllib3.connectionpool")
"""Loggers that repeat URLs."""


@dataclass(frozen=True)
class Place:
    """One URL of the setting."""

    number: int
    url: str = field(repr=False)

    @property
    def digest(self) -> str:
        """What the ledger knows it by: slow to guess a token from, and the same everywhere."""
        return _digest(self.url)

    @property
    def name(self) -> str:
        return f"URL {self.number} of {ALERTS_SETTING}"


def places(urls: Sequence[str]) -> list[Place]:
    """Each different URL once."""
    return [Place(number, url) for number, url in enumerate(dict.fromkeys(urls), 1)]


@cache
def _digest(url: str) -> str:
    return hashlib.scrypt(url.encode(), salt=b"batch_etl alerts", n=2**14, r=8, p=1, dklen=8).hex()


def service(place: Place) -> str | None:
    """The name of the service that a URL is of; None for one that apprise cannot use."""
    with _silent():
        found = _instance(place.url)
        return None if found is None else str(found.service_name)


def send(place: Place, title: str, text: str, level: Level) -> Outcome | None:
    """Send one message; None, with nothing sent, where apprise cannot use the URL."""
    with _silent():
        found = _instance(place.url)
        if found is None:
            return None
        apprise = _apprise()
        messenger = apprise.Apprise(asset=found.asset)
        messenger.add(found)
        told = messenger.notify(
            body=text,
            title=title,
            notify_type=apprise.NotifyType(level),
            body_format=apprise.NotifyFormat.TEXT,
            timeout=_ALL_S,
        )
    return _outcome(told, found.socket_read_timeout)


def _outcome(told: Any, answer_s: float) -> Outcome:
    if told:
        return "sent"
    tries = [attempt for result in told for attempt in result]
    silent = any(attempt.elapsed >= answer_s for attempt in tries)
    return "unsure" if silent or told.status.name in ("TIMEOUT", "PARTIAL") else "refused"


@cache
def _apprise() -> Any:
    """The library with its services, whose modules import what Python has deprecated."""
    import apprise

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        apprise.Apprise.instantiate("json://127.0.0.1/")
    return apprise


def _instance(url: str) -> Any:
    apprise = _apprise()
    asset = apprise.AppriseAsset(
        app_id="batch_etl", app_desc="batch_etl alerts", storage_mode="memory"
    )
    try:
        found = apprise.Apprise.instantiate(url, asset=asset)
    except Exception:  # noqa: BLE001 - a plugin may raise anything, with the URL in its words
        return None
    if found is not None and found.socket_read_timeout == apprise.URLBase.socket_read_timeout:
        found.socket_connect_timeout, found.socket_read_timeout = _CONNECT_S, _ANSWER_S
    return found


@contextmanager
def _silent() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    before = [one.disabled for one in loggers]
    for one in loggers:
        one.disabled = True
    try:
        yield
    finally:
        for one, was in zip(loggers, before, strict=True):
            one.disabled = was
