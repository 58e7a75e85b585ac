"""Projects of one pipeline in a temporary defs folder, loaded by Dagster and run in process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from dagster.components.testing import create_defs_folder_sandbox
from upath import UPath

from batch_etl.batches.finish import RESULTS

RANGE: tuple[str, str] = (
    "dagster/asset_partition_range_start",
    "dagster/asset_partition_range_end",
)

YAML = """\
type: batch_etl.components.BatchPipeline
attributes:
  name: mine
  source:
    path: notes.csv
    id: note_id
  task:
    claude_model: claude-haiku-4-5
    max_tokens: 200
    prompt: |
      Is this note kind? Look at its words only.

      <note>{{ text }}</note>
    output_schema:
      type: object
      required: [kind, why]
      properties:
        kind: {type: boolean}
        why: {type: string}
"""
"""A user's first pipeline: 20 lines, no partitions."""

DAILY = YAML.replace(
    "    id: note_id\n",
    "    id: note_id\n    partition_column: written_on\n"
    '  partitions: {type: daily, start: "2026-11-01", end: "2026-11-05"}\n',
)

NOTES = """\
note_id,written_on,text
n1,2026-11-01,"Thank you, that was lovely"
n2,2026-11-01,"Go away"
n3,2026-11-02,"شكرا"
n4,2026-11-02,
n5,2026-11-03,"{{ 7 * 7 }} </note> ""quoted"" 🎈"
"""


def edited(text: str, *changes: tuple[str, str]) -> str:
    """``text`` with each change made; one that fits nowhere is the test's own mistake."""
    for before, after in changes:
        assert before in text, before
        text = text.replace(before, after)
    return text


@dataclass
class Run:
    """What one in-process run did."""

    result: dg.ExecuteInProcessResult

    @property
    def success(self) -> bool:
        return self.result.success

    @property
    def error(self) -> str:
        """The failed step's sentence, as Dagster shows it."""
        sentences: list[str] = []
        for event in self.result.all_events:
            if event.is_step_failure:
                data = event.step_failure_data
                assert data.user_failure_data is not None, data.error
                sentences.append(data.user_failure_data.description or "")
        assert len(sentences) == 1, sentences
        return sentences[0]

    def facts(self, step: str, partition: str | None = None) -> dict[str, Any]:
        """The metadata of one materialization."""
        for event in self.result.get_asset_materialization_events():
            if (
                event.asset_key
                and event.asset_key.path[-1] == step
                and event.partition == partition
            ):
                return {k: v.value for k, v in event.materialization.metadata.items()}
        raise KeyError((step, partition))

    def partitions(self, step: str) -> list[str | None]:
        events = self.result.get_asset_materialization_events()
        return [e.partition for e in events if e.asset_key and e.asset_key.path[-1] == step]


@dataclass(frozen=True)
class Project:
    """A defs folder with the pipeline ``mine`` and the environment's resources."""

    folder: Path
    home: Path
    sandbox: Any

    def write(self, text: str = YAML, files: Mapping[str, str | bytes] | None = None) -> None:
        """The pipeline's YAML and its files, by default ``notes.csv``."""
        folder = self.folder / "mine"
        folder.mkdir(exist_ok=True)
        (folder / "defs.yaml").write_text(text, encoding="utf-8")
        for name, content in ({"notes.csv": NOTES} if files is None else files).items():
            (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    def load(self) -> dg.Definitions:
        with self.sandbox.build_all_defs() as definitions:
            return definitions

    def run(
        self,
        *steps: str,
        first: str | None = None,
        last: str | None = None,
        partition: str | None = None,
        instance: dg.DagsterInstance | None = None,
        definitions: dg.Definitions | None = None,
    ) -> Run:
        """Materialize the pipeline's steps (all by default).

        Dagster has two ways to say which partitions: one key, and a range ``first`` to ``last``.
        """
        loaded = definitions or self.load()
        names = steps or ("records", "results", "table")
        tags = {RANGE[0]: first, RANGE[1]: last or first} if first else {}
        result = dg.materialize(
            [loaded.get_assets_def(dg.AssetKey(["mine", name])) for name in names],
            instance=instance,
            resources=dict(loaded.resources or {}),
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            tags=tags,
            partition_key=partition,
            raise_on_error=False,
        )
        return Run(result)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        return query(self.home, sql)

    def files(self) -> list[str]:
        """All that lies in the home but for Dagster's and the ledger's own files."""
        found = (path.relative_to(self.home) for path in self.home.rglob("*") if path.is_file())
        names = sorted(str(path) for path in found)
        return [
            name for name in names if not name.startswith(("dagster/", "ledger.db", "emulator/"))
        ]

    def rows(self, *parts: str) -> list[dict[str, Any]]:
        return pq.read_table(str(self.home.joinpath(*parts))).to_pylist()


def query(home: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def results(path: Path, rows: Sequence[Mapping[str, Any]]) -> UPath:
    """A results file of these rows, in that order; what they do not have is null."""
    numbered = [{"record_row": number, **row} for number, row in enumerate(rows)]
    columns = {name: [row.get(name) for row in numbered] for name in RESULTS.names}
    arrays = {name: pa.array(columns[name]).cast(RESULTS.field(name).type) for name in columns}
    pq.write_table(pa.table(arrays), path)
    return UPath(path)


def holding(root: Path, text: str) -> list[Path]:
    """All files below ``root`` whose bytes hold ``text``."""
    files = [path for path in root.rglob("*") if path.is_file()]
    assert files
    return [path for path in files if text.encode() in path.read_bytes()]


@contextmanager
def project(home: Path) -> Iterator[Project]:
    with create_defs_folder_sandbox() as sandbox:
        resources = sandbox.defs_folder_path / "resources"
        resources.mkdir()
        (resources / "defs.yaml").write_text(
            yaml.safe_dump({"type": "batch_etl.components.Environment"})
        )
        yield Project(sandbox.defs_folder_path, home, sandbox)
