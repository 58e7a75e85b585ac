"""The report's figures are SQL's, and its page fetches nothing, runs nothing and escapes all."""

from __future__ import annotations

import datetime as dt
import re
from datetime import timedelta
from decimal import Decimal
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from batch_etl.warehouse import TableSpec, Warehouse
from batch_etl.warehouse.report import Figures, figures
from batch_etl.warehouse.report_page import dollars, duration, page, share, total
from batch_etl.warehouse.report_plots import COLORS, Series, bars, folded, lines
from batch_etl_tests.warehouse.make import partition
from batch_etl_tests.warehouse.test_views import AT, SPEC, batch, transform

UNTIL = dt.date(2026, 11, 5)
HOSTILE = """x'"><script>alert(1)</script><img src=//e.example/x onerror=alert(2)>&amp;\u202e"""


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(UPath(tmp_path / "warehouse/working.duckdb"), UPath(tmp_path / "w.duckdb"))


def read(warehouse: Warehouse, days: int = 30) -> Figures:
    warehouse.publish()
    with warehouse.read_only() as connection:
        return figures(connection, UNTIL, days)


def sql(warehouse: Warehouse, query: str) -> list[tuple[Any, ...]]:
    with warehouse.read_only() as connection:
        return connection.execute(query).fetchall()


def filled(warehouse: Warehouse, folder: Path, name: str = "posts") -> Warehouse:
    """Two endpoints; on the real one two pipelines, three batches, on two days."""
    day = [partition(folder, f"2026-11-0{n}", [{"label": "ok"}, None]) for n in (1, 2, 3)]
    warehouse.load(SPEC, "anthropic", day)
    made_up = partition(folder / "e", "2026-11-01", [{"label": "ok"}], endpoint="emulator")
    warehouse.load(SPEC, "emulator", [made_up])
    later = timedelta(days=1)
    moved: dict[str, Any] = {
        "submitted_at": AT + later,
        "ended_at": AT + later + timedelta(seconds=600),
    }
    warehouse.load_history(
        [
            transform(),
            transform(id="T2", pipeline=name),
            transform("emulator", id="T3"),
        ],
        [
            batch(),
            batch(id="b2", batch_id="msgbatch_2", claude_model=name, **moved),
            batch(id="b3", batch_id="msgbatch_3", transform_id="T2", cost_pico_usd=None, **moved),
            batch("emulator", id="b4", batch_id="msgbatch_4", transform_id="T3", requests=999),
            batch(id="b5", batch_id=None, status="submitted", ended_at=None, collected_at=None),
        ],
    )
    return warehouse


