"""A few seconds' check against gross regressions, by ratio: the engine against the floor.

    python -m batch_etl_tests.benchmarks.regression

Both programs take turns at two sizes; of each the best sample counts, since noise only adds. What
is compared is the CPU time that further records cost (the larger size less the smaller, divided by
the records between them): start and imports, which differ by themselves and would hide the rest
at these sizes, cancel out. Exit code 1 says that the engine's records cost more than ``MOST``
times the floor's, in two measurements.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from batch_etl_tests.benchmarks import synthetic
from batch_etl_tests.benchmarks.programs import Order, replaying, started

SMALL, LARGE = 500, 10_000
ROUNDS = 2
MOST = 5.0
"""Measured beside other programs: 1.7 and 1.9; on a busier machine it was half as much again."""


def ratio(folder: Path) -> float:
    """CPU of a further record: the engine's over the floor's."""
    best: dict[tuple[str, int], float] = {}
    for size in (SMALL, LARGE):
        synthetic.write_records(folder / f"{size}.parquet", size)
    for number in range(ROUNDS):
        for size in (SMALL, LARGE):
            for program in ("floor", "ours"):
                work = folder / f"{program}-{size}-{number}"
                with replaying() as server:
                    sample = started(program, Order(folder / f"{size}.parquet", server.url, work))
                spent_s = sample["whole"]["cpu_s"] - sample["stages"]["start"]["cpu_s"]
                best[program, size] = min(spent_s, best.get((program, size), spent_s))
    ours, floor = (best[name, LARGE] - best[name, SMALL] for name in ("ours", "floor"))
    records = LARGE - SMALL
    print(
        f"a further record: {ours / records * 1e6:.1f} µs of CPU, the floor's "
        f"{floor / records * 1e6:.1f} µs"
    )
    return ours / floor


def main() -> int:
    """Measure and judge; what is too much is measured once more."""
    for _ in range(2):
        with tempfile.TemporaryDirectory(prefix="batch-etl-bench-") as folder:
            found = ratio(Path(folder))
        print(f"{found:.1f} times the floor; more than {MOST:g}, twice, fails")
        if found <= MOST:
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
