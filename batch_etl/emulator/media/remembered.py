"""Results that are kept by the digest of the data they were made from."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from batch_etl.emulator.shared import digest16

Result = TypeVar("Result")


class Remembered(Generic[Result]):
    """The last ``most`` results of ``function``; safe to call from any thread. The data itself is
    not kept.
    """

    def __init__(self, function: Callable[[bytes], Result], most: int) -> None:
        self._function = function
        self._most = most
        self._known: OrderedDict[bytes, Result] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, data: bytes) -> Result:
        digest = digest16(data)
        with self._lock:
            if digest in self._known:
                self._known.move_to_end(digest)
                return self._known[digest]
        result = self._function(data)
        with self._lock:
            self._known[digest] = result
            while len(self._known) > self._most:
                self._known.popitem(last=False)
        return result
