"""The benchmark suite: the floor, the engine and the usual way, in turn, in one run.

    python -m batch_etl_tests.benchmarks.suite 10000 100000 [--rounds 3] [--docs] [--json FILE]

Each sample is a fresh process before a fresh replay server, which is a process too and whose CPU
time is told apart. The programs take turns within a round, and every ratio is the median of the
rounds' ratios, because the same code varies by a third from hour to hour on a shared machine. All
programs' tables are checked to be equal. What is measured of ours beyond a full run:

* a rerun after a kill (SIGKILL) between submit and collect: its CPU, and that nothing was sent
* a run after 1% of the records changed: its CPU, and that exactly these were sent

``--docs`` writes the tables and the plot into ``docs/``; ``--without-usual`` leaves out the slow
one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from batch_etl_tests.benchmarks import synthetic
from batch_etl_tests.benchmarks.programs import Order, Server, replaying, started
from batch_etl_tests.benchmarks.report import as_text, write_docs

PROGRAMS = ("floor", "ours", "usual")

USUAL_ONCE_FROM = 1_000_000
"""So many records take the usual way five minutes: it is sampled in the first round only."""


@dataclass
class Samples:
    """All that was measured at one number of records: by program, a list of samples."""

    records: int
    programs: dict[str, list[dict[str, Any]]] = field(default_factory=dict[str, Any])

    def add(self, program: str, sample: dict[str, Any]) -> None:
        self.programs.setdefault(program, []).append(sample)


class Bench:
    """One run of the suite in a folder of its own."""

    def __init__(self, folder: Path, programs: tuple[str, ...]) -> None:
        self._folder = folder
        self._programs = programs

    def round(self, samples: Samples, number: int, *, scenarios: bool) -> None:
        """One sample of each program, and of each scenario, at this number of records."""
        checks: dict[str, Any] = {}
        for program in self._programs:
            if program == "usual" and number and samples.records >= USUAL_ONCE_FROM:
                continue
            sample = self._sample(program, samples.records)
            checks[program] = [float(value) for value in sample["check"]]
            samples.add(program, sample)
        if len({str(check) for check in checks.values()}) > 1:
            raise RuntimeError(f"the tables differ: {checks}")
        if scenarios:
            samples.add("ours after a kill", self._after_kill(samples.records))
            samples.add("ours, 1% changed", self._incremental(samples.records))

    def _records(self, count: int, changed: int = 0) -> Path:
        path = self._folder / f"posts-{count}-{changed}.parquet"
        if not path.exists():
            synthetic.write_records(path, count, changed)
        return path

    def _sample(self, program: str, count: int) -> dict[str, Any]:
        work = self._folder / "work"
        with replaying() as server:
            sample = _measured(program, Order(self._records(count), server.url, work), server)
        shutil.rmtree(work)
        return sample

    def _after_kill(self, count: int) -> dict[str, Any]:
        work = self._folder / "work"
        with replaying() as server:
            order = Order(self._records(count), server.url, work)
            started("ours", Order(order.records, order.url, work, die=True))
            sample = _measured("ours", order, server)
        shutil.rmtree(work)
        return sample

    def _incremental(self, count: int) -> dict[str, Any]:
        work, changed = self._folder / "work", count // 100
        with replaying(may_fail=False) as server:
            started("ours", Order(self._records(count), server.url, work))
            server.forget()
            shutil.rmtree(work / "home" / "records")
            order = Order(self._records(count, changed), server.url, work)
            sample = _measured("ours", order, server)
        shutil.rmtree(work)
        if sample["sent"] != changed:
            raise RuntimeError(f"{changed} records changed, {sample['sent']} requests were sent")
        return sample


def _measured(program: str, order: Order, server: Server) -> dict[str, Any]:
    """A sample, with what it cost the server and how many creates and requests it sent."""
    before = server.status()
    sample = started(program, order)
    after = server.status()
    sent = after["requests"] if after["creates"] > before["creates"] else 0
    return {
        **sample,
        "creates": after["creates"] - before["creates"],
        "sent": sent,
        "server_cpu_s": after["cpu_s"] - before["cpu_s"],
    }


def run(sizes: list[int], rounds: int, programs: tuple[str, ...], folder: Path) -> dict[str, Any]:
    """Measure; the whole report as plain values."""
    begun, load = datetime.now(UTC), os.getloadavg()
    all_samples = [Samples(size) for size in sorted(sizes)]
    bench = Bench(folder, programs)
    for number in range(rounds):
        for samples in all_samples:
            clock_s = time.monotonic()
            bench.round(samples, number, scenarios=samples is all_samples[-1])
            said = f"round {number + 1} of {rounds}, {samples.records:,} records"
            print(f"{said}: {time.monotonic() - clock_s:.0f} s", file=sys.stderr, flush=True)
    return {
        "begun_at": begun.isoformat(timespec="seconds"),
        "ended_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpus": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "load_before": round(load[0], 2),
            "load_after": round(os.getloadavg()[0], 2),
        },
        "rounds": rounds,
        "sizes": {
            str(samples.records): {
                name: {"median": _median(found), "samples": found}
                for name, found in samples.programs.items()
            }
            for samples in all_samples
        },
    }


def _median(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of all numbers; of a stage, over the samples that have it."""
    stages = {name: None for sample in samples for name in sample["stages"]}
    return {
        "whole": _median_of([sample["whole"] for sample in samples]),
        "stages": {
            name: _median_of([s["stages"][name] for s in samples if name in s["stages"]])
            for name in stages
        },
        "server_cpu_s": median(sample["server_cpu_s"] for sample in samples),
        "sent": median(sample["sent"] for sample in samples),
    }


def _median_of(values: list[dict[str, float]]) -> dict[str, float]:
    return {key: median(value[key] for value in values) for key in values[0]}


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without-usual", action="store_true")
    parser.add_argument("--docs", action="store_true")
    parser.add_argument("--json", type=Path)
    said = parser.parse_args()
    programs = PROGRAMS[:2] if said.without_usual else PROGRAMS
    with tempfile.TemporaryDirectory(prefix="batch-etl-bench-") as folder:
        report = run(said.records, said.rounds, programs, Path(folder))
    print(as_text(report))
    if said.json:
        said.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    if said.docs:
        write_docs(report, Path(__file__).parents[2] / "docs")


if __name__ == "__main__":
    main()
