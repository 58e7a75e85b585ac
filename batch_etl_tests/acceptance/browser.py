"""Dagster's pages as a person uses them: a headless Chromium, found by roles and words.

The browser is the system's (Debian: ``apt-get install chromium``), else the one that Playwright has
installed. Pages that ask another host for anything, or whose script fails, are noted.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Page, Playwright, expect, sync_playwright

from batch_etl_tests.conftest import prerequisite

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu")
_SIZE = {"width": 1280, "height": 720}
_PATIENCE_MS = 600_000
_STILL_MS = 1_500
"""Until what fades, slides or is fetched bit by bit stands still for a picture."""


def chromium(playwright: Playwright) -> str | None:
    """The path of a Chromium, if there is one."""
    own = playwright.chromium.executable_path
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    return found or (own if Path(own).exists() else None)


@dataclass
class Browser:
    """One tab that shows one Dagster."""

    page: Page
    base: str
    location: str
    pictures: Path
    errors: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def open(self, path: str) -> None:
        self.page.goto(self.base + path)

    def take(self, name: str, height: int = _SIZE["height"]) -> None:
        """A picture of the page, ``<name>.png``, as a window of this height shows it."""
        self.page.set_viewport_size({"width": _SIZE["width"], "height": height})
        self.page.wait_for_timeout(_STILL_MS)
        self.page.screenshot(path=self.pictures / f"{name}.png")
        self.page.set_viewport_size({"width": _SIZE["width"], "height": _SIZE["height"]})

    def open_group(self, pipeline: str) -> None:
        """The graph of one pipeline."""
        self.open(f"/locations/{self.location}/asset-groups/{pipeline}/lineage")

    def launch(self, pipeline: str, partitions: str, button: str, picture: str = "") -> None:
        """Materialize all assets of a pipeline: Dagster's dialog, filled in and sent."""
        self.open_group(pipeline)
        self.page.get_by_role("button", name="Materialize all").click()
        dialog = self.page.get_by_role("dialog").last
        if partitions == "All":
            dialog.get_by_role("button", name="All", exact=True).click()
        else:
            field = dialog.get_by_role("textbox").first
            field.fill(partitions)
            field.press("Enter")
        if picture:
            self.take(picture)
        dialog.get_by_role("button", name=button).click()
        dialog.wait_for(state="detached")

    def open_run(self, run_id: str) -> None:
        self.open(f"/runs/{run_id}")

    def terminate(self) -> None:
        """On the page of a run: the red button, and yes. The dialog goes when the run has ended."""
        self.page.get_by_role("button", name="Terminate").click()
        dialog = self.page.get_by_role("dialog").last
        dialog.get_by_role("button", name="Terminate 1 run").click()

    def open_newest_backfill(self) -> None:
        self.open("/runs?view=backfills")
        self.page.locator('a[href*="/runs/b/"]').first.click()

    def open_partition(self, asset: str, partition: str) -> None:
        """What an asset's page tells of one partition."""
        self.open(f"/assets/{asset}?view=partitions&partition={partition}")
        self.page.get_by_text("Materialized", exact=True).first.wait_for()

    def see(self, words: str | re.Pattern[str]) -> None:
        """Until these words, and nothing else, stand somewhere; the page has hidden copies too."""
        self.page.get_by_text(words, exact=True).filter(visible=True).first.wait_for()

    def see_times(self, words: str, times: int) -> None:
        """Until exactly these words stand in so many places."""
        found = self.page.get_by_text(words, exact=True)
        expect(found).to_have_count(times, timeout=_PATIENCE_MS)

    def see_together(self, label: str, value: str) -> None:
        """Until the page says ``value`` directly under ``label``."""
        both = re.compile(rf"{label}\s+{value}")
        body = self.page.locator("body")
        expect(body).to_contain_text(both, use_inner_text=True, timeout=_PATIENCE_MS)


@contextmanager
def browsing(base: str, location: str, pictures: Path) -> Iterator[Browser]:
    """A browser, or the reason why there is none; closed when the body is left."""
    with sync_playwright() as playwright:
        path = chromium(playwright)
        prerequisite(path, "Chromium (Debian: make services)")
        browser = playwright.chromium.launch(executable_path=path, args=_FLAGS)
        try:
            page = browser.new_page(viewport=_SIZE)  # pyright: ignore[reportArgumentType]
            page.set_default_timeout(_PATIENCE_MS)
            tab = Browser(page, base, location, pictures)
            page.on("pageerror", lambda error: tab.errors.append(str(error)))
            page.on("request", lambda request: _note(tab, request.url))
            yield tab
        finally:
            browser.close()


def _note(tab: Browser, url: str) -> None:
    place = urlsplit(url)
    if place.scheme not in ("data", "blob"):
        tab.hosts.add(place.netloc)
