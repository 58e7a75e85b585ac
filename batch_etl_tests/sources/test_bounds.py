"""The bounds of a query: found where they are meant, and nowhere else."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from batch_etl.sources import PartitionSlice
from batch_etl.sources.bounds import bounds_of, names_in, rewritten

QUERIES = (
    # <start> marks a bound, :start is text
    "SELECT 1",
    "SELECT * FROM t WHERE at >= <start> AND at < <end>",
    "WHERE day=<partition>",
    "SELECT ':start' WHERE a = <start>",
    "SELECT 'it''s :end', \"a:end\" -- :partition\n, <start>",
    "/* :start\n:end */ SELECT x::date FROM t",
    "SELECT $$ :start $$, $a$ :end $a$",
    "SELECT <start>::date",
    "SELECT a[1:2], {'a': 1}, now() - '1:30'",
    "SELECT 'never closed, <start>",
)


@pytest.mark.parametrize("marked", QUERIES)
def test_a_bound_is_a_colon_and_its_name_outside_of_text(marked: str) -> None:
    query = re.sub(r"<(\w+)>", r":\1", marked)
    assert rewritten(query, lambda name: f"<{name}>") == marked
    assert names_in(query) == set(re.findall(r"<(\w+)>", marked))


@pytest.mark.parametrize(
    ("query", "hint"),
    [("WHERE at < :ende", "did you mean ':end'?"), ("WHERE x = :y", "known are :end, :partition")],
)
def test_a_misspelt_bound_is_refused_by_name(query: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        names_in(query)


def test_a_window_has_two_bounds_and_its_key() -> None:
    start, end = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 2, tzinfo=UTC)
    window = PartitionSlice("2026-11-01", start, end)
    assert bounds_of(window) == {"partition": "2026-11-01", "start": start, "end": end}
    assert bounds_of(PartitionSlice("emea")) == {"partition": "emea"}
