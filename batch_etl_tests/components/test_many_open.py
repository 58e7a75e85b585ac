"""A thousand batches open at once: what one look of the sensor costs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import dagster as dg
import pytest

from batch_etl_tests.components.make import DAILY, RANGE, Project, edited
from batch_etl_tests.components.test_deferred import DEFERRED, MONITORING, tick
from batch_etl_tests.emulator.driver import Driver

DAYS = ("2026-11-01", "2026-11-02", "2026-11-03", "2026-11-04")
A_DAY = 250
TWO_CALLS = {"list": 2}
"""One that learns who answers, and one page with all thousand batches."""

SMALL_BATCHES = edited(
    DAILY,
    DEFERRED,
    ("    max_tokens: 200\n", "    max_tokens: 200\n    packing: {max_requests: 1}\n"),
)


def records() -> str:
    rows = [f"{day}-{n},{day},Note {n} of {day}" for day in DAYS for n in range(A_DAY)]
    return "\n".join(["note_id,written_on,text", *rows, ""])


def calls(emulator: Driver) -> Counter[str]:
    return Counter(emulator.status()["http_calls"])


@pytest.mark.acceptance
def test_one_look_at_a_thousand_open_batches_is_two_calls(
    mine: Project, emulator: Driver, record_property: Callable[[str, object], None]
) -> None:
    mine.write(SMALL_BATCHES, {"notes.csv": records()})
    (mine.folder / "monitoring").mkdir()
    (mine.folder / "monitoring" / "defs.yaml").write_text(MONITORING)
    emulator.pace(end_s=3600)
    with dg.DagsterInstance.ephemeral() as instance:
        for day in DAYS:
            assert mine.run(partition=day, instance=instance).success
        assert emulator.status()["batches"]["in_progress"] == 1_000

        def look() -> tuple[list[dg.RunRequest], Counter[str], float]:
            before, began = calls(emulator), time.perf_counter()
            asked = tick(mine, instance)
            took_s = time.perf_counter() - began
            return asked, calls(emulator) - before, took_s

        asked, made, waiting_s = look()
        assert asked == []
        assert made == TWO_CALLS
        emulator.clock(advance_s=4000)
        asked, made, ended_s = look()
        assert sorted(request.partition_key or "" for request in asked) == list(DAYS)
        assert not any(set(RANGE) & set(request.tags) for request in asked)
        assert made == TWO_CALLS
    record_property("seconds of a look, all open", round(waiting_s, 2))
    record_property("seconds of a look, all ended", round(ended_s, 2))
    print(f"one look at 1,000 batches: {waiting_s:.2f} s all open, {ended_s:.2f} s all ended")
