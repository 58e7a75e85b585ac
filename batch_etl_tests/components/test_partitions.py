"""The ``partitions`` block, as Dagster and as a source see it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest
from upath import UPath

from batch_etl.components.partitions import Partitions, slices
from batch_etl.sources import DuckdbSource, FilesSource, Source, extract
from batch_etl.sources.listing import fill_placeholders

FIRST_AND_COUNT = [
    ({"type": "hourly", "start": "2026-11-01", "end": "2026-11-02"}, "2026-11-01-00:00", 24),
    ({"type": "daily", "start": "2026-11-01", "end": "2026-11-15"}, "2026-11-01", 14),
    ({"type": "weekly", "start": "2026-10-04", "end": "2026-11-01"}, "2026-10-04", 4),
    ({"type": "monthly", "start": "2026-01-01", "end": "2026-05-01"}, "2026-01-01", 4),
    ({"type": "static", "keys": ["de", "fr"]}, "de", 2),
]


@pytest.mark.parametrize(("block", "first", "count"), FIRST_AND_COUNT)
def test_a_block_gives_these_partitions(block: dict, first: str, count: int) -> None:
    keys = Partitions.model_validate(block).definition().get_partition_keys()
    assert (keys[0], len(keys)) == (first, count)


def test_without_an_end_partitions_go_on_until_now() -> None:
    start = (datetime.now(UTC) - timedelta(days=3)).date().isoformat()
    block = Partitions.model_validate({"type": "daily", "start": start})
    assert len(block.definition().get_partition_keys()) in (3, 4)


def test_a_day_in_a_time_zone_is_cut_at_its_own_midnight() -> None:
    block = Partitions.model_validate(
        {"type": "daily", "start": "2026-10-24", "end": "2026-10-27", "timezone": "Europe/Berlin"}
    )
    (day,) = slices(block.definition(), ["2026-10-25"])
    assert day.start
    assert day.end
    assert day.start.astimezone(UTC) == datetime(2026, 10, 24, 22, tzinfo=UTC)
    assert day.end - day.start == timedelta(hours=24)  # by the wall clock; 25 hours pass
    assert day.end.astimezone(UTC) == datetime(2026, 10, 25, 23, tzinfo=UTC)


REPEATED = {
    "Europe/Berlin": ("2026-10-24T23:00Z", "2026-10-25", ["01:00", "02:00", "02:00+0100", "03:00"]),
    "America/New_York": (
        "2026-11-01T04:00Z",
        "2026-11-01",
        ["00:00", "01:00", "01:00-0500", "02:00"],
    ),
}
"""By zone: a moment, and the day and hours there from then on, one of which comes twice."""


@pytest.mark.parametrize("asked", ["column", "bounds", "both"])
@pytest.mark.parametrize("zone", REPEATED)
def test_each_of_the_two_equal_hours_of_autumn_has_its_own_records(
    tmp_path: Path, zone: str, asked: str
) -> None:
    first, day, hours = REPEATED[zone]
    moments = [datetime.fromisoformat(first) + timedelta(hours=n, minutes=30) for n in range(4)]
    lines = [f"{n},{moment.isoformat()}\n" for n, moment in enumerate(moments)]
    (tmp_path / "a.csv").write_text("".join(["id,placed\n", *lines]))
    values: dict[str, Any] = {"id": "id"}
    if asked != "bounds":
        values["partition_column"] = "placed"
    if asked == "column":
        source: Source = FilesSource(path=str(tmp_path / "a.csv"), **values)
    else:
        query = "FROM 'a.csv' WHERE placed >= :start AND placed < :end"
        source = DuckdbSource(type="duckdb", query=query, base_folder=tmp_path, **values)
    block = {"type": "hourly", "start": day, "end": f"{day}T12:00", "timezone": zone}
    keys = [f"{day}-{hour}" for hour in hours]
    wanted = slices(Partitions.model_validate(block).definition(), reversed(keys))
    found = extract(source, wanted, lambda key: UPath(tmp_path / f"{key}.parquet"))
    ids = {one.partition: pq.read_table(str(one.path))["id"].to_pylist() for one in found}
    assert {key: list(map(str, ids[key])) for key in keys} == {
        key: [str(number)] for number, key in enumerate(keys)
    }


def test_a_path_shows_the_days_of_the_pipelines_time_zone() -> None:
    block = {"type": "daily", "start": "2026-10-24", "timezone": "Europe/Berlin"}
    (day,) = slices(Partitions.model_validate(block).definition(), ["2026-10-25"])
    assert fill_placeholders("{start:%Y-%m-%d}/{end:%d}", day) == "2026-10-25/26"


def test_a_static_partition_is_its_key() -> None:
    (piece,) = slices(dg.StaticPartitionsDefinition(["de", "fr"]), ["fr"])
    assert (piece.key, piece.start, piece.end) == ("fr", None, None)
