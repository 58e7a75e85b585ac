"""Pipelines made in Python, and behind assets of the user's own."""

# No postponed annotations here: Dagster reads those of the assets' functions as they are.
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batch_etl
from batch_etl.components import BatchPipeline
from batch_etl.components.library import build_batch_pipeline
from batch_etl.errors import ConfigError
from batch_etl_tests.components.make import NOTES, RANGE, Run, query
from batch_etl_tests.emulator.driver import Driver

TASK = {
    "claude_model": "claude-haiku-4-5",
    "max_tokens": 100,
    "prompt": "Is this kind? {{ text }}",
    "output_schema": {
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": {"type": "boolean"}},
    },
}
ROWS = [{"id": "a", "text": "Thanks"}, {"id": "b", "text": "Go away"}, {"id": "c", "text": None}]
DAYS = dg.DailyPartitionsDefinition("2026-11-01", end_date="2026-11-04")
PARTITIONS = {"type": "daily", "start": "2026-11-01", "end": "2026-11-04"}


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "values").mkdir()
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path / "values")) as instance:
        yield instance


def run(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    *keys: str,
    partition: str | None = None,
    days: tuple[str, str] | None = None,
) -> Run:
    """Materialize these assets (all by default), with values kept as files."""
    io_manager = dg.FilesystemIOManager(base_dir=str(instance.storage_directory()))
    assets = [one for one in definitions.assets or [] if isinstance(one, dg.AssetsDefinition)]
    wanted = [dg.AssetKey.from_user_string(key) for key in keys] or [one.key for one in assets]
    result = dg.materialize(
        assets,
        selection=dg.AssetSelection.assets(*wanted),
        instance=instance,
        resources={**batch_etl.environment_resources(), "io_manager": io_manager},
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        partition_key=partition,
        tags=dict(zip(RANGE, days, strict=True)) if days else {},
        raise_on_error=False,
    )
    return Run(result)


def graph_of(definitions: dg.Definitions) -> Any:
    resources = dg.Definitions(resources=batch_etl.environment_resources())
    return dg.Definitions.merge(definitions, resources).resolve_asset_graph()


def behind(asset: Any, **source: Any) -> dg.Definitions:
    """The pipeline ``mine`` behind an asset."""
    fields = {"partitions": source.pop("partitions")} if "partitions" in source else {}
    made = batch_etl.build_batch_pipeline(
        name="mine",
        source={"type": "asset", "asset": asset, "id": "id", **source},
        task=TASK,
        **fields,
    )
    return dg.Definitions.merge(dg.Definitions(assets=[asset]), made)


def of_value(value: Any) -> dg.AssetsDefinition:
    @dg.asset(key_prefix="shop")
    def orders() -> Any:
        return value

    return orders


STEPS = ("mine/records", "mine/results", "mine/table")


# The same fields as in YAML -----------------------------------------------------------------------


def test_a_pipeline_of_a_file_is_made_in_python(
    tmp_path: Path, home: Path, emulator: Driver, instance: dg.DagsterInstance
) -> None:
    (tmp_path / "notes.csv").write_text(NOTES)
    made = batch_etl.build_batch_pipeline(
        name="mine",
        source={"path": "notes.csv", "id": "note_id"},
        task=TASK,
        folder=tmp_path,
        schedule="30 2 * * *",
        tags={"team": "north"},
    )
    assert [one.name for one in made.schedules or []] == ["mine_schedule"]
    assert run(made, instance).success
    assert query(home, "SELECT count(kind) FROM emulator.mine") == [(5,)]


def test_wrong_fields_are_named_as_in_yaml() -> None:
    with pytest.raises(ConfigError) as caught:
        build_batch_pipeline(
            name="mine",
            source={"path": "notes.csv", "id": "note_id", "delimeter": ";"},
            task=TASK | {"max_tokens": "many"},
        )
    source, task = str(caught.value).splitlines()
    assert source == "pipeline 'mine'.source: unknown key 'delimeter'; did you mean 'delimiter'?"
    assert task.startswith("pipeline 'mine'.task.max_tokens: Input should be a valid integer")
    assert task.endswith("(got 'many')")


def test_a_subclass_of_the_component_is_made_too(tmp_path: Path) -> None:
    class Own(BatchPipeline):
        def build_assets(self, pipeline: Any) -> list[dg.AssetsDefinition]:
            return super().build_assets(pipeline)[:1]

    source = {"path": "notes.csv", "id": "note_id"}
    made = build_batch_pipeline(name="mine", source=source, task=TASK, component=Own)
    assert [one.key.path for one in made.assets or [] if isinstance(one, dg.AssetsDefinition)] == [
        ["mine", "records"]
    ]


