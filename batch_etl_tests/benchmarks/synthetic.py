"""Synthetic records: unique posts, some with newlines, quotes and letters beyond ASCII.

    python -m batch_etl_tests.benchmarks.synthetic 10000 posts.parquet

The n-th record is the same whatever the number of records. Of the texts 15% have newlines, 30%
quotes, 15% letters beyond ASCII.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema(
    [
        ("post_id", pa.string()),
        ("channel", pa.string()),
        ("role", pa.string()),
        ("likes", pa.int64()),
        ("text", pa.string()),
    ]
)
GROUP_ROWS = 50_000

_WORDS = (  # noqa: SIM905
    "soil seed tomato water prune hinge screw drill glue wood bread oven salt yeast knife thanks "
    "great broken help why again never works with before after small garden kitchen bench paint "
    "the a of and to in that it was for on are as they at be this from I have or by one had not"
).split()
_BEYOND_ASCII = ("café", "naïve", "日本", "🙂", "Grüße", "спасибо")
_CHANNELS = ("garden", "workshop", "kitchen", "meta")
_ROLES = ("member", "newcomer", "moderator")


def write_records(path: Path, count: int, changed: int = 0) -> None:
    """Write ``count`` records; of these ``changed``, spread evenly, have another text."""
    every = count // changed if changed else 0
    fragments = _fragments()
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for start in range(0, count, GROUP_ROWS):
            numbers = range(start, min(start + GROUP_ROWS, count))
            writer.write_table(_table(numbers, every, changed, fragments))


def _fragments() -> list[str]:
    """Pieces of about 60 characters, of which texts are made."""
    draw = random.Random(11)
    pieces: list[str] = []
    for n in range(4_000):
        words = draw.choices(_WORDS, k=11)
        if n % 100 < 3:
            words.append(draw.choice(_BEYOND_ASCII))
        if n % 100 in range(10, 16):
            words[3] = f'"{words[3]}"'
        ending = "\n" if n % 100 in range(20, 23) else " "
        pieces.append(" ".join(words).capitalize() + "." + ending)
    return pieces


def _table(numbers: range, every: int, changed: int, fragments: list[str]) -> pa.Table:
    draw = random.Random(numbers.start)
    texts: list[str] = []
    for n in numbers:
        body = "".join(draw.choices(fragments, k=draw.randint(5, 7)))
        edited = " (edited)" if every and n % every == 0 and n // every < changed else ""
        texts.append(f"No. {n}: {body}"[:480] + edited)
    columns = [
        [f"{n:07}" for n in numbers],
        [_CHANNELS[n % 4] for n in numbers],
        [_ROLES[n % 3] for n in numbers],
        [n % 97 for n in numbers],
        texts,
    ]
    return pa.table(dict(zip(SCHEMA.names, columns, strict=True)), schema=SCHEMA)


if __name__ == "__main__":
    write_records(Path(sys.argv[2]), int(sys.argv[1]))
