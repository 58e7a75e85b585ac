"""Wall time, CPU time and peak memory of a program's stages, measured by the program itself.

The first stage, ``start``, is everything from the parent's fork to the first line after the
imports. Time in which the server prepares results is taken out (:meth:`Watch.prepare`). CPU is
user and system time of the process (``getrusage``), all its threads included. The peak of a stage
is the kernel's high-water mark of resident memory, which is set back at the stage's begin; where
that is not possible (outside Linux) every stage shows the peak so far.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class Watch:
    """One program's stages."""

    def __init__(self, started_s: float, url: str) -> None:
        """``started_s``: ``time.monotonic()`` of the parent when it started this process."""
        self._started_s = started_s
        self._url = url
        self._out_wall_s = self._out_cpu_s = 0.0
        self._open: list[dict[str, float]] = []
        self.stages: dict[str, dict[str, float]] = {
            "start": {
                "wall_s": time.monotonic() - started_s,
                "cpu_s": cpu_s(),
                "peak_mb": peak_mb(),
            }
        }

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add what happens inside to the stage ``name``; stages inside are taken out of it."""
        self._note_peak()
        stage = self.stages.setdefault(name, {"wall_s": 0.0, "cpu_s": 0.0, "peak_mb": 0.0})
        self._open.append(stage)
        inner = self._sums()
        wall_s, own_s = self._wall_s(), self._cpu_s()
        try:
            yield
        finally:
            inner_wall_s, inner_cpu_s = (b - a for a, b in zip(inner, self._sums(), strict=True))
            stage["wall_s"] += self._wall_s() - wall_s - inner_wall_s
            stage["cpu_s"] += self._cpu_s() - own_s - inner_cpu_s
            self._note_peak()
            self._open.pop()

    def _note_peak(self) -> None:
        """The peak since the last call is the innermost open stage's."""
        if self._open:
            self._open[-1]["peak_mb"] = max(self._open[-1]["peak_mb"], peak_mb())
        _reset_peak()

    def _sums(self) -> tuple[float, float]:
        stages = self.stages.values()
        return sum(stage["wall_s"] for stage in stages), sum(stage["cpu_s"] for stage in stages)

    def _wall_s(self) -> float:
        return time.monotonic() - self._out_wall_s

    def _cpu_s(self) -> float:
        return cpu_s() - self._out_cpu_s

    def prepare(self) -> None:
        """Have the server prepare the results of what it has received, with the watch stopped."""
        wall_s, own_s = time.monotonic(), cpu_s()
        request = urllib.request.Request(f"{self._url}/_replay/prepare", b"")
        urllib.request.urlopen(request).read()
        self._out_wall_s += time.monotonic() - wall_s
        self._out_cpu_s += cpu_s() - own_s

    def report(self, check: object) -> None:
        """Print the stages, the whole, and what is in the table, as one line of JSON."""
        whole = {
            "wall_s": self._wall_s() - self._started_s,
            "cpu_s": self._cpu_s(),
            "peak_mb": max(stage["peak_mb"] for stage in self.stages.values()),
        }
        print(json.dumps({"stages": self.stages, "whole": whole, "check": check}, default=str))
        sys.stdout.flush()


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_mb() -> float:
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def _reset_peak() -> None:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
