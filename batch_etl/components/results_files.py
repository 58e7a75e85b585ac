"""What is read from results files to be shown: a few rows, and what reuse saved.

By DuckDB, which streams them; a sample reads the first row group only.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
from upath import UPath

from batch_etl.components.plots import INLINE_CHARACTERS

Files = Mapping[str | None, UPath]
"""Results files by the partition they are of."""

_MEMORY_MB = 256
_CELL_CHARACTERS = (120, 80, 60, 40, 24, 12)
_COLUMNS = 8


@contextmanager
def reading() -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB of its own for Parquet files, with a small memory."""
    config: dict[str, Any] = {"memory_limit": f"{_MEMORY_MB}MiB", "threads": 2}
    with duckdb.connect(config=config) as connection:
        yield connection


def there(files: Files) -> dict[str, str | None]:
    """Those of the files that exist: path -> partition."""
    return {str(path): key for key, path in files.items() if Path(str(path)).exists()}


def reused_cost(files: Files, sent: Sequence[str]) -> Decimal | None:
    """What the answers that were reused had cost when this pipeline bought them, in dollars.

    ``sent`` are the vendor's ids of the batches that were sent now; the other answers were reused.
    Those that another pipeline bought count as nothing. None where one has no price.
    """
    keys = there(files)
    if not keys:
        return Decimal(0)
    with reading() as connection:
        row = connection.execute(
            "SELECT coalesce(sum(cost_usd), 0), count(*) FILTER (cost_usd IS NULL) "
            "FROM read_parquet($files) "
            "WHERE input_tokens IS NOT NULL "
            "AND NOT list_contains($sent, CAST(batch_id AS VARCHAR))",
            {"files": list(keys), "sent": list(sent)},
        ).fetchone()
    assert row is not None  # noqa: S101
    return None if row[1] else Decimal(row[0])


def samples(files: Files, rows: int) -> dict[str | None, str]:
    """The first rows of each file as a Markdown table, small enough that the UI shows it."""
    keys = there(files)
    if not keys or rows < 1:
        return {}
    with reading() as connection:
        found = connection.execute(
            "SELECT filename, record_id, CAST(outcome AS VARCHAR), output, "
            "coalesce(text, reason, '') "
            "FROM read_parquet($files, filename = true) WHERE record_row < $rows "
            "ORDER BY filename, record_row",
            {"files": list(keys), "rows": rows},
        ).fetchall()
    by_file: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for place, *row in found:
        by_file[place].append(tuple(row))
    return {keys[place]: _markdown(some) for place, some in by_file.items()}


def _markdown(rows: Sequence[tuple[Any, ...]]) -> str:
    """As many of the rows as fit, cells cut as short as it takes, at least a few words."""
    decoded = [json.loads(output) if output else {} for _, _, output, _ in rows]
    answers: list[dict[str, Any]] = [one if isinstance(one, dict) else {} for one in decoded]
    names = list(dict.fromkeys(name for answer in answers for name in answer))[:_COLUMNS]
    lines = [["record", "outcome", *(names or ["answer"])]]
    lines.append(["---"] * len(lines[0]))
    for (record, outcome, _, text), answer in zip(rows, answers, strict=True):
        cells = [answer.get(name, "") for name in names] or [text]
        if not answer and names:
            cells[0] = text
        lines.append([record, outcome, *cells])
    for characters in _CELL_CHARACTERS:
        table = "\n".join(_line(cells, characters) for cells in lines)
        if len(table) < INLINE_CHARACTERS:
            return table
    return _cut(lines, _CELL_CHARACTERS[-1])


def _cut(lines: Sequence[Sequence[Any]], characters: int) -> str:
    """Without the last rows."""
    kept = [_line(cells, characters) for cells in lines]
    while len("\n".join(kept)) >= INLINE_CHARACTERS:
        kept.pop()
    return "\n".join(kept)


def _line(cells: Sequence[Any], characters: int) -> str:
    return f"| {' | '.join(_cell(cell, characters) for cell in cells)} |"


def _cell(value: Any, characters: int) -> str:
    """A value as one line that Markdown shows as it is: no tags, links, pictures or cells."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    if len(text) > characters:
        text = text[: characters - 3] + "..."
    for special in "\\`*_[]|":
        text = text.replace(special, f"\\{special}")
    return text.replace("&", "&amp;").replace("<", "&lt;")
