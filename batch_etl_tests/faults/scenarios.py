"""The runs that the kill matrix cuts short: between them they pass every point that there is.

``first`` and ``retry`` are one run (two days of records, some texts twice, four batches), without
and with lines of the first attempt that expired. Each of the others brings about what only certain
circumstances do; of its points, those are cut that no scenario before it passes.

A scenario is prepared once, undisturbed, and then its ``act`` is done: once, or killed in it and
done again. Nothing else tells a second run that there was a first.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from batch_etl.batches.budget import Budget
from batch_etl.effects import When
from batch_etl.errors import ConfigError
from batch_etl_tests.batches.engine import Site
from batch_etl_tests.faults import pipeline
from batch_etl_tests.faults.deaths import Between, Count, Death, Phase
from batch_etl_tests.faults.pipeline import Record

PACKED: dict[str, Any] = {"packing": {"max_requests": 12}}
SPOILT: tuple[dict[str, Any], ...] = (
    {"kind": "expire_lines", "match": "item (3|13|23)[^0-9]", "attempts": 1},
    {"kind": "invalid_lines", "match": "item (4|14)[^0-9]", "attempts": 1},
    {"kind": "truncate_lines", "match": "item (5|15)[^0-9]", "attempts": 1},
)
"""What goes wrong with the first attempt: asked again, asked to repair, given more tokens."""
REPLANNED = ("transform open to planning", "batch planned to dropped", "plan renamed")
REFUSED = {"kind": "error", "route": "create", "status": 429}


def records(count: int = 40, texts: int = 30) -> list[Record]:
    """Half of them on either day; texts repeat after ``texts``."""
    return [
        {"id": f"r{n}", "text": f"I love item {n % texts}", "day": "ab"[n % 2]}
        for n in range(count)
    ]


def nothing(site: Site) -> None:
    pass


def run(site: Site) -> None:
    pipeline.run(site, **PACKED)


def run_both(site: Site) -> None:
    run(site)
    pipeline.run(site, "twin", **PACKED)


Watcher = Death | Count


@dataclass(frozen=True)
class Scenario:
    """``prepare`` before, then ``act``. ``phases`` are those whose points are cut."""

    name: str
    prepare: Callable[[Site], None] = nothing
    act: Callable[[Site], None] = run
    phases: tuple[Phase, ...] = ("first",)
    faults: tuple[dict[str, Any], ...] = ()
    """In force when ``act`` begins."""
    orphans: bool = False
    """A batch may be left at the emulator of which the ledger knows no id: a person gave it up."""
    also: tuple[str, ...] = ()
    """Effects that others pass too, and that are cut here all the same."""
    between: tuple[str, When, Callable[[Site], None]] | None = None
    """What somebody else does when ``act`` passes a point."""

    def watcher(self, site: Site, then: Watcher | None) -> Between | Watcher | None:
        if self.between is None:
            return then
        name, when, act = self.between
        return Between(name, when, lambda: act(site), then)


def older_task_open(site: Site) -> None:
    """Another task's transform: a batch sent, one that never arrived, two never sent."""
    site.faults({"kind": "stuck", "times": 1}, {"kind": "drop", "when": "before", "skip": 1})
    pipeline.advanced(site, pipeline.extracted(site, max_tokens=99, **PACKED))
    unplanned = pipeline.extracted(site, max_tokens=98, **PACKED)
    site.runner().open(unplanned)


def same_records(site: Site) -> None:
    """Another pipeline will ask the same."""
    pipeline.write_csv(site, records(), "twin")


def same_requests_open(site: Site) -> None:
    """Another pipeline is buying the same requests."""
    same_records(site)
    site.pace(end_s=3600.0)
    pipeline.advanced(site, pipeline.extracted(site, "twin", **PACKED))
    site.pace(end_s=0.0)


def twin_comes_first(site: Site) -> None:
    own = site.again()
    pipeline.advanced(own, pipeline.extracted(own, "twin", **PACKED))
    own.close()


def too_large_planned(site: Site) -> None:
    """All is planned in batches that are over the limits of later."""
    site.faults({**REFUSED, "times": None})
    pipeline.advanced(site, pipeline.extracted(site, packing={"max_requests": 20}))


def changed(**settings: Any) -> Callable[[Site], None]:
    """The run, of a transform with these settings beside its task."""

    def act(site: Site) -> None:
        transform = replace(pipeline.extracted(site, **PACKED), **settings)
        pipeline.finished(site, transform)
        pipeline.loaded(site, transform)

    return act


def batch_deleted(site: Site) -> None:
    """A batch is sent, and then somebody deletes it at the API."""
    site.pace(end_s=3600.0)
    pipeline.advanced(site, pipeline.extracted(site))
    site.clock(advance_s=3601)
    site.pace(end_s=0.0)
    (batch,) = site.ledger().batches()
    site.client().delete(batch.batch_id or "")


def create_undecided(site: Site) -> None:
    """A create's reply was lost, and the results that would prove it are archived."""
    site.faults({"kind": "drop", "when": "after"}, {"kind": "archived"})
    pipeline.advanced(site, pipeline.extracted(site))


def resolved(*, buy_again: bool) -> Callable[[Site], None]:
    def act(site: Site) -> None:
        """A person decides, and runs the pipeline."""
        for batch in site.ledger().batches():
            try:
                site.runner().resolve(batch.id, buy_again=buy_again)
            except ConfigError:  # it was decided before the kill
                continue
        pipeline.run(site)

    return act


def working_file_lost(site: Site) -> None:
    """There was a run, and of the warehouse only the published file is left."""
    run(site)
    shutil.rmtree(str(site.home.warehouse_working.parent))


SCENARIOS = (
    Scenario("first"),
    Scenario("retry", phases=("retry",), faults=SPOILT),
    Scenario("task changed", older_task_open),
    Scenario("create refused", faults=(REFUSED, {"kind": "drop", "when": "before", "skip": 1})),
    Scenario("requests bought by another", same_requests_open, run_both),
    Scenario(
        "another came first",
        same_records,
        run_both,
        between=("manifest renamed", "after", twin_comes_first),
    ),
    Scenario("limits lowered", too_large_planned, also=REPLANNED),
    Scenario("deleted once collected", act=changed(delete_collected=True)),
    Scenario("batch gone, bought again", batch_deleted, resolved(buy_again=True), also=REPLANNED),
    Scenario("batch gone, given up", batch_deleted, resolved(buy_again=False)),
    Scenario(
        "create undecided, given up", create_undecided, resolved(buy_again=False), orphans=True
    ),
    Scenario("budget", act=changed(budget=Budget(day_usd=Decimal(1)))),
    Scenario("working file lost", working_file_lost),
)