def test_the_package_offers_what_it_documents_and_no_more() -> None:
    assert {"build_batch_pipeline", "environment_resources"} <= set(dir(batch_etl))
    with pytest.raises(AttributeError, match="no attribute 'build_pipeline'"):
        _ = batch_etl.build_pipeline


# Behind an asset ----------------------------------------------------------------------------------

VALUES: dict[str, Callable[[], Any]] = {
    "pandas": lambda: pd.DataFrame(ROWS),
    "pandas with the id as its index": lambda: pd.DataFrame(ROWS).set_index("id"),
    "an Arrow table": lambda: pa.Table.from_pylist(ROWS),
    "an Arrow batch": lambda: pa.RecordBatch.from_pylist(ROWS),
    "dictionaries": lambda: ROWS,
}


@pytest.mark.parametrize("kind", VALUES)
def test_a_value_in_memory_becomes_the_records(
    home: Path, emulator: Driver, instance: dg.DagsterInstance, kind: str
) -> None:
    defined = behind(of_value(VALUES[kind]()))
    done = run(defined, instance, "shop/orders", "mine/records")
    assert done.success, done.error
    (path,) = (home / "records" / "mine").glob("*.parquet")
    table = pq.read_table(path)
    assert table.to_pylist() == ROWS
    assert table.schema.types == [pa.string(), pa.string()]


def test_lineage_leads_from_the_asset_to_the_table(
    home: Path, emulator: Driver, instance: dg.DagsterInstance
) -> None:
    defined = behind(of_value(pd.DataFrame(ROWS)))
    graph = graph_of(defined)
    records = dg.AssetKey(["mine", "records"])
    assert graph.get(records).parent_keys == {dg.AssetKey(["shop", "orders"])}
    assert run(defined, instance).success
    assert query(home, "SELECT id, kind IS NULL FROM emulator.mine ORDER BY id") == [
        *(("a", False), ("b", False), ("c", False)),
    ]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (7, "asset shop/orders: its value is int, and must be a table"),
        ([{"id": 1}, 7], "its value is list, and must be a table"),
        (
            pd.DataFrame({"id": [1, "x"]}),
            "its value is no table whose columns have a name and a type each",
        ),
        (pd.DataFrame({"ID": ["x"]}), "id: there is no column 'id'; did you mean 'ID'?"),
        (pd.DataFrame([["x", "y"]], columns=["id", "id"]), "Duplicate column names found"),
        (pd.DataFrame({"id": ["x", "x"]}), "'x' 2 times (asset shop/orders record 1"),
        ("/nowhere/orders.parquet", "no file '/nowhere/orders.parquet'"),
    ],
)
def test_what_is_no_table_is_refused(
    home: Path, instance: dg.DagsterInstance, value: Any, words: str
) -> None:
    error = run(behind(of_value(value)), instance, "shop/orders", "mine/records").error
    assert words in error


def test_a_partition_takes_the_value_of_its_key(
    home: Path, emulator: Driver, instance: dg.DagsterInstance
) -> None:
    @dg.asset(partitions_def=DAYS)
    def orders(context: dg.AssetExecutionContext) -> pd.DataFrame:
        return pd.DataFrame([{"id": f"{context.partition_key}-{n}", "text": "Hi"} for n in (1, 2)])

    defined = behind(orders, partitions=PARTITIONS)
    for day in ("2026-11-01", "2026-11-02"):
        assert run(defined, instance, "orders", partition=day).success
    several = run(defined, instance, *STEPS, days=("2026-11-01", "2026-11-02"))
    assert several.success, several.error
    assert query(
        home, "SELECT _partition, min(id), count(*) FROM emulator.mine GROUP BY 1 ORDER BY 1"
    ) == [
        ("2026-11-01", "2026-11-01-1", 2),
        ("2026-11-02", "2026-11-02-1", 2),
    ]
    for key in ("orders", "mine/records"):
        assert run(defined, instance, key, partition="2026-11-03").success
    (third,) = (home / "records" / "mine").glob("2026-11-03.parquet")
    assert pq.read_table(third).num_rows == 2


def test_a_column_cuts_a_value_that_has_all_partitions(
    home: Path, instance: dg.DagsterInstance
) -> None:
    rows = [{"id": n, "day": f"2026-11-0{n}"} for n in (1, 2, 3)]
    defined = behind(of_value(pd.DataFrame(rows)), partition_column="day", partitions=PARTITIONS)
    assert run(defined, instance, "shop/orders").success
    done = run(defined, instance, "mine/records", days=("2026-11-01", "2026-11-02"))
    assert done.success, done.error
    found = {path.stem: pq.read_table(path)["id"].to_pylist() for path in home.rglob("*.parquet")}
    assert found == {"2026-11-01": [1], "2026-11-02": [2]}


