"""The report's plots: SVG within HTML, made of numbers and escaped names, without a script. Pure.

Two kinds: bars that are stacked (what adds up) and lines (what does not). Every mark has a
``<title>``, which browsers show at the pointer; the numbers themselves are in the tables beside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

Show = Callable[[float], str]
"""How a value of the vertical axis reads."""

COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c6bb1", "#6b6b6b")
"""Can be told apart by eyes that see fewer colours (Okabe and Ito's), the last for all others."""

_WIDTH, _HEIGHT = 760, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 8, 10, 24
_MOST_X_LABELS = 9
_Y_STEPS = 4


@dataclass(frozen=True)
class Series:
    """One colour of a plot: its name, and a value for each place on the horizontal axis."""

    name: str
    values: Sequence[float | None]


def plain(text: object) -> str:
    """Any text, escaped for HTML, without what no browser shows."""
    return escape("".join(c if c.isprintable() else " " for c in str(text)))


def folded(series: Sequence[Series]) -> list[Series]:
    """The largest series, and the sum of all the others where there are more than colours."""
    if len(series) <= len(COLORS):
        return list(series)
    ordered = sorted(series, key=lambda one: -sum(value or 0 for value in one.values))
    kept, rest = ordered[: len(COLORS) - 1], ordered[len(COLORS) - 1 :]
    columns = zip(*(one.values for one in rest), strict=True)
    others = [sum(value or 0 for value in column) for column in columns]
    return [*kept, Series(f"{len(rest)} others", others)]


def bars(title: str, places: Sequence[str], series: Sequence[Series], show: Show) -> str:
    """Stacked bars, one for each place."""
    shown = folded(series)
    totals = [sum(value or 0 for value in column) for column in _columns(shown, len(places))]
    top = _top(totals)
    step = _span() / max(len(places), 1)
    marks: list[str] = []
    for place, label in enumerate(places):
        base = 0.0
        for number, one in enumerate(shown):
            value = one.values[place] or 0
            if value <= 0:
                continue
            y = _y(base + value, top)
            x, width = _LEFT + step * place + step * 0.1, step * 0.8
            marks.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
                f'height="{_y(base, top) - y:.1f}" fill="{COLORS[number]}">'
                f"<title>{plain(label)}, {plain(one.name)}: {plain(show(value))}</title></rect>"
            )
            base += value
    return _figure(title, places, shown, _axis(top, show), marks)


def lines(title: str, places: Sequence[str], series: Sequence[Series], show: Show) -> str:
    """Points joined by lines; a place without a value has no point."""
    shown = list(series)[: len(COLORS)]
    top = _top([value for one in shown for value in one.values if value is not None])
    step = _span() / max(len(places), 1)
    marks: list[str] = []
    for number, one in enumerate(shown):
        points = [
            (_LEFT + step * (place + 0.5), _y(value, top), places[place], value)
            for place, value in enumerate(one.values)
            if value is not None
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in points)
        color = COLORS[number]
        marks.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        marks += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}">'
            f"<title>{plain(label)}, {plain(one.name)}: {plain(show(value))}</title></circle>"
            for x, y, label, value in points
        ]
    return _figure(title, places, shown, _axis(top, show), marks)


# the frame ----------------------------------------------------------------------------------------


def _figure(
    title: str,
    places: Sequence[str],
    shown: Sequence[Series],
    axis: Sequence[str],
    marks: Sequence[str],
) -> str:
    legend = "".join(
        f'<li><span style="background:{COLORS[number]}"></span>{plain(one.name)}</li>'
        for number, one in enumerate(shown)
    )
    return (
        f"<figure><figcaption>{plain(title)}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{plain(title)}">'
        f"{''.join(axis)}{''.join(_x_labels(places))}{''.join(marks)}</svg>"
        f'<ul class="legend">{legend}</ul></figure>'
    )


def _axis(top: float, show: Show) -> list[str]:
    parts: list[str] = []
    for number in range(_Y_STEPS + 1):
        value = top * number / _Y_STEPS
        y = _y(value, top)
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{plain(show(value))}</text>'
        )
    return parts


def _x_labels(places: Sequence[str]) -> list[str]:
    step = _span() / max(len(places), 1)
    every = max(1, math.ceil(len(places) / _MOST_X_LABELS))
    return [
        f'<text x="{_LEFT + step * (number + 0.5):.1f}" y="{_HEIGHT - 6}" text-anchor="middle">'
        f"{plain(_short(label))}</text>"
        for number, label in enumerate(places)
        if number % every == 0
    ]


def _short(label: str) -> str:
    return label if len(label) <= 12 else f"{label[:11]}…"


def _span() -> float:
    return _WIDTH - _LEFT - _RIGHT


def _y(value: float, top: float) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * value / top


def _columns(series: Sequence[Series], places: int) -> list[list[float | None]]:
    return [[one.values[place] for one in series] for place in range(places)]


def _top(values: Sequence[float]) -> float:
    """A round number at or above all values, that four steps divide well."""
    largest = max(values, default=0.0) * (1 - 1e-9)  # a sum of shares is no more than its whole
    if largest <= 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(largest))
    return next(unit * factor for factor in (1, 2, 4, 6, 8, 10, 20) if unit * factor >= largest)
