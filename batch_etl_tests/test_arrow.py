"""Columns are made and read without pandas, and pandas finds pyarrow as it always does."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent

import numpy as np
import pyarrow as pa
import pytest

from batch_etl import arrow
from batch_etl_tests.benchmarks import synthetic
from batch_etl_tests.benchmarks.programs import replaying


def in_a_process(code: str, *arguments: str) -> str:
    """What the code prints in a fresh process, in which every warning is an error."""
    command = [sys.executable, "-W", "error", "-c", dedent(code), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "column",
    [
        pa.array([3, 1, 2], pa.int32()),
        pa.array([9, 3, 1, 2], pa.int32()).slice(1),
        pa.chunked_array([[3, 1], [2]], pa.int32()),
        pa.chunked_array([[3, 1, 2]], pa.int32()),
    ],
)
def test_numbers_are_the_columns(column: pa.Array) -> None:
    read = arrow.numbers(column)
    assert (read.dtype, read.tolist()) == (np.int32, [3, 1, 2])


def test_a_column_without_rows_has_no_numbers() -> None:
    assert arrow.numbers(pa.chunked_array([], pa.int64())).tolist() == []


def test_numbers_with_nulls_are_refused() -> None:
    with pytest.raises(ValueError, match="1 of 2 numbers are null"):
        arrow.numbers(pa.array([1, None], pa.int64()))


@pytest.mark.parametrize("start", [0, 1, 7])
def test_flags_are_the_columns(start: int) -> None:
    values = [True, False, True, True, False, False, True, False, True]
    read = arrow.flags(pa.array(values, pa.bool_()).slice(start))
    assert (read.dtype, read.tolist()) == (np.bool_, values[start:])


@pytest.mark.parametrize("kind", [np.bool_, np.int16, np.int32, np.int64, np.uint64, np.float64])
@pytest.mark.parametrize("rows", [0, 1, 9, 200])
def test_arrays_are_columns_as_pyarrow_makes_them(kind: type[np.generic], rows: int) -> None:
    values = (np.arange(2 * rows) % 5).astype(kind)[::2]
    known = np.arange(rows) % 3 > 0
    for some in (None, known, np.ones(rows, dtype=bool)):
        made = arrow.column(values, some)
        made.validate(full=True)
        assert made.equals(pa.array(values, mask=None if some is None else ~some))


def test_values_become_columns_without_pandas() -> None:
    assert (
        in_a_process("""
        import sys
        import numpy as np, pyarrow as pa, pyarrow.compute as pc
        from batch_etl import arrow
        arrow.without_pandas()
        texts = pa.array(["a", None], pa.string())
        pc.equal(texts, pa.scalar("a", pa.string()))
        arrow.numbers(pa.array(np.arange(3))), arrow.flags(pc.is_null(texts))
        print("pandas" in sys.modules)
    """)
        == "False"
    )


def test_a_whole_run_imports_no_pandas(tmp_path: Path) -> None:
    synthetic.write_records(tmp_path / "records.parquet", 300)
    with replaying() as server:
        words = ["--records", str(tmp_path / "records.parquet"), "--url", server.url]
        words += ["--folder", str(tmp_path), "--started", repr(time.monotonic())]
        said = in_a_process(
            """
            import runpy, sys
            runpy.run_module("batch_etl_tests.benchmarks.ours", run_name="__main__")
            print("pandas" in sys.modules)
            """,
            *words,
        )
    assert said.splitlines()[-1] == "False"


def test_what_pandas_makes_is_known_from_its_import_on() -> None:
    said = in_a_process("""
        import pyarrow as pa
        from batch_etl import arrow
        arrow.without_pandas()
        pa.array(["a"], pa.string())
        import pandas as pd
        frame = pd.DataFrame({"n": [1.0, None], "t": pd.to_datetime(["2026-01-01", None])})
        print(pa.array(frame["n"]).null_count, pa.array(pd.Categorical(["a", "b"])).type.index_type)
        print(pa.table(frame).equals(pa.Table.from_pandas(frame)), pa.table(frame)["t"].null_count)
        print(pa.array([pd.NaT, pd.NA], pa.timestamp("us"), from_pandas=True).null_count)
    """)
    assert said.split() == ["1", "int8", "True", "1", "2"]


def test_a_table_goes_to_pandas_where_nobody_has_imported_it() -> None:
    assert (
        in_a_process("""
        import pyarrow as pa
        from batch_etl import arrow
        arrow.without_pandas()
        frame = pa.table({"n": pa.array([1, 2], pa.int64())}).to_pandas()
        print(frame["n"].sum(), pa.array(frame["n"]).type)
    """)
        == "3 int64"
    )


def test_whoever_looks_for_pandas_finds_it() -> None:
    said = in_a_process("""
        import importlib.util
        from batch_etl import arrow
        arrow.without_pandas()
        found = importlib.util.find_spec("pandas")
        import importlib, pandas as pd, pyarrow as pa
        print(found is not None, pa.array(pd.Series([1.0, None])).null_count)
        print(type(pd.__loader__).__name__, importlib.reload(pd) is pd)
    """)
    assert said.split() == ["True", "1", "SourceFileLoader", "True"]


def test_where_pandas_was_imported_nothing_changes() -> None:
    assert (
        in_a_process("""
        import sys
        import pandas as pd, pyarrow as pa
        from batch_etl import arrow
        finders = list(sys.meta_path)
        arrow.without_pandas()
        print(sys.meta_path == finders, pa.array(pd.Series([1.0, None])).null_count)
    """)
        == "True 1"
    )


def test_where_pyarrow_asks_otherwise_nothing_changes() -> None:
    assert (
        in_a_process("""
        import sys
        import pyarrow as pa
        from batch_etl import arrow
        pa.lib._pandas_api = object()
        finders = list(sys.meta_path)
        arrow.without_pandas()
        print(sys.meta_path == finders)
    """)
        == "True"
    )
