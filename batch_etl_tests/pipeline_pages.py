"""The outputs in docs/pipelines/: written by the queries above them, on the demo's warehouse.

    python -m batch_etl_tests.pipeline_pages              run the demo, and write the pages anew
    python -m batch_etl_tests.pipeline_pages HOME         the same with a demo that was run before

Each ``sql`` block is run, and the ``text`` block after it becomes what DuckDB prints. The words
around them are people's. ``test_pipeline_pages`` fails while a page and its queries differ.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import duckdb

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "pipelines"
WIDTH, ROWS = 118, 40

_QUERY = re.compile(r"^```sql\n(?P<sql>.*?)^```\n+```text\n.*?^```\n", re.MULTILINE | re.DOTALL)


def pages() -> list[Path]:
    return sorted(PAGES.glob("*.md"))


def queries(page: str) -> list[str]:
    return [found["sql"] for found in _QUERY.finditer(page)]


def rewritten(page: str, warehouse: duckdb.DuckDBPyConnection) -> str:
    """The page with each query's output as it is now."""

    def answered(found: re.Match[str]) -> str:
        return f"```sql\n{found['sql']}```\n\n```text\n{printed(warehouse, found['sql'])}```\n"

    return _QUERY.sub(answered, page)


def printed(warehouse: duckdb.DuckDBPyConnection, sql: str) -> str:
    told = io.StringIO()
    with redirect_stdout(told):
        warehouse.sql(sql).show(max_width=WIDTH, max_rows=ROWS)
    return told.getvalue().rstrip("\n") + "\n"


def main(home: Path) -> None:
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as warehouse:
        for page in pages():
            text = page.read_text("utf-8")
            page.write_text(rewritten(text, warehouse), encoding="utf-8")
            print(f"{page.relative_to(ROOT)}: {len(queries(text))} queries")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            command = Path(sys.executable).parent / "batch-etl"
            subprocess.run([command, "demo", "--all", "--home", folder], check=True)
            main(Path(folder))
