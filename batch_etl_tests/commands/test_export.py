"""``batch-etl export`` and ``batch-etl dictionary`` on a real warehouse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from upath import UPath

from batch_etl.cli import cli
from batch_etl.errors import BatchEtlError
from batch_etl.warehouse import TableSpec, Warehouse
from batch_etl_tests.warehouse.make import partition

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"label": {"type": "string"}}}


@pytest.fixture
def warehouse(tmp_path: Path, home: Path) -> Warehouse:
    """``posts`` of pipeline ``moderation``, by the emulator."""
    made = Warehouse(UPath(home / "warehouse/working.duckdb"), UPath(home / "warehouse.duckdb"))
    spec = TableSpec("posts", "id", pipeline="moderation", output_schema=SCHEMA)
    answers = [{"label": "a"}, {"label": "b"}, None]
    made.load(spec, "emulator", [partition(tmp_path, "d", answers, endpoint="emulator")])
    made.publish()
    return made


def run(*arguments: str | Path) -> str:
    """What the command prints; its error is raised."""
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    if done.exception is not None:
        raise done.exception
    return done.output


NAMES = {
    "moderation": 3,
    "posts": 3,
    "emulator.posts": 3,
    "posts_review": 1,
    "emulator.posts_latest": 2,
    "batches": 0,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_pipeline_a_table_or_a_view_is_written_by_name(
    warehouse: Warehouse, tmp_path: Path, name: str
) -> None:
    told = run("export", name, "--to", tmp_path / "out.parquet")
    assert f"{NAMES[name]} rows in {tmp_path}/out.parquet (" in told
    assert pq.read_metadata(tmp_path / "out.parquet").num_rows == NAMES[name]


def test_csv_is_chosen_by_the_files_name(warehouse: Warehouse, tmp_path: Path) -> None:
    run("export", "posts_latest", "--to", tmp_path / "out.csv")
    head, *rows = (tmp_path / "out.csv").read_text().splitlines()
    assert head.startswith("id,body,label,_partition,")
    assert sorted(row.split(",")[2] for row in rows) == ["a", "b"]


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_all_are_written_into_a_folder(warehouse: Warehouse, tmp_path: Path, kind: str) -> None:
    run("export", "--all", "--to", tmp_path / "out", "--format", kind)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"emulator.{name}.{kind}"
        for name in (
            "batches",
            "cost_by_day",
            "posts",
            "posts_disagreements",
            "posts_latest",
            "posts_raw",
            "posts_review",
            "transforms",
        )
    ]


MISTAKES = [
    (["nothing", "--to", "x.csv"], "no table, view or pipeline 'nothing'; known are"),
    (["moderatoin", "--to", "x.csv"], "did you mean 'moderation'"),
    (["posts", "--to", "x.xls"], r"must end in \.parquet or \.csv"),
    (["posts", "--to", "x.csv", "--endpoint", "anthropic"], "nothing of endpoint 'anthropic'"),
]


@pytest.mark.parametrize(("arguments", "words"), MISTAKES)
def test_a_mistake_is_one_sentence_and_writes_nothing(
    warehouse: Warehouse,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(BatchEtlError, match=words):
        run("export", *arguments)
    assert list(folder.iterdir()) == []


def test_one_name_or_all_must_be_asked_for(warehouse: Warehouse, tmp_path: Path) -> None:
    for arguments in ([], ["posts", "--all"]):
        done = CliRunner().invoke(cli, ["export", *arguments, "--to", str(tmp_path / "x.csv")])
        assert done.exit_code == 2
        assert "name a pipeline, table or view; or take --all" in done.output


def test_a_home_without_a_warehouse_says_so(home: Path) -> None:
    with pytest.raises(BatchEtlError, match="nothing has been loaded and published yet"):
        run("export", "posts", "--to", "x.csv")


def test_a_file_that_an_earlier_version_wrote_is_exported_and_not_reviewed(
    home: Path, tmp_path: Path
) -> None:
    home.mkdir()
    with duckdb.connect(home / "warehouse.duckdb") as old:
        old.execute("CREATE TABLE posts AS SELECT 1 AS id")
    assert "main.posts: 1 rows" in run("export", "posts", "--to", tmp_path / "x.csv")
    with pytest.raises(BatchEtlError, match="Run each pipeline once more"):
        run("review", "list")


def test_the_dictionary_is_printed_or_written(warehouse: Warehouse, tmp_path: Path) -> None:
    page = run("dictionary")
    assert page.startswith("# Data dictionary\n")
    assert "| `label` | `VARCHAR` | The answer's 'label'. |" in page.splitlines()
    told = run("dictionary", "--to", tmp_path / "docs" / "data.md")
    assert told == f"8 tables and views in {tmp_path}/docs/data.md\n"
    assert (tmp_path / "docs" / "data.md").read_text(encoding="utf-8") == page


def test_the_dictionary_can_be_of_one_endpoint(warehouse: Warehouse) -> None:
    assert "## Schema `emulator`" in run("dictionary", "--endpoint", "emulator")
    assert "## Schema" not in run("dictionary", "--endpoint", "anthropic")


LETTERS = TableSpec("letters", "id", output_schema=SCHEMA)


def letters(tmp_path: Path, home: Path, ids: list[str], partition_key: str | None) -> None:
    made = Warehouse(UPath(home / "warehouse/working.duckdb"), UPath(home / "warehouse.duckdb"))
    records = {"id": ids}
    answers: list[Any] = [{"label": f"# {name}\r\nö"} for name in ids]
    answers[-1] = None
    files = partition(tmp_path, partition_key, answers, records=records, endpoint="emulator")
    made.load(LETTERS, "emulator", [files])
    made.publish()


def test_a_columns_texts_are_files_named_by_partition_and_id(tmp_path: Path, home: Path) -> None:
    letters(tmp_path, home, ["a/../b", "..hidden", "ö 1", "in review"], "2026 10")
    told = run("export", "letters", "--column", "label", "--to", tmp_path / "out")
    assert told == f"emulator.letters: 3 files in {tmp_path}/out\n"
    found = {path.relative_to(tmp_path / "out"): path for path in (tmp_path / "out").rglob("*.*")}
    assert sorted(map(str, found)) == [
        "2026_10/_hidden.md",
        "2026_10/a_.._b.md",
        "2026_10/ö_1.md",
    ]
    assert found[Path("2026_10/ö_1.md")].read_bytes() == "# ö 1\r\nö".encode()


def test_without_partitions_the_files_lie_in_the_folder_with_the_suffix_asked_for(
    tmp_path: Path, home: Path
) -> None:
    letters(tmp_path, home, ["a", "b"], None)
    run("export", "letters", "--column", "label", "--to", tmp_path / "out", "--suffix", ".txt")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.txt"]


def test_two_rows_that_would_share_a_file_are_refused_before_any_is_written(
    tmp_path: Path, home: Path
) -> None:
    letters(tmp_path, home, ["a/b", "A_B", "c"], "d")
    with pytest.raises(BatchEtlError, match=r"'d: A_B' and 'd: a/b' would both be d/a_b\.md"):
        run("export", "letters", "--column", "label", "--to", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("column", "words"),
    [("labl", "no column 'labl'; did you mean 'label'?"), ("_attempt", "is SMALLINT, and no text")],
)
def test_only_a_texts_column_can_be_written_as_files(
    warehouse: Warehouse, tmp_path: Path, column: str, words: str
) -> None:
    with pytest.raises(BatchEtlError) as caught:
        run("export", "posts", "--column", column, "--to", tmp_path / "out")
    assert words in str(caught.value)


def test_a_column_is_of_one_table(warehouse: Warehouse, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["export", "--all", "--column", "label", "--to", str(tmp_path)])
    assert done.exit_code == 2
    assert "not of --all" in done.output