class Page(HTMLParser):
    """A page's tags with their attributes, and its tables' cells."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == [], "every tag is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag != "meta":
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


# figures ------------------------------------------------------------------------------------------


def test_the_figures_are_those_of_the_views(warehouse: Warehouse, tmp_path: Path) -> None:
    found = read(filled(warehouse, tmp_path))
    real, emulated = found.sections
    assert [section.endpoint for section in found.sections] == ["anthropic", "emulator"]
    told = [
        (one.day, one.pipeline, one.model, one.batches, one.requests, one.cost_usd)
        for one in real.by_day
    ]
    query = "SELECT day, pipeline, model, batches, requests, cost_usd FROM main.cost_by_day"
    assert told == sql(warehouse, f"{query} ORDER BY ALL")
    query = "SELECT pipeline, count(*), median(processing_s), max(processing_s) FROM main.batches"
    assert [
        (one.pipeline, one.batches, one.median_s, one.longest_s) for one in real.latencies
    ] == sql(warehouse, f"{query} WHERE processing_s IS NOT NULL GROUP BY ALL ORDER BY ALL")
    query = "SELECT count(*), count(*) FILTER (_state = 'review') FROM main.posts"
    (table,) = real.tables
    assert [(table.rows, table.review)] == sql(warehouse, query)
    assert table.outcomes == {"Refused": 3, "Succeeded": 3}
    assert [(one.partition, one.rows, one.review) for one in table.partitions] == [
        (f"2026-11-0{n}", 2, 1) for n in (1, 2, 3)
    ]
    assert [one.requests for one in emulated.asked] == [999]
    assert sum(one.requests for one in real.outcomes) == 12


def test_emulated_dollars_are_in_their_own_section_only(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    real, emulated = read(filled(warehouse, tmp_path)).sections
    assert "999" not in {str(one.requests) for one in real.by_day}
    assert emulated.emulated
    assert not real.emulated


def test_an_amount_that_is_not_known_is_unknown_and_not_nothing(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    real, _ = read(filled(warehouse, tmp_path)).sections
    assert None in [one.cost_usd for one in real.by_day]
    assert total(one.cost_usd for one in real.asked) is None
    assert dollars(None) == "unknown"


def test_only_the_days_asked_for_are_counted(warehouse: Warehouse, tmp_path: Path) -> None:
    filled(warehouse, tmp_path)
    assert {one.day for one in read(warehouse, 4).sections[0].by_day} == {dt.date(2026, 11, 2)}
    assert read(warehouse, 3).sections[0].by_day == []


def test_a_file_without_any_history_has_a_page_too(warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.load(SPEC, "anthropic", [partition(tmp_path, None, [None])])
    found = read(warehouse)
    assert found.sections[0].by_day == []
    assert "Records" not in page(found, AT)
    assert "main.posts" in page(found, AT)


def test_views_that_gave_way_to_a_table_are_no_hindrance(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    spec = TableSpec("batches", "id", output_schema=SPEC.output_schema, pipeline="posts")
    warehouse.load(spec, "anthropic", [partition(tmp_path, None, [None])])
    filled(warehouse, tmp_path)
    assert {table.name for table in read(warehouse).sections[0].tables} == {
        "main.batches",
        "main.posts",
    }


# the page -----------------------------------------------------------------------------------------


def test_the_page_shows_the_figures(warehouse: Warehouse, tmp_path: Path) -> None:
    found = read(filled(warehouse, tmp_path))
    shown = Page(page(found, AT))
    assert ["main.posts", "6", "50.0%", "3", "3", "3"] in shown.rows
    cost = dollars(Decimal("1.250000000001"))
    assert cost == "$1.25"
    assert ["2026-11-01", "posts", "claude-haiku-4-5", "1", "4", cost] in shown.rows
    assert ["2026-11-02", "posts", "claude-haiku-4-5", "1", "4", "unknown"] in shown.rows
    assert ["posts", "3", "10 min", "10 min", "10 min"] in shown.rows


def test_the_page_says_who_answered_before_any_dollars(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    text = page(read(filled(warehouse, tmp_path)), AT)
    real, emulated = text.split("<section>")[1:]
    assert "Claude (anthropic)" in real
    assert "made up by a program" not in real
    assert emulated.index("made up by a program, and nothing was paid") < emulated.index("$")
    assert "would have cost" in emulated


def test_the_page_fetches_nothing_and_runs_nothing(warehouse: Warehouse, tmp_path: Path) -> None:
    text = page(read(filled(warehouse, tmp_path)), AT)
    assert "http://" not in text
    assert "https://" not in text
    tags = Page(text).tags
    assert not {"script", "img", "link", "iframe", "object", "base", "a"} & {tag for tag, _ in tags}
    names = {name for _, attributes in tags for name in attributes}
    assert not {name for name in names if name.startswith("on")} | ({"src", "href"} & names)
    policy = next(attributes for _, attributes in tags if "http-equiv" in attributes)
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'"
    assert "url(" not in text
    assert "@import" not in text


def test_hostile_names_are_text_on_the_page(warehouse: Warehouse, tmp_path: Path) -> None:
    spec = TableSpec("others", "id", output_schema=SPEC.output_schema, pipeline="posts")
    endpoint = "custom:<i>host</i>"
    load = partition(tmp_path / "h", "<u>key", [{"label": "ok"}], endpoint=endpoint)
    other = partition(tmp_path / "h", "b", [{"label": "ok"}], endpoint=endpoint)
    warehouse.load(spec, endpoint, [load, other])
    text = page(read(filled(warehouse, tmp_path, HOSTILE)), AT)
    shown = Page(text)
    assert not {"script", "img", "b", "i", "u"} & {tag for tag, _ in shown.tags}
    names = {cell for row in shown.rows for cell in row}
    assert HOSTILE.replace("\u202e", " ") in names
    assert "custom:<i>host</i>" in unescape(text)
    assert "\u202e" not in text


# plots --------------------------------------------------------------------------------------------


def heights(svg: str) -> list[float]:
    return [float(value) for value in re.findall(r'<rect [^>]*height="([\d.]+)"', svg)]


def test_bars_are_as_high_as_their_values() -> None:
    svg = bars("t", ["a", "b"], [Series("x", [1, 2]), Series("y", [None, 2])], str)
    one, two, other = heights(svg)
    assert two == pytest.approx(2 * one, abs=0.2)
    assert other == pytest.approx(two, abs=0.2)
    assert "<title>b, y: 2</title>" in svg


def test_lines_leave_out_what_is_not_known() -> None:
    svg = lines("t", ["a", "b", "c"], [Series("x", [1.0, None, 3.0])], str)
    assert svg.count("<circle") == 2


def test_more_series_than_colours_are_folded_into_the_smallest_ones_sum() -> None:
    many = [Series(f"s{n}", [float(n)]) for n in range(20)]
    shown = folded(many)
    assert len(shown) == len(COLORS)
    assert shown[-1] == Series("13 others", [float(sum(range(13)))])
    assert sum(value or 0 for one in shown for value in one.values) == sum(range(20))


def test_a_plot_of_nothing_is_no_error() -> None:
    assert "<svg" in bars("t", [], [], str)
    assert "<svg" in lines("t", ["a"], [Series("x", [None])], str)
    assert "<svg" in bars("t", ["a"], [Series("x", [0.0])], str)


@pytest.mark.parametrize(
    ("amount", "words"),
    [("0", "$0.00"), ("0.0000004", "$0.00"), ("0.012345", "$0.012345"), ("1234.567", "$1,234.57")],
)
def test_dollars_read_as_dollars(amount: str, words: str) -> None:
    assert dollars(Decimal(amount)) == words


def test_durations_and_shares_read_as_such() -> None:
    assert [duration(s) for s in (7.25, 600, 7200)] == ["7.25 s", "10 min", "2 h"]
    assert (share(1, 3), share(0, 0)) == ("33.3%", "none")
