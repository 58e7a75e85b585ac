"""Results that are kept by the text they were made from."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Remembered(Generic[Result]):
    """The last ``most`` results of ``function``; safe to call from any thread.

    The texts (base64 of some megabytes) are not kept: they are told apart by their length and
    their hash, which Python works out once for a string.
    """

    def __init__(self, function: Callable[[str], Result], most: int) -> None:
        self._function = function
        self._most = most
        self._known: OrderedDict[tuple[int, int], Result] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, text: str) -> Result:
        key = (len(text), hash(text))
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        result = self._function(text)
        with self._lock:
            self._known[key] = result
            while len(self._known) > self._most:
                self._known.popitem(last=False)
        return result
