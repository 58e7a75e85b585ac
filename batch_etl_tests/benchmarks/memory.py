"""Peak memory of a whole run, from a CSV file to the DuckDB table, at several numbers of records.

    python -m batch_etl_tests.benchmarks.memory 100000 200000

Each size runs in a fresh process (``batch-etl run``) against an emulator in a process of its own;
the peak is the operating system's, of the finished process (``ru_maxrss``; imports included), the
CPU time also has the emulator's in it, which costs more than the run itself.
The question is whether memory grows with the records: the last lines compare the growth of the peak
with the growth of the data.
"""

from __future__ import annotations

import csv
import os
import random
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq

_YAML = """\
type: batch_etl.components.BatchPipeline
attributes:
  name: bench
  source: {path: posts.csv, id: id}
  task:
    claude_model: claude-haiku-4-5
    max_tokens: 200
    system: You label posts of a community site.
    prompt: |
      Label this post by topic and tone.
      <post>{{ text }}</post>
    output_schema:
      type: object
      required: [topic, tone, confidence]
      properties:
        topic: {type: string, enum: [garden, repair, other], description: "What it is about."}
        tone: {type: string, enum: [friendly, neutral, angry], description: "How it sounds."}
        confidence: {type: number, description: "From 0 to 1."}
"""

_WORDS = (  # noqa: SIM905
    "soil seed tomato water prune hinge screw drill glue wood bread oven salt yeast knife "
    "thanks great broken help why café naïve 日本 🙂 angry never again works"
).split()


def write_records(path: Path, rows: int) -> int:
    """Unique texts of 300 to 500 characters; returns the file's size in bytes."""
    draw = random.Random(7)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "channel", "likes", "text"])
        for row in range(rows):
            text = f"{row} " + " ".join(draw.choices(_WORDS, k=draw.randint(45, 75)))
            writer.writerow([f"r{row:07}", draw.choice("abc"), draw.randint(0, 99), text])
    return path.stat().st_size


def run(rows: int, folder: Path) -> tuple[int, float, int, float]:
    """(peak bytes, CPU seconds, source bytes, wall seconds) of one run."""
    pipeline = folder / "defs" / "bench"
    pipeline.mkdir(parents=True)
    (pipeline / "defs.yaml").write_text(_YAML, encoding="utf-8")
    size = write_records(pipeline / "posts.csv", rows)
    environ = {
        **os.environ,
        "BATCH_ETL_HOME": str(folder / "home"),
        "BATCH_ETL_ENDPOINT": "emulator",
    }
    command = [
        sys.executable,
        "-m",
        "batch_etl.cli",
        "run",
        "bench",
        "--defs",
        str(folder / "defs"),
    ]
    started = time.monotonic()
    process = subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the run of {rows} records failed with exit code {process.returncode}")
    results = folder / "home" / "results" / "emulator" / "bench" / "all.parquet"
    assert pq.read_metadata(results).num_rows == rows
    cpu_s = usage.ru_utime + usage.ru_stime
    return usage.ru_maxrss * 1024, cpu_s, size, time.monotonic() - started


def main() -> None:
    """Run each size of the command line and print a table."""
    sizes = [int(argument) for argument in sys.argv[1:]] or [100_000, 200_000]
    print(f"{'records':>10} {'source MB':>10} {'peak MB':>8} {'CPU s':>7} {'wall s':>7}")
    measured: list[tuple[int, int]] = []
    for rows in sizes:
        with tempfile.TemporaryDirectory() as folder:
            peak, cpu_s, size, wall_s = run(rows, Path(folder))
        measured.append((peak, size))
        print(f"{rows:>10,} {size / 1e6:>10.1f} {peak / 1e6:>8.0f} {cpu_s:>7.1f} {wall_s:>7.1f}")
    for (peak, size), (next_peak, next_size) in pairwise(measured):
        print(f"data +{(next_size - size) / 1e6:.1f} MB, peak {(next_peak - peak) / 1e6:+.1f} MB")


if __name__ == "__main__":
    main()
