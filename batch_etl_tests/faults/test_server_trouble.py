"""The server dies and comes back, or its clock jumps: nothing is paid twice, nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batch_etl.batches.errors import ApiError, CreateUndecided
from batch_etl.effects import When, watch
from batch_etl.emulator.settings import Pace
from batch_etl_tests.batches.engine import Site, until_done
from batch_etl_tests.faults import pipeline
from batch_etl_tests.faults.agreement import disagreements
from batch_etl_tests.faults.deaths import Between
from batch_etl_tests.faults.scenarios import PACKED, records
from batch_etl_tests.faults.server import Server, server

SLOW = Pace(end_s=3600.0, cancel_s=0.0, retry_after_s=0.01)
DAY_S = 86_400.0


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Server]:
    with server(tmp_path / "emulator") as started:
        yield started


@pytest.fixture
def site(served: Server, tmp_path: Path) -> Iterator[Site]:
    opened = Site(tmp_path / "home", served.url, grace_s=2.0)
    pipeline.write_csv(opened, records())
    yield opened
    opened.close()


def settled(site: Site, received: int = 30) -> None:
    assert site.bill == (received, 30, 0)
    assert [row["_state"] for row in pipeline.table(site)] == ["answered"] * 40
    assert disagreements(site, site.ledger()) == []


CUT = {"kind": "cut", "route": "results", "clean": True}
"""A stream of results that ends early as if that were all."""


@pytest.mark.parametrize("fraction", [0.01, 0.45, 0.99])
def test_results_that_are_cut_off_again_and_again_are_never_bought_again(
    site: Site, fraction: float
) -> None:
    """What is not read is not missing: while streams end in the middle of a line."""
    site.faults({**CUT, "fraction": fraction, "times": None})
    with pytest.raises(ApiError, match="interrupted"):
        pipeline.run(site)
    site.faults()
    pipeline.run(site)
    settled(site)


@pytest.mark.parametrize("fraction", [0.0, 0.01])
def test_a_lost_create_whose_proof_is_cut_off_is_not_sent_again(
    site: Site, fraction: float
) -> None:
    site.faults({"kind": "drop", "when": "after"}, {**CUT, "fraction": fraction, "times": 2})
    pipeline.run(site)
    settled(site)


def test_results_without_any_line_prove_nothing_and_a_person_decides(site: Site) -> None:
    """It may as well be that the next run can read them: then it needs nobody."""
    site.faults({"kind": "drop", "when": "after"}, {**CUT, "fraction": 0.0, "times": None})
    with pytest.raises(CreateUndecided, match="hold no line"):
        pipeline.run(site)
    assert site.status()["http_calls"]["create"] == 1
    site.faults()
    pipeline.run(site)
    settled(site)


KILLED: list[tuple[str, When]] = [
    ("create called", "before"),
    ("create's body sent", "after"),
    ("create called", "after"),
    ("batch submitting to submitted", "after"),
    ("results opened", "before"),
    ("results opened", "after"),
    ("batch submitted to collected", "after"),
]


@pytest.mark.parametrize("point", KILLED, ids=[" ".join(point[::-1]) for point in KILLED])
def test_a_server_killed_in_the_middle_and_started_again_is_paid_once(
    site: Site, served: Server, point: tuple[str, When]
) -> None:
    """The run that loses it ends with a sentence about the server; the next one goes on."""
    watch(Between(*point, served.kill))
    try:
        with pytest.raises(ApiError, match=r"no connection to 127\.0\.0\.1|interrupted"):
            pipeline.run(site, **PACKED)
    finally:
        watch(None)
    served.start()
    pipeline.run(site, **PACKED)
    settled(site)


def test_a_server_that_is_back_at_once_is_not_even_noticed(site: Site, served: Server) -> None:
    def restart() -> None:
        served.kill()
        served.start()

    watch(Between("batch submitting to submitted", "after", restart))
    try:
        pipeline.run(site, **PACKED)
    finally:
        watch(None)
    settled(site)


@pytest.mark.parametrize(
    ("jump", "received"),
    [
        pytest.param({"advance_s": 2 * DAY_S}, 60, id="two days on, past the batches' end"),
        pytest.param({"advance_s": 3601.0}, 30, id="an hour on"),
    ],
)
def test_a_clock_that_jumps_on_while_batches_are_open(
    site: Site, jump: dict[str, Any], received: int
) -> None:
    """A batch that was open for more than a day has expired: it cost nothing, and is sent again."""
    slow = {"kind": "stuck", "times": 3} if received > 30 else {"kind": "unknown_fields"}
    site.faults(slow)
    site.pace(end_s=3600.0)
    transform = pipeline.extracted(site, **PACKED)
    pipeline.advanced(site, transform)
    site.clock(**jump)
    site.pace(end_s=0.0)
    pipeline.run(site, **PACKED)
    settled(site, received)


def test_a_clock_that_jumps_back_after_a_lost_create_does_not_hide_the_batch(site: Site) -> None:
    """And while it is not proven to be ours, nothing is sent."""
    site.faults({"kind": "drop", "when": "after"})
    site.pace(end_s=3600.0)
    runner, transform = site.runner(), pipeline.extracted(site)
    identity = runner.open(transform)
    runner.advance(identity, transform)
    site.clock(advance_s=-1800.0)
    for _ in range(3):
        assert runner.advance(identity, transform).batches_open == 1
    assert site.status()["http_calls"]["create"] == 1
    site.clock(advance_s=5400.0)
    until_done(runner, identity, transform)
    pipeline.loaded(site, transform)
    settled(site)
