"""Arrow without pandas, in processes that use none of it.

The first time that values of Python become an Arrow array, or an Arrow array one of NumPy, pyarrow
imports pandas where it is installed, in case that one of them is an object of pandas: a quarter of
a second of the processor's time and 35 MB, in every process. Two things keep it away:

* Pyarrow is told that there is no pandas until somebody imports it (:func:`without_pandas`). No
  object of pandas exists before, so nothing is treated otherwise than ever.
* What asks in C++, which can be told only for good, is not called on the way that every run takes:
  columns become NumPy's by :func:`numbers` and :func:`flags`, not by ``to_numpy`` or
  ``np.asarray``, and each ``pa.array`` of Python's values and each ``pa.scalar`` names its type, as
  a literal in a call of ``pyarrow.compute`` cannot.

Likewise ``pa.array`` of an array of NumPy imports ``numpy.ma``, 20 ms, to see whether it is one of
those; :func:`column` does not.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def numbers(column: Any) -> npt.NDArray[Any]:
    """A column of numbers, read in place where it lies in one piece; ``ValueError`` for nulls."""
    if column.null_count:
        raise ValueError(f"{column.null_count} of {len(column)} numbers are null")
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return np.from_dlpack(column)


def flags(column: Any) -> npt.NDArray[np.bool_]:
    """A column of booleans; ``ValueError`` for nulls."""
    return numbers(column.cast(pa.uint8())).view(np.bool_)


def column(values: npt.NDArray[Any], known: npt.NDArray[np.bool_] | None = None) -> pa.Array[Any]:
    """Numbers or flags as a column, in place where they lie in one piece; null where not known."""
    valid = None if known is None or known.all() else _bits(known)
    data = _bits(values) if values.dtype == np.bool_ else pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [valid, data])


def _bits(values: npt.NDArray[np.bool_]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(values, bitorder="little"))


@functools.cache
def without_pandas() -> None:
    """Have pandas imported by those who use it, from now on; once a process.

    Changes nothing where pandas has been imported, is not installed, or is found in an unusual way,
    and where pyarrow asks otherwise than is known here.
    """
    lib: Any = pa.lib  # pyright: ignore[reportAttributeAccessIssue]
    pyarrows = getattr(lib, "_pandas_api", None)  # what pyarrow knows of pandas
    if not {"have_pandas", "pd"} <= {*dir(type(pyarrows))}:  # of another version
        return
    if "pandas" in sys.modules or PathFinder.find_spec("pandas") is None:
        return
    finder = _Finder(pyarrows)
    sys.meta_path.insert(0, finder)
    finder.ask_in_vain()


class _Finder:
    """Finds pandas where Python does, but for pyarrow's first question."""

    def __init__(self, pyarrows: Any) -> None:
        self._pyarrows = pyarrows
        self._asking: int | None = None

    def ask_in_vain(self) -> None:
        """Pyarrow asks once, and keeps the answer until pandas is needed."""
        self._asking = threading.get_ident()
        try:
            _ = self._pyarrows.have_pandas
        finally:
            self._asking = None

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "pandas":
            return None
        if self._asking == threading.get_ident():
            raise ModuleNotFoundError("pandas is not needed yet", name=name)
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._pyarrows)  # pyright: ignore[reportAttributeAccessIssue]
        return spec


class _Loader:
    """Loads pandas, and has pyarrow look for it again."""

    def __init__(self, usual: Any, pyarrows: Any) -> None:
        self._usual = usual
        self._pyarrows = pyarrows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._usual, name)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self._usual
        self._usual.exec_module(module)
        _ = self._pyarrows.pd
