"""The report as one HTML page: no script, nothing fetched, readable on paper.

A policy in its head forbids the browser to load anything at all, and every name is escaped. Each
endpoint has a section of its own, which begins with who answered; dollars of an emulator are called
what they are.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

import duckdb
from upath import UPath

from batch_etl.files import replacing
from batch_etl.warehouse.report import Asked, Figures, Section, Table, figures
from batch_etl.warehouse.report_plots import Series, bars, lines, plain

_STYLE = """
:root{color-scheme:light}
body{font:15px/1.5 system-ui,sans-serif;color:#1c1c1c;background:#fff;margin:0 auto;
max-width:860px;padding:1.5rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.25rem;margin:2.5rem 0 .25rem;
border-top:2px solid #ddd;padding-top:1rem}h3{font-size:1rem;margin:1.75rem 0 .25rem}
p{margin:.25rem 0}.quiet{color:#5a5a5a}.emulated{background:#fff4d6;padding:.4rem .6rem;
border-left:4px solid #e69f00}
dl{display:flex;flex-wrap:wrap;gap:.5rem;margin:1rem 0}dl div{border:1px solid #ddd;
border-radius:6px;padding:.4rem .8rem}dt{color:#5a5a5a;font-size:.8rem}dd{margin:0;
font-size:1.2rem;font-variant-numeric:tabular-nums}
table{border-collapse:collapse;width:100%;font-size:.87rem;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.2rem .5rem;border-bottom:1px solid #e6e6e6;overflow-wrap:anywhere}
th.name,td.name{text-align:left}th{color:#5a5a5a;font-weight:600}
figure{margin:1rem 0;break-inside:avoid}figcaption{font-weight:600}
svg{width:100%;height:auto;font-size:11px;fill:#444}.grid{stroke:#e6e6e6}
.legend{list-style:none;margin:0;padding:0;display:flex;flex-wrap:wrap;gap:.1rem 1rem;
font-size:.85rem}.legend span{display:inline-block;width:.8em;height:.8em;margin-right:.35em;
print-color-adjust:exact;-webkit-print-color-adjust:exact}
details{margin:.5rem 0}summary{cursor:pointer;color:#5a5a5a}
@media print{body{max-width:none;padding:0;font-size:12px}section{break-before:page}
section:first-of-type{break-before:auto}tr{break-inside:avoid}}
"""

_HEAD = (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width,initial-scale=1">'
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    f"<title>batch_etl report</title><style>{_STYLE}</style></head>"
)


def write(
    connection: duckdb.DuckDBPyConnection, path: UPath, made_at: dt.datetime, days: int
) -> Figures:
    """Write the page of the last so many days (UTC) to ``path``, whole or not at all."""
    found = figures(connection, made_at.astimezone(dt.UTC).date(), days)
    with replacing(path) as temporary:
        temporary.write_text(page(found, made_at), encoding="utf-8")
    return found


def page(told: Figures, made_at: dt.datetime) -> str:
    """The whole page; ``made_at`` is shown in UTC."""
    body = "".join(_section(section) for section in told.sections)
    if not body:
        body = "<p>Nothing has been loaded yet.</p>"
    loaded = told.loaded_at.astimezone(dt.UTC) if told.loaded_at else None
    return (
        f"{_HEAD}\n<body><h1>batch_etl report</h1>"
        f'<p class="quiet">Batches that ended from {told.since} to {told.until} (UTC), and '
        f"all records of the tables. Made {_time(made_at)}"
        f"{f' of what was loaded by {_time(loaded)}' if loaded else ''}.</p>\n"
        f"{body}</body></html>\n"
    )


def _section(section: Section) -> str:
    parts = [
        f"<section><h2>{_whose(section)}</h2>",
        _warning(section),
        _tiles(section),
        _records(section.tables),
        _cost(section),
        _latency(section),
        _by_day(section),
    ]
    if section.by_day:
        parts.insert(4, _plots(section))
    return f"{''.join(parts)}</section>\n"


def _whose(section: Section) -> str:
    if section.emulated:
        return "Emulator"
    name = plain(section.endpoint)
    return "Claude (anthropic)" if section.endpoint == "anthropic" else f"Another server ({name})"


def _warning(section: Section) -> str:
    if not section.emulated:
        return '<p class="quiet">Dollars are those of the batch price.</p>'
    return (
        '<p class="emulated">These answers are made up by a program, and nothing was paid: dollars '
        "are what such batches would have cost.</p>"
    )


# figures ------------------------------------------------------------------------------------------


def _tiles(section: Section) -> str:
    rows = sum(table.rows for table in section.tables)
    review = sum(table.review for table in section.tables)
    cost = total(one.cost_usd for one in section.asked)
    standard = total(one.standard_cost_usd for one in section.asked)
    tiles = {
        "records": f"{rows:,}",
        "answered": share(rows - review, rows),
        "in review": f"{review:,}",
        "batches": f"{sum(one.batches for one in section.asked):,}",
        "requests": f"{sum(one.requests for one in section.asked):,}",
        "would have cost" if section.emulated else "cost": dollars(cost),
        "at the standard price": dollars(standard),
    }
    shown = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in tiles.items())
    return f"<dl>{shown}</dl>"


def _records(tables: Sequence[Table]) -> str:
    if not tables:
        return ""
    kinds = sorted({kind for table in tables for kind in table.outcomes})
    rows = [
        [
            table.name,
            f"{table.rows:,}",
            share(table.rows - table.review, table.rows),
            f"{table.review:,}",
            *(f"{table.outcomes.get(kind, 0):,}" for kind in kinds),
        ]
        for table in tables
    ]
    return "<h3>Quality: records by what became of them</h3>" + _grid(
        ["table", "records", "answered", "in review", *kinds], rows
    )


def _cost(section: Section) -> str:
    if not section.asked:
        return ""
    rows = [
        [
            one.pipeline,
            one.model,
            f"{one.batches:,}",
            f"{one.requests:,}",
            dollars(one.cost_usd),
            dollars(one.standard_cost_usd),
            dollars(_per_thousand(one)),
        ]
        for one in section.asked
    ]
    heads = ["pipeline", "model", "batches", "requests"]
    cost = "would have cost" if section.emulated else "cost"
    return "<h3>Volume and cost by pipeline and model</h3>" + _grid(
        [*heads, cost, "at standard price", "per 1,000 requests"], rows, names=2
    )


def _per_thousand(one: Asked) -> Decimal | None:
    if one.cost_usd is None or not one.requests:
        return None
    return one.cost_usd * 1000 / one.requests


def _latency(section: Section) -> str:
    if not section.latencies:
        return ""
    rows = [
        [
            one.pipeline,
            f"{one.batches:,}",
            duration(one.median_s),
            duration(one.p95_s),
            duration(one.longest_s),
        ]
        for one in section.latencies
    ]
    slowest = [
        [
            one.batch_id,
            one.pipeline,
            _time(one.ended_at),
            f"{one.requests:,}",
            duration(one.processing_s),
        ]
        for one in section.slowest
    ]
    return (
        "<h3>Latency: from the batch's creation to its end</h3>"
        + _grid(["pipeline", "batches", "median", "95 of 100 within", "longest"], rows)
        + "<details><summary>The slowest batches</summary>"
        + _grid(["batch", "pipeline", "ended", "requests", "took"], slowest, names=3)
        + "</details>"
    )


def _by_day(section: Section) -> str:
    if not section.by_day:
        return ""
    rows = [
        [
            str(one.day),
            one.pipeline,
            one.model,
            f"{one.batches:,}",
            f"{one.requests:,}",
            dollars(one.cost_usd),
        ]
        for one in reversed(section.by_day)
    ]
    cost = "would have cost" if section.emulated else "cost"
    return (
        "<details><summary>Every day in numbers</summary>"
        + _grid(["day", "pipeline", "model", "batches", "requests", cost], rows, names=3)
        + "</details>"
    )


# plots --------------------------------------------------------------------------------------------


def _plots(section: Section) -> str:
    days = _days(section)
    places = [str(day) for day in days]
    cost = "What it would have cost" if section.emulated else "Cost"
    plots = [
        bars(f"{cost} by day and pipeline", places, _per_pipeline(section, days, cost=True), _usd),
        bars("Requests by day and pipeline", places, _per_pipeline(section, days), _count),
        bars("Requests by day and outcome, in percent", places, _outcomes(section, days), _percent),
    ]
    if section.latency_by_day:
        plots.append(_latency_plot(section, days, places))
    plots += [_quality(table) for table in section.tables if len(table.partitions) > 1]
    return "".join(plots)


def _days(section: Section) -> list[dt.date]:
    """All days from the first that has a batch to the last, those without one too."""
    seen = [one.day for one in (*section.by_day, *section.outcomes) if one.day is not None]
    first, last = min(seen), max(seen)
    return [first + dt.timedelta(days=number) for number in range((last - first).days + 1)]


def _per_pipeline(section: Section, days: Sequence[dt.date], *, cost: bool = False) -> list[Series]:
    values: dict[str, dict[dt.date | None, float]] = {name: {} for name in _names(section)}
    for one in section.by_day:
        mine = values[one.pipeline]
        amount = float(one.cost_usd or 0) if cost else float(one.requests)
        mine[one.day] = mine.get(one.day, 0.0) + amount
    return _series(values, days)


def _names(section: Section) -> list[str]:
    """The pipelines, in an order that gives each the same colour in every plot."""
    return sorted({one.pipeline for one in (*section.by_day, *section.latency_by_day)})


def _outcomes(section: Section, days: Sequence[dt.date]) -> list[Series]:
    totals: dict[dt.date, int] = {}
    for one in section.outcomes:
        totals[one.day] = totals.get(one.day, 0) + one.requests
    values: dict[str, dict[dt.date | None, float]] = {}
    for one in section.outcomes:
        values.setdefault(one.outcome, {})[one.day] = 100 * one.requests / totals[one.day]
    ordered = sorted(values.items(), key=lambda item: (item[0] != "Succeeded", item[0]))
    return _series(dict(ordered), days)


def _latency_plot(section: Section, days: Sequence[dt.date], places: Sequence[str]) -> str:
    """In the unit that its largest value reads well in."""
    longest_s = max(one.median_s for one in section.latency_by_day)
    name, unit_s = next(
        (name, unit_s) for name, unit_s in _UNITS.items() if longest_s >= 2 * unit_s or unit_s == 1
    )
    values: dict[str, dict[dt.date | None, float]] = {name: {} for name in _names(section)}
    for one in section.latency_by_day:
        values[one.pipeline][one.day] = one.median_s / unit_s
    title = "Median time to a batch's end by day and pipeline"
    return lines(title, places, _series(values, days), lambda value: f"{value:.3g} {name}")


_UNITS = {"h": 3600.0, "min": 60.0, "s": 1.0}


def _series(
    values: Mapping[str, Mapping[dt.date | None, float]], days: Sequence[dt.date]
) -> list[Series]:
    return [Series(name, [mine.get(day) for day in days]) for name, mine in values.items()]


def _quality(table: Table) -> str:
    places = [str(one.partition) for one in table.partitions]
    answered = [float(one.rows - one.review) for one in table.partitions]
    review = [float(one.review) for one in table.partitions]
    series = [Series("answered", answered), Series("in review", review)]
    return bars(f"Records of {table.name} by partition", places, series, _count)


# words --------------------------------------------------------------------------------------------


def _grid(heads: Sequence[str], rows: Iterable[Sequence[str]], *, names: int = 1) -> str:
    """A table; so many of its first columns are names, the others numbers."""

    def cells(tag: str, values: Sequence[str]) -> str:
        opened = [f'<{tag} class="name">' if at < names else f"<{tag}>" for at in range(len(heads))]
        return "".join(
            f"{begin}{plain(value)}</{tag}>" for begin, value in zip(opened, values, strict=True)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{cells('th', heads)}</tr></thead><tbody>{body}</tbody></table>"


def total(amounts: Iterable[Decimal | None]) -> Decimal | None:
    """A sum; None where one of the amounts is not known."""
    seen = list(amounts)
    known = [one for one in seen if one is not None]
    return sum(known, Decimal()) if len(known) == len(seen) else None


def dollars(amount: Decimal | None) -> str:
    """Cents at least, down to the millionth where the amount is small."""
    if amount is None:
        return "unknown"
    if amount >= 100:
        return f"${amount:,.2f}"
    whole, _, decimals = f"{amount:.6f}".partition(".")
    return f"${whole}.{decimals.rstrip('0').ljust(2, '0')}"


def share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "none"


def duration(seconds: float) -> str:
    """Seconds as people read them."""
    if seconds < 90:
        return f"{seconds:.3g} s"
    if seconds < 5400:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h"


def _usd(value: float) -> str:
    return dollars(Decimal(repr(round(value, 6))))


def _count(value: float) -> str:
    return f"{value:,.6g}"


def _percent(value: float) -> str:
    return f"{value:.3g}%"


def _time(at: dt.datetime) -> str:
    return f"{at.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC"
