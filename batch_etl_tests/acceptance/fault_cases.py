"""The fault table as cases: what goes wrong, what is done, and what must hold at the end.

Every row of the list of faults that tools of this kind were measured with, 500 records each, and
some more points at which a process is killed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batch_etl_tests.acceptance.fault_check import Expected, Measured, judged
from batch_etl_tests.acceptance.fault_site import RECORDS, Site, posts, site

BATCHES = "/v1/messages/batches"


@dataclass(frozen=True)
class Case:
    """One row: ``play`` does it on a site with 500 posts, whose batches end after ``end_s``."""

    fault: str
    must: str
    expected: Expected
    play: Callable[[Site], None]
    end_s: float = 0.0

    def measure(self) -> Measured:
        """Play it in a folder and before an emulator of its own, and judge."""
        with tempfile.TemporaryDirectory() as folder, site(Path(folder), end_s=self.end_s) as place:
            try:
                self.play(place)
            except AssertionError as error:
                return Measured(runs=place.runs, problems=(str(error),))
            return judged(place, self.expected)


# How a case is played -----------------------------------------------------------------------------


def once(*faults: dict[str, Any]) -> Callable[[Site], None]:
    """One run under these faults."""

    def play(place: Site) -> None:
        place.emulator.faults(*faults)
        place.run()

    return play


def killed_submitting(place: Site) -> None:
    """The server has the batch; its id never reached the process, which asks again when rerun."""
    place.run_killed("after", "POST", BATCHES)
    _has(place, creates_accepted=1)
    place.run_command()


def killed_before_submitting(place: Site) -> None:
    """To the rerun it looks the same, but the server has nothing: not even when it has had time."""
    place.run_killed("before", "POST", BATCHES)
    _has(place, creates_accepted=0)
    place.emulator.clock(advance_s=120)  # past the time in which a batch may still show
    place.run()


def killed_waiting(place: Site) -> None:
    place.run_killed_waiting()
    _has(place, creates_accepted=1, requests_billed=0)
    place.emulator.clock(advance_s=3600)
    place.run()


def killed_reading(place: Site) -> None:
    place.run_killed("after", "GET", "/results")
    _has(place, requests_billed=RECORDS)
    place.run()


def _has(place: Site, **counts: int) -> None:
    """Prove that the emulator stands where the kill was to hit."""
    status = place.emulator.status()
    for name, count in counts.items():
        assert status[name] == count, f"{name} after the kill: {status[name]}, must be {count}"


def five_duplicates(place: Site) -> None:
    place.emulator.faults({"kind": "duplicate_lines", "match": r"seal: s\d42\b"})
    place.run()
    (batch,) = place.emulator.http.get(BATCHES).json()["data"]
    lines = len(place.emulator.results(batch["id"]))
    assert lines == RECORDS + 5, f"lines of the results: {lines}, must be {RECORDS + 5}"


def changed(**task: Any) -> Callable[[Site], None]:
    """A run, another after a change of the task, and nothing in the table of the earlier one."""

    def play(place: Site) -> None:
        place.run()
        before = {row.task_version for row in place.rows()}
        place.write(**task)
        place.run()
        rows = place.rows()
        assert not before & {row.task_version for row in rows}, "old answers are in the table"
        model = task.get("claude_model")
        assert all(model in row.model for row in rows if model), "another model answered"

    return play


def one_added(place: Site) -> None:
    place.run()
    place.write(posts(RECORDS + 1))
    place.run()


def reordered(place: Site) -> None:
    place.run()
    place.write(place.records[::-1])
    place.run()


def few_texts(place: Site) -> None:
    place.write(posts(seals=25))
    place.run()


_AGAIN = {"attempts": 1, "fraction": 1.0}
"""A line fault that spares what is sent again."""

TWO_PERCENT = r"seal: s\d(07|57)\b"
FIVE_PERCENT = r"seal: s\d0[0-4]\b"

CASES = (
    Case("none", "500 answered, paid once", Expected(), once()),
    Case(
        "connection dropped after the server accepted the create",
        "pay once, no human",
        Expected(struck={"drop": 1}),
        once({"kind": "drop", "route": "create", "when": "after"}),
    ),
    Case(
        "HTTP 500 after accept",
        "pay once",
        Expected(struck={"error": 1}),
        once({"kind": "error", "route": "create", "status": 500, "when": "after"}),
    ),
    Case(
        "killed between submit and record, rerun",
        "pay once",
        Expected(runs=2),
        killed_submitting,
    ),
    Case(
        "killed before the create arrived, rerun",
        "sent once",
        Expected(runs=2),
        killed_before_submitting,
    ),
    Case(
        "killed while waiting, rerun",
        "pay once",
        Expected(runs=2),
        killed_waiting,
        end_s=600.0,
    ),
    Case(
        "killed while reading results, rerun",
        "pay once",
        Expected(runs=2),
        killed_reading,
    ),
    Case(
        "result stream cut halfway",
        "ok in the same run",
        Expected(struck={"cut": 1}),
        once({"kind": "cut", "route": "results", "fraction": 0.5}),
    ),
    Case(
        "2% of lines missing from the results",
        "re-sent, 500 answered",
        Expected(received=RECORDS + 10, creates=2, struck={"missing_lines": 2}),
        once({"kind": "missing_lines", "match": TWO_PERCENT, **_AGAIN}),
    ),
    Case(
        "5% errored (server's fault)",
        "re-sent, 500 answered",
        Expected(received=RECORDS + 25, creates=2, struck={"error_lines": 2}),
        once({"kind": "error_lines", "match": FIVE_PERCENT, **_AGAIN}),
    ),
    Case(
        "5% expired",
        "re-sent, 500 answered",
        Expected(received=RECORDS + 25, creates=2, struck={"expire_lines": 2}),
        once({"kind": "expire_lines", "match": FIVE_PERCENT, **_AGAIN}),
    ),
    Case(
        "poll answers 500 four times",
        "ok",
        Expected(struck={"error": 4}),
        once({"kind": "error", "route": "retrieve", "status": 500, "times": 4}),
    ),
    Case(
        "create answers 429 three times",
        "ok, one batch",
        Expected(calls=4, struck={"error": 3}),
        once({"kind": "error", "route": "create", "status": 429, "times": 3, "retry_after_s": 1.0}),
    ),
    Case(
        "5 duplicate result lines",
        "500 rows, counted once",
        Expected(struck={"duplicate_lines": 1}),
        five_duplicates,
    ),
    Case(
        "model changed, rerun",
        "new answers only",
        Expected(received=2 * RECORDS, billed=2 * RECORDS, creates=2, runs=2, same_cost=False),
        changed(claude_model="claude-sonnet-5"),
    ),
    Case(
        "prompt changed, rerun",
        "new answers only",
        Expected(received=2 * RECORDS, billed=2 * RECORDS, creates=2, runs=2, same_cost=False),
        changed(prompt="Which seal has this post?\n<post>\nseal: {{ seal }}\n</post>\n"),
    ),
    Case(
        "one record added, rerun",
        "1 sent",
        Expected(received=RECORDS + 1, billed=RECORDS + 1, creates=2, runs=2, same_cost=False),
        one_added,
    ),
    Case("rows in another order, rerun", "0 sent", Expected(runs=2), reordered),
    Case(
        "500 records with 25 distinct texts",
        "25 sent, 500 answered",
        Expected(received=25, billed=25, same_cost=False),
        few_texts,
    ),
)
"""The table, in the order in which it is printed."""
