"""The ``partitions`` block, as Dagster and as a source see it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from batch_etl.components.partitions import Partitions, slices

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


def test_a_static_partition_is_its_key() -> None:
    (piece,) = slices(dg.StaticPartitionsDefinition(["de", "fr"]), ["fr"])
    assert (piece.key, piece.start, piece.end) == ("fr", None, None)
