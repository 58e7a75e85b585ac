"""What ends a command also ends the processes that it has started."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def as_ctrl_c() -> Iterator[None]:
    """SIGTERM and the SIGHUP of a terminal that closes are as Ctrl-C while the body runs.

    One that is ignored (nohup) stays so. Around all that starts processes: they would be left.
    """
    earlier = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in earlier.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, _as_ctrl_c)
    try:
        yield
    finally:
        _set(earlier)


@contextmanager
def to_the_end() -> Iterator[None]:
    """The body is not interrupted: it ends processes, and another Ctrl-C would leave some."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    earlier = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        _set(earlier)


def _as_ctrl_c(number: int, frame: FrameType | None) -> None:
    """Once: a terminal that closes may send two, and the second would interrupt the ending."""
    signal.signal(number, signal.SIG_IGN)
    handler = signal.getsignal(signal.SIGINT)  # Dagster's, while it runs steps
    if not callable(handler):
        raise KeyboardInterrupt
    handler(number, frame)


def _set(handlers: dict[signal.Signals, signal._HANDLER]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
