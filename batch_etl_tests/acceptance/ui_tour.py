"""What a person does in Dagster's UI, click by click, on the two ready pipelines.

Each function goes through one errand and says what must be true on the way; the test does, and
``make screenshots`` keeps the pictures.
"""

from __future__ import annotations

import re
from pathlib import Path

from batch_etl_tests.acceptance.browser import Browser, browsing
from batch_etl_tests.acceptance.dagster_ui import STEPS
from batch_etl_tests.acceptance.dev_site import PATIENCE_S, DevSite
from batch_etl_tests.acceptance.processes import ROOT, eventually
from batch_etl_tests.components.make import query

DAY = "2026-11-05"
DAYS = [f"2026-11-{day:02}" for day in range(1, 15)]
PIPELINES = sorted(
    path.parent.name
    for path in (ROOT / "batch_etl" / "defs").glob("*/defs.yaml")
    if "BatchPipeline" in path.read_text("utf-8")
)
_SLOW_S = 86_000


def sent(site: DevSite, batches: int) -> None:
    """Until so many batches are at the API."""

    def there() -> bool:
        return site.emulator.status()["creates_accepted"] == batches

    eventually(f"{batches} batch(es) are at the API", there, site.log, PATIENCE_S)


def newest_run(site: DevSite, pipeline: str, partition: str) -> str:
    """The id of the newest run of a partition, once the page's click has made one."""

    def found() -> str | None:
        tags = [{"key": "dagster/partition", "value": partition}]
        runs = site.ui.runs(tags=tags)
        steps = [(run["runId"], {s["stepKey"] for s in run["stepStats"]}) for run in runs]
        mine = [run for run, keys in steps if f"{pipeline}__records" in keys]
        return mine[0] if mine else None

    return eventually("there is a run", found, site.log, PATIENCE_S)


def ended(site: DevSite, run_id: str) -> str:
    return eventually("the run ends", lambda: site.ui.ended(run_id), site.log, PATIENCE_S)


def a_backfill_of_all_days(site: DevSite, tab: Browser) -> None:
    """One run and one batch for 14 partitions, and every one of them green."""
    before = site.emulator.status()["creates_accepted"]
    tab.launch("content_moderation", "All", "Launch backfill", "launch-backfill")
    tab.open_newest_backfill()
    for step in STEPS:
        tab.see(f"content_moderation / {step}")
    tab.see_times("100% completed", len(STEPS))
    tab.see_together("Status", "Succeeded")
    tab.take("backfill")
    assert site.emulator.status()["creates_accepted"] == before + 1
    loaded = "SELECT DISTINCT _partition FROM emulator.content_moderation ORDER BY 1"
    assert query(site.home, loaded) == [(day,) for day in DAYS]


def its_facts_and_its_plot(site: DevSite, tab: Browser) -> None:
    """What the run came to stands on the asset's page, and a picture of the labels' shares."""
    tab.open_partition("content_moderation/results", DAYS[-2])
    for fact in ("answered", "cost_usd", "sample", "transform/cost_usd_at_standard_price"):
        tab.see(re.compile(f"^{fact}$"))
    tab.take("results", height=1000)
    tab.open_partition("content_moderation/table", DAYS[-2])
    plot = tab.page.get_by_role("img", name=re.compile("^policy_category"))
    plot.wait_for()
    box = plot.bounding_box()
    assert box, "the plot takes no place"
    assert box["width"] > 200
    assert plot.evaluate("image => image.naturalWidth") == 400
    tab.take("table", height=960)


def a_run_by_click_and_its_end_by_click(site: DevSite, tab: Browser) -> None:
    """Terminate while a batch is at the API: the run ends, the batch goes on."""
    before = site.emulator.status()["creates_accepted"]
    site.emulator.pace(end_s=_SLOW_S)
    tab.launch("feedback_analysis", DAY, "Launch 1 run")
    sent(site, before + 1)
    run_id = newest_run(site, "feedback_analysis", DAY)
    tab.open_run(run_id)
    tab.see(re.compile("waiting for 1 of 1 batch"))
    tab.take("waiting")
    tab.terminate()
    assert ended(site, run_id) == "CANCELED"
    tab.see(re.compile("goes on at the API"))
    assert site.emulator.status()["batches"]["in_progress"] == 1


def a_run_by_click_to_its_end(site: DevSite, tab: Browser) -> None:
    """The same again: it goes on with the batch that was left, and buys nothing twice."""
    before = site.emulator.status()["creates_accepted"]
    site.emulator.clock(advance_s=_SLOW_S)
    first = newest_run(site, "feedback_analysis", DAY)
    tab.launch("feedback_analysis", DAY, "Launch 1 run")

    def another() -> str | None:
        newest = newest_run(site, "feedback_analysis", DAY)
        return newest if newest != first else None

    run_id = eventually("there is a second run", another, site.log, PATIENCE_S)
    assert ended(site, run_id) == "SUCCESS"
    status = site.emulator.status()
    assert (status["creates_accepted"], status["requests_billed_twice"]) == (before, 0)
    loaded = "SELECT DISTINCT _partition, _state FROM emulator.feedback_analysis"
    assert query(site.home, loaded) == [(DAY, "answered")]


def all_pipelines_in_one_graph(_: DevSite, tab: Browser) -> None:
    """Each is a group in the graph of all, and has its three assets in a graph of its own."""
    tab.open("/asset-groups")
    for pipeline in PIPELINES:
        tab.see(pipeline)
    tab.take("graph")
    for pipeline in reversed(PIPELINES):
        tab.open_group(pipeline)
        for step in STEPS:
            tab.see(step)
    tab.take("group")


def tour(site: DevSite, pictures: Path) -> None:
    """All of it; the pictures go to a folder."""
    with browsing(site.ui.base, site.ui.repository["repositoryLocationName"], pictures) as tab:
        for errand in ERRANDS:
            errand(site, tab)
        assert tab.errors == []
        assert tab.hosts == {site.ui.base.removeprefix("http://")}


ERRANDS = (
    a_backfill_of_all_days,
    its_facts_and_its_plot,
    a_run_by_click_and_its_end_by_click,
    a_run_by_click_to_its_end,
    all_pipelines_in_one_graph,
)
