"""What a process of ours asks of Python and of the allocators, to be lean.

A step that has streamed a gigabyte through Arrow and through lists of bytes holds little of it, but
the allocators keep what they once had: Arrow's pool, and the C library's heap after blocks of a
megabyte. The next step (or DuckDB, which has a pool of its own) would come on top.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

_OBJECTS_PER_SEARCH = 50_000
"""How many more objects there are before Python looks for unused cycles of them again."""


def lean_process() -> None:
    """For a process that does one thing and ends; before NumPy is imported.

    Unused cycles of objects are looked for seldom: nearly all that it makes, modules and Dagster's
    definitions above all, stays to its end. NumPy's threads, which have nothing to do, sleep at
    once instead of waiting awake, unless ``OPENBLAS_THREAD_TIMEOUT`` says how long.
    """
    gc.set_threshold(_OBJECTS_PER_SEARCH)
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")


def release() -> None:
    """Hand unused memory back; cheap (milliseconds), and a no-op where the platform cannot."""
    if "pyarrow" in sys.modules:
        import pyarrow as pa

        pa.default_memory_pool().release_unused()
    _trim()(0)


@functools.cache
def lean_pool() -> None:
    """Have Arrow use the C library's heap from now on, once a process.

    Its own default keeps what it once had, and spreads it over more pages: for streams of blocks
    that are made, written and dropped, 50 MB more and a sixth of the processor's time. A pool that
    was chosen on purpose (``ARROW_DEFAULT_MEMORY_POOL``) stays.
    """
    import pyarrow as pa

    if pa.default_memory_pool().backend_name == "mimalloc":
        pa.set_memory_pool(pa.system_memory_pool())


@contextmanager
def uncollected() -> Generator[None]:
    """No search for cycles inside: for thousands of objects that hold none, or that stay.

    Each of them would be looked at several times. They are freed as ever when nobody refers to
    them.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@functools.cache
def _trim() -> Callable[[int], object]:
    """The malloc_trim of glibc, or nothing on other C libraries."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return lambda _pad: None