def of_file(tmp_path: Path, entry: str = "dagster/uri") -> dg.AssetsDefinition:
    @dg.asset(partitions_def=DAYS, key_prefix="shop")
    def orders(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        path = tmp_path / f"{context.partition_key}-{len(list(tmp_path.iterdir()))}.parquet"
        pq.write_table(pa.table({"id": [f"{path.stem}"], "text": ["Hi"]}), path)
        return dg.MaterializeResult(metadata={entry: f"file://{path}" if "uri" in entry else path})

    return orders


@pytest.mark.parametrize("entry", ["dagster/uri", "path", "my_file"])
def test_the_newest_file_of_each_partition_is_read(
    tmp_path: Path, home: Path, instance: dg.DagsterInstance, entry: str
) -> None:
    (tmp_path / "files").mkdir()
    own = {"metadata_key": entry} if entry == "my_file" else {}
    orders = of_file(tmp_path / "files", entry)
    defined = behind(orders, via="file", partitions=PARTITIONS, **own)
    for day in ("2026-11-01", "2026-11-02", "2026-11-01"):
        assert run(defined, instance, "shop/orders", partition=day).success
    done = run(defined, instance, "mine/records", days=("2026-11-01", "2026-11-02"))
    assert done.success, done.error
    found = {path.stem: pq.read_table(path)["id"].to_pylist() for path in home.rglob("*.parquet")}
    assert found == {"2026-11-01": ["2026-11-01-2"], "2026-11-02": ["2026-11-02-1"]}
    missing = run(defined, instance, "mine/records", partition="2026-11-03").error
    assert "partition '2026-11-03': it was never materialized" in missing


def test_a_file_that_no_metadata_names_is_said_to_be_so(
    tmp_path: Path, home: Path, instance: dg.DagsterInstance
) -> None:
    (tmp_path / "files").mkdir()
    defined = behind(of_file(tmp_path / "files", "file"), via="file", partitions=PARTITIONS)
    assert run(defined, instance, "shop/orders", partition="2026-11-01").success
    done = run(defined, instance, "mine/records", partition="2026-11-01")
    assert "no metadata 'dagster/uri' or 'path' with the path; it has file" in done.error


def test_another_source_can_come_after_assets_that_make_what_it_reads(
    tmp_path: Path, home: Path, instance: dg.DagsterInstance
) -> None:
    """A DuckDB table that an upstream asset makes: the query reads it, the graph shows it."""
    duckdb = pytest.importorskip("duckdb")

    @dg.asset(key_prefix="shop")
    def orders() -> None:
        with duckdb.connect(str(tmp_path / "shop.duckdb")) as connection:
            connection.execute("CREATE TABLE orders AS SELECT 1 AS id, 'Hi' AS text")

    made = build_batch_pipeline(
        name="mine",
        source={"type": "duckdb", "path": "shop.duckdb", "id": "id", "query": "FROM orders"},
        depends_on=["shop/orders"],
        task=TASK,
        folder=tmp_path,
    )
    defined = dg.Definitions.merge(dg.Definitions(assets=[orders]), made)
    done = run(defined, instance, "shop/orders", "mine/records")
    assert done.success, done.error
    assert graph_of(defined).get(dg.AssetKey(["mine", "records"])).parent_keys == {orders.key}
    assert pq.read_table(home / "records" / "mine" / "all.parquet").to_pylist() == [
        {"id": 1, "text": "Hi"}
    ]


@pytest.mark.parametrize(
    "named",
    [lambda asset: asset, lambda asset: asset.key, lambda asset: dg.AssetSpec(asset.key)],
    ids=["definition", "key", "spec"],
)
def test_what_it_depends_on_is_named_as_the_asset_of_a_source(
    named: Callable[[dg.AssetsDefinition], Any], tmp_path: Path
) -> None:
    orders = of_value(None)
    made = build_batch_pipeline(
        name="mine",
        source={"path": "notes.csv", "id": "note_id"},
        depends_on=[named(orders), "shop/customers"],
        task=TASK,
        folder=tmp_path,
    )
    parents = graph_of(made).get(dg.AssetKey(["mine", "records"])).parent_keys
    assert parents == {orders.key, dg.AssetKey(["shop", "customers"])}


def test_what_is_no_asset_cannot_be_depended_on() -> None:
    with pytest.raises(ConfigError, match="depends_on"):
        build_batch_pipeline(name="mine", source={"path": "x.csv"}, depends_on=[7], task=TASK)


def test_a_partition_column_without_partitions_is_refused() -> None:
    with pytest.raises(ConfigError, match="add a `partitions` block"):
        behind(of_value(ROWS), partition_column="day")
